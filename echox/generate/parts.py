"""A model folder and its parts: encoder/ listener/ s2t/ t2c/ echo/ vocoder/ units/ beside one config.json.

With listener/ the model hears by attention, without it by the CTC adapter of s2t/. The folder's config.json names the LLM and
the layer that is heard; every part has its own config. The folder is somebody else's: every setting is held to its type and
bounds, and every tensor to the config, before anything is allocated (docs/safety.md).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from echox.errors import ConfigError, ModelError
from echox.files import inside
from echox.generate.ears import TOKENIZER, AttentionEar, CtcEar, Ear
from echox.hub import resolve_llm
from echox.models.bounds import Layers, Text, check_values
from echox.models.echo import EchoDecoder
from echox.models.encoder import SpeechEncoder
from echox.models.io import NOT_OURS, load_config, load_module, read_config
from echox.models.latent_vocoder import LatentVocoder, LatentVocoderConfig
from echox.models.listener import Listener
from echox.models.llm import check_llm, load_llm, load_text_tokenizer, load_tokenizer
from echox.models.s2t import SpeechToText
from echox.models.spectral import SpectralConfig
from echox.models.t2c import TextToCodec
from echox.models.vocoder import UnitVocoder, VocoderConfig
from echox.text.prompt import Prompt, build_prompt, stop_ids
from echox.units.tokenizer import UnitTokenizer

MODEL_TYPE = "echox_assistant"


class ModelConfig:
    """What the config.json of a model folder may say."""

    model_type: Text
    encoder_layer: Layers
    llm: dict[
        str, str | int
    ]  # a published file, see echox.hub_source.LlmSource, or {"folder": name of a folder in this one}
    about: Text


@dataclass
class Parts:
    """Everything that answering needs, on one device."""

    folder: Path
    llm_folder: Path
    encoder: SpeechEncoder
    layer: int
    ear: Ear
    tokenizer: Any
    s2t: SpeechToText
    t2c: TextToCodec
    echo: EchoDecoder
    vocoder: UnitVocoder | LatentVocoder
    unit_tokenizer: UnitTokenizer
    prompt: Prompt
    stop: set[int]

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.s2t.embeddings_VH.device


def load_parts(folder: Path, llm: str | Path | None, device: torch.device, dtype: torch.dtype) -> Parts:
    """Load a model folder; `dtype` is the LLM's, the small parts run in float32. ModelError names what does not fit."""
    config = read_config(folder)
    if config.get("model_type") == "echox_translator":
        raise ModelError(f"{folder.name} translates and does not answer: use `echox translate --model {folder.name}`.")
    if config.get("model_type") != MODEL_TYPE:
        raise ModelError(f"{folder / 'config.json'} describes a {config.get('model_type')!r}, not a {MODEL_TYPE!r}.")
    check_values(ModelConfig, config, folder / "config.json")
    encoder, layer = SpeechEncoder.from_pretrained(folder / "encoder"), config.get("encoder_layer", 0)
    if not 1 <= layer <= encoder.num_layers:
        raise ModelError(
            f"{folder / 'config.json'} hears layer {layer}, encoder/ has layers 1 to {encoder.num_layers}."
        )
    source = config.get("llm") or {}
    if "folder" in source:
        llm_folder = inside(folder, str(source["folder"]))
        check_llm(llm_folder)
    else:
        llm_folder = resolve_llm(source, llm)
    tokenizer, language_model = load_tokenizer(llm_folder), load_llm(llm_folder, dtype)
    s2t = SpeechToText.load(folder / "s2t", language_model)
    s2t.lora.merge_into(language_model)
    t2c = TextToCodec.load(folder / "t2c")
    unit_tokenizer = UnitTokenizer.load(folder / "units")
    parts = Parts(
        folder=folder,
        llm_folder=llm_folder,
        encoder=encoder,
        layer=layer,
        ear=load_ear(folder, encoder, layer, s2t, tokenizer),
        tokenizer=tokenizer,
        s2t=s2t,
        t2c=t2c,
        echo=EchoDecoder.load(folder / "echo", t2c),
        vocoder=load_vocoder(folder / "vocoder"),
        unit_tokenizer=unit_tokenizer,
        prompt=build_prompt(tokenizer, s2t.config.system),
        stop=stop_ids(tokenizer, language_model),
    )
    check_parts(parts)
    listener = (parts.ear.listener,) if isinstance(parts.ear, AttentionEar) else ()
    for module in (*listener, parts.encoder, parts.s2t, parts.t2c, parts.echo, parts.vocoder):
        module.to(device).eval().requires_grad_(False)
    return parts


def load_ear(folder: Path, encoder: SpeechEncoder, layer: int, s2t: SpeechToText, tokenizer: Any) -> Ear:
    """Return the ear of a model folder: by attention where it has a listener, else by the CTC adapter of its S2T part."""
    if not (folder / "listener").is_dir():
        if not s2t.config.hears:
            raise ModelError(f"{folder} has neither listener/ nor an adapter in s2t/: it cannot hear. Fetch it again.")
        return CtcEar(encoder, layer, s2t, tokenizer)
    listener = Listener.load(folder / "listener").float()
    return AttentionEar(encoder, layer, listener, load_text_tokenizer(folder / "listener" / TOKENIZER), s2t, tokenizer)


def load_vocoder(folder: Path) -> UnitVocoder | LatentVocoder:
    """Load a vocoder part strictly, in float32; its config.json names the kind. ModelError names what does not fit."""
    try:
        if read_config(Path(folder)).get("model_type") == LatentVocoderConfig.model_type:
            latent = load_config(folder, LatentVocoderConfig)
            sizes = {name: value for name, value in (latent.decoder or {}).items() if name not in NOT_OURS}
            check_values(SpectralConfig, sizes, f"{Path(folder) / 'config.json'}, decoder,")
            return load_module(folder, lambda: LatentVocoder(latent)).float()
        config = load_config(folder, VocoderConfig)
        return load_module(folder, lambda: UnitVocoder(config)).float()
    except ConfigError as error:
        raise ModelError(f"{Path(folder) / 'config.json'}: {error}") from error


def check_parts(parts: Parts) -> None:
    """Raise ModelError when the parts disagree about widths or units."""
    highest, rows = max(parts.tokenizer.get_vocab().values(), default=0), len(parts.s2t.embeddings_VH)
    if highest >= rows:
        raise ModelError(
            f"{parts.llm_folder} has a tokenizer with token {highest} and an LLM with {rows}: they do not fit."
        )
    words = parts.unit_tokenizer.vocab_size
    for name, decoder in (("t2c", parts.t2c), ("echo", parts.echo)):
        if decoder.config.llm_width != parts.s2t.embeddings_VH.shape[1]:
            found, width = decoder.config.llm_width, parts.s2t.embeddings_VH.shape[1]
            raise ModelError(
                f"{parts.folder / name} reads states {found} wide, the LLM's are {width}: they do not fit."
            )
        if decoder.config.unit_vocab_size != words:
            found = decoder.config.unit_vocab_size
            raise ModelError(f"{parts.folder / name} writes {found} unit words, units/ knows {words}: they do not fit.")
    ear, width = parts.ear, parts.encoder.width
    if isinstance(ear, AttentionEar):
        part, heard = "listener", ear.listener.config.width
    else:
        part, heard = "s2t", parts.s2t.adapter.config.encoder_width
    if heard != width:
        raise ModelError(f"{parts.folder / part} hears states {heard} wide, encoder/ makes {width}: they do not fit.")
    if parts.unit_tokenizer.lexicon.units > parts.vocoder.config.num_units:
        found, known = parts.unit_tokenizer.lexicon.units, parts.vocoder.config.num_units
        raise ModelError(f"{parts.folder / 'units'} uses {found} units, the vocoder knows {known}: they do not fit.")
