"""A released checkpoint folder as the parts of an assistant: our own classes at its settings, its tensors under our names.

The LLM is read by transformers, lazily, on the devices and in the bits that are asked for; the other parts are filled one tensor
after the other, so that little more memory is held than the weights take.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from echox.errors import ConfigError, ModelError
from echox.generate.parts import Parts, Voice, assemble, check_voice, settle
from echox.models.echo import EchoDecoder
from echox.models.encoder import SpeechEncoder
from echox.models.io import Unfilled
from echox.models.llm import EMBEDDINGS, Place, load_llm, settle_llm
from echox.models.s2t import SpeechToText
from echox.models.t2c import TextToCodec
from echox.models.t2c_config import T2CConfig
from echox.models.weights import WeightFiles, is_finite
from echox.released.config import ReleasedConfig
from echox.released.keymap import NAMES, TOWER, check_layout, echo_config, fill, s2t_config, t2c_values
from echox.released.locate import check_width, find_encoder, find_vocoder, whisper_settings
from echox.text.echox_dialect import AUDIO_PATCH, EchoXTokens
from echox.units.spelled import SpelledUnits

TRIGGER = {"threshold": 0.1, "window": 5, "shortest": 20, "longest": 50}  # spec section 6.2; the paper's figure: 0.2
DTYPES = {"cpu": torch.float32, "cuda": torch.float16, "mps": torch.float16}  # the authors' positions need float16

HEAD = "lm_head.weight"


class TextModel(LlamaForCausalLM):
    """The LLM of a checkpoint, which holds tensors of other parts too."""

    _keys_to_ignore_on_load_unexpected = [rf"^{re.escape(head)}" for head, part, _ in NAMES if part != "llm"]


def open_parts(
    folder: Path, place: Place, encoder: str | Path | None = None, vocoder: str | Path | None = None
) -> Parts:
    """Return a released folder's parts, with the encoder and vocoder beside it; ModelError says what is missing."""
    config = ReleasedConfig.load(folder)
    files = WeightFiles(folder)
    check_layout(config, files.headers, str(folder))
    check_tied(config, files)
    tokens = tokens_of(folder, config)
    tokenizer = tokens.tokenizer
    ear = open_encoder(folder, config, files, encoder)
    config.llm.tie_word_embeddings = config.tied
    llm = load_llm(folder, place, kind=TextModel, config=config.llm)
    check_finite(llm, str(folder))
    settle_llm(llm, place)
    with fresh(place.dtype):
        s2t = SpeechToText(s2t_config(config), llm)
    s2t.adapter.scale.data.fill_(1.0)
    s2t.ctc_tokens.copy_(torch.arange(config.llm.vocab_size - 1))
    fill(s2t, "s2t", files)
    parts = assemble(folder, {"trigger": TRIGGER}, ear, ear.num_layers, s2t, tokenizer)
    if config.has_aligner:
        parts.voice = _open_voice(folder, config, files, tokens, find_vocoder(folder, vocoder), place)
    elif vocoder is not None:
        raise ConfigError(f"{folder} reads speech and does not speak: leave the vocoder out.")
    settle(parts, place, place.dtype)
    return parts


def check_tied(config: ReleasedConfig, files: WeightFiles) -> None:
    """Raise ModelError when a tied checkpoint holds a head that is not its embedding: it would never be used."""
    if config.tied and HEAD in files.headers:
        (_, head_VH), (_, embeddings_VH) = (next(files.read([name])) for name in (HEAD, EMBEDDINGS))
        if not torch.equal(head_VH, embeddings_VH):
            raise ModelError(
                f"{files.folder} holds a {HEAD} other than {EMBEDDINGS}, and config.json ties them: "
                "set tie_word_embeddings to false if it was learnt, or drop it."
            )


def check_finite(llm: Any, where: str) -> None:
    """Raise ModelError when a weight of a loaded LLM is NaN or infinite; one that accelerate left on the disk is not looked at."""
    for name, weight in llm.named_parameters():
        if weight.device.type != "meta" and not is_finite(weight):
            raise ModelError(f"{where}: tensor {name} holds NaN or infinity in {weight.dtype}: fetch the model again.")


def open_encoder(folder: Path, config: ReleasedConfig, files: WeightFiles, given: str | Path | None) -> SpeechEncoder:
    """Return the encoder that the checkpoint carries (Soundwave) or that lies beside it; ModelError unless it fits."""
    if given is None and f"{TOWER}conv1.weight" in files.headers:
        where = folder
        encoder = SpeechEncoder.from_files(whisper_settings(files.shapes), files, full_windows=True, prefix=TOWER)
    else:
        where = find_encoder(folder, config, given)
        encoder = SpeechEncoder.from_pretrained(where, full_windows=True)
    check_width(where, encoder.width, config)
    return encoder


def _open_voice(
    folder: Path, config: ReleasedConfig, files: WeightFiles, tokens: EchoXTokens, vocoder: Any, place: Place
) -> Voice:
    with fresh(place.dtype):
        t2c = TextToCodec(T2CConfig(**t2c_values(config, tokens)))
        echo = EchoDecoder(echo_config(config, tokens), t2c)
    fill(t2c, "t2c", files)
    fill(echo, "echo", files)
    units = SpelledUnits(tokens.tokenizer, config.units, vocoder.config.num_units)
    check_units(folder, config, units)
    voice = Voice(t2c, echo, vocoder, units)
    check_voice(folder, voice, config.llm.hidden_size)
    return voice


def check_units(folder: Path, config: ReleasedConfig, units: SpelledUnits) -> None:
    """Raise ModelError when the tokenizer spells no unit token of the T2C, as that of the bare LLM: it would speak in silence."""
    rows = range(config.llm.vocab_size, config.llm.vocab_size + config.units)
    if not any(number in rows for number in units.pieces.values()):
        raise ModelError(
            f"{folder / 'tokenizer.json'} has no <|unit_...|> with an id from {rows[0]} to {rows[-1]}: "
            "copy the checkpoint's own tokenizer there."
        )


@contextmanager
def fresh(dtype: torch.dtype) -> Iterator[None]:
    """Build modules in `dtype`, without the random numbers that a file will replace, inside this context."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with Unfilled():
            yield
    finally:
        torch.set_default_dtype(before)


def tokens_of(folder: Path, config: ReleasedConfig) -> EchoXTokens:
    """Return a checkpoint's token ids by name; ModelError unless the CTC blank is the last token of its LLM."""
    tokens = EchoXTokens.of(load_tokenizer(folder), config.segment_prefix_id)
    if tokens.audio_patch != config.llm.vocab_size - 1:
        found, last = tokens.audio_patch, config.llm.vocab_size - 1
        raise ModelError(f"{folder}: {AUDIO_PATCH} has id {found}; expected {last}, the last of the LLM's tokens.")
    return tokens


def load_tokenizer(folder: str | Path) -> Any:
    """Load tokenizer.json of a checkpoint folder, which holds the unit tokens too; ModelError when there is none."""
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{path} is missing: copy the checkpoint's tokenizer files there.")
    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(path))
    except Exception as error:  # tokenizers raises nothing more special
        raise ModelError(f"{path} is not a tokenizer that can be read ({error}): download it again.") from error


def as_released(parts: Parts) -> Parts:
    """Return the same weights with the limits of the released code, which ours leaves out where they cost something.

    The T2C may choose text tokens, one stop token counts, prompts are cut at 1,024 ids, sound is heard for one window.
    """
    eot = EchoXTokens.of(parts.tokenizer).eot
    return parts.changed(dialect={"limit": 1024}, speech={"says_text": True}, stop={eot}, longest_windows=1)
