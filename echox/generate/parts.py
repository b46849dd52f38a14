"""A model folder and its parts: encoder/ listener/ s2t/ t2c/ echo/ vocoder/ units/ beside one config.json.

With listener/ the model hears by attention, without it by the CTC adapter of s2t/. The folder's config.json names the LLM, the
layer that is heard, and the settings in which the released checkpoints differ from ours; every part has its own config. The folder
is somebody else's: every setting is held to type and bounds, every tensor to the config, before any is allocated (docs/safety.md).
"""

from copy import copy
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from echox.errors import ConfigError, ModelError
from echox.files import inside
from echox.generate.ears import TOKENIZER, AttentionEar, CtcEar, Ear
from echox.generate.model_config import MODEL_TYPE, ModelConfig
from echox.generate.translation import MODEL_TYPE as TRANSLATOR
from echox.hub import named_llm, resolve_llm
from echox.models.bounds import check_values
from echox.models.echo import EchoConfig, EchoDecoder
from echox.models.encoder import SpeechEncoder
from echox.models.io import NOT_OURS, load_config, load_module, read_config
from echox.models.kept import Opening
from echox.models.latent_vocoder import LatentVocoder, LatentVocoderConfig
from echox.models.listener import Listener
from echox.models.llm import (
    Place,
    check_llm,
    load_embeddings,
    load_llm,
    load_text_tokenizer,
    load_tokenizer,
    settle_llm,
)
from echox.models.packed import pack
from echox.models.s2t import S2TConfig, SpeechToText
from echox.models.sampling import Sampling
from echox.models.spectral import SpectralConfig
from echox.models.t2c import TextToCodec
from echox.models.vocoder import UnitVocoder, VocoderConfig
from echox.text.echox_dialect import EchoXDialect
from echox.text.prompt import Dialect, Prompt, encode, question_prompt, stop_ids
from echox.text.segmenter import PhraseSegmenter, PhraseSettings, Segmenter, TriggerSegmenter, TriggerSettings
from echox.units.spelled import SpelledUnits
from echox.units.tokenizer import UnitTokenizer

SETTLED = frozenset({"dialect", "segment_prefix", "system", "hears"})  # of `S2TConfig`, read when a model is loaded


@dataclass
class Voice:
    """What speaks: text or states to unit words to samples."""

    t2c: TextToCodec
    echo: EchoDecoder
    vocoder: UnitVocoder | LatentVocoder
    unit_tokenizer: UnitTokenizer | SpelledUnits


@dataclass(frozen=True)
class Reader:
    """Turns a text into what a voice reads of it: tokens of the LLM that it learnt with, and their vectors (V, H)."""

    tokenizer: Any
    embeddings_VH: torch.Tensor


@dataclass
class Parts:
    """Everything that answering needs; what a request changes is never here. A model may lack a voice: it answers in text."""

    folder: Path
    llm_folder: Path
    encoder: SpeechEncoder
    layer: int
    ear: Ear
    tokenizer: Any
    s2t: SpeechToText
    voice: Voice | None
    dialect: Dialect
    stop: set[int]
    segmenter: Segmenter
    trims: bool = True  # silence around segments is cut
    trigger_H: torch.Tensor | None = None  # the feature that a trigger segmenter compares states with
    own_reader: Reader | None = None  # of the LLM that the voice learnt with, where this is another

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.s2t.embeddings_VH.device

    @property
    def prompt(self) -> Prompt:
        """The prompt around one spoken question."""
        return question_prompt(self.dialect)

    @cached_property
    def opening(self) -> Opening:
        """What every prompt begins with, for the LLM to read once."""
        return Opening(self.s2t.body, self.s2t.embed(self.prompt.before))

    @property
    def sampling(self) -> Sampling:
        """How answer tokens are chosen; calls of tools begin alike, so runs may be said again where there are any."""
        return replace(self.s2t.sampling, no_repeat_ngram=0) if self.dialect.tools else self.s2t.sampling

    def speaking(self) -> Voice:
        """Return the voice; ModelError when the model has none."""
        if self.voice is None:
            raise ModelError(f"{self.folder} reads speech and does not speak: ask with text_only=True (--text-only).")
        return self.voice

    @property
    def t2c(self) -> TextToCodec:
        """Text to unit words."""
        return self.speaking().t2c

    @property
    def echo(self) -> EchoDecoder:
        """The LLM's states to unit words."""
        return self.speaking().echo

    @property
    def vocoder(self) -> UnitVocoder | LatentVocoder:
        """Units to samples."""
        return self.speaking().vocoder

    @property
    def unit_tokenizer(self) -> UnitTokenizer | SpelledUnits:
        """Unit words to units."""
        return self.speaking().unit_tokenizer

    @property
    def reader(self) -> Reader:
        """What texts become that the voice says."""
        return self.own_reader or Reader(self.tokenizer, self.s2t.embeddings_VH)

    @property
    def reads_text(self) -> bool:
        """Whether what is said depends on the text alone, whatever the LLM's states are."""
        return self.own_reader is not None or self.echo.reads_tokens_alone

    def changed(
        self,
        dialect: dict[str, Any] | None = None,
        segments: dict[str, Any] | None = None,
        decoding: dict[str, Any] | None = None,
        speech: dict[str, Any] | None = None,
        stop: set[int] | None = None,
        longest_windows: int | None = None,
    ) -> "Parts":
        """Return the same weights under other settings; ConfigError names one that does not exist.

        `dialect` are fields of the dialect, `segments` of the segmenter, `decoding` of `S2TConfig`, `speech` of the T2C's config;
        `stop` ends an answer, `longest_windows` is how many windows of full length are heard.
        """
        for whole, given in ((self.dialect, dialect), (self.segmenter, segments)):
            known = {field.name for field in fields(whole) if field.init}  # type: ignore[arg-type]
            for name in given or {}:
                if name not in known:
                    raise ConfigError(f"{name} is no setting of this model: choose from {', '.join(sorted(known))}.")
        dialect_ = replace(self.dialect, **dialect or {})  # type: ignore[type-var]
        segmenter = replace(self.segmenter, **segments or {})  # type: ignore[type-var]
        voice = self.voice
        if voice is not None and speech:
            t2c, echo = with_config(voice.t2c, speech), with_config(voice.echo, {})
            echo._modules = {**voice.echo._modules, "t2c": with_config(voice.echo.t2c, speech)}
            voice = replace(voice, t2c=t2c, echo=echo)
        if settled := SETTLED & set(decoding or {}):
            raise ConfigError(
                f"{min(settled)} is settled when a model is loaded: change `dialect`, or its config.json."
            )
        s2t = with_config(self.s2t, decoding or {})
        ear = replace(self.ear, s2t=s2t)  # type: ignore[type-var]
        if longest_windows is not None:
            if not isinstance(ear, CtcEar):
                raise ConfigError("this model hears no windows of full length: leave longest_windows out.")
            ear.longest = longest_windows
        stop = self.stop if stop is None else stop
        return replace(self, dialect=dialect_, segmenter=segmenter, voice=voice, s2t=s2t, ear=ear, stop=stop)

    def score(self, state_H: torch.Tensor) -> float:
        """Return how close a state comes to the trigger feature, a cosine (spec section 6.2); 0 where nothing asks for it."""
        if self.trigger_H is None:
            return 0.0
        return float(torch.cosine_similarity(state_H.float(), self.trigger_H.to(state_H.device).float(), dim=0))


def with_config(module: Any, changes: dict[str, Any]) -> Any:
    """Return a module on the same weights whose config differs in `changes`; ConfigError names one that is none."""
    other = copy(module)
    other.config = copy(module.config)
    for name, value in changes.items():
        if not hasattr(other.config, name):
            raise ConfigError(f"{name} is no setting of {module.config.model_type}.")
        setattr(other.config, name, value)
    try:
        check_values(type(module.config), changes, module.config.model_type)
    except ModelError as error:
        raise ConfigError(str(error)) from error
    return other


def load_parts(
    folder: Path,
    llm: str | Path | None,
    place: Place,
    encoder: str | Path | None = None,
    vocoder: str | Path | None = None,
) -> Parts:
    """Load a model folder; the LLM goes where `place` says, the small parts run in float32 on its device.

    `llm` is a copy of the LLM that the parts learnt with, or another one, where they hear and speak without knowing it.
    `encoder` and `vocoder` are taken instead of the folder's own if they are given. ModelError names what does not fit.
    """
    config, path = read_config(folder), folder / "config.json"
    if config.get("model_type") == TRANSLATOR:
        raise ModelError(f"{folder.name} translates and does not answer: use `echox translate --model {folder.name}`.")
    if config.get("model_type") != MODEL_TYPE:
        raise ModelError(f"{path} describes a {config.get('model_type')!r}: give a whole model, one that hears.")
    check_values(ModelConfig, config, path)
    check_values(TriggerSettings, config.get("trigger") or {}, f"{path}, trigger,")
    check_values(PhraseSettings, config.get("phrases") or {}, f"{path}, phrases,")
    whisper = SpeechEncoder.from_pretrained(encoder or folder / "encoder", config.get("encoder_windows") == "full")
    layer = config.get("encoder_layer", 0)
    if not 1 <= layer <= whisper.num_layers:
        raise ModelError(f"{path} hears layer {layer}, encoder/ has layers 1 to {whisper.num_layers}.")
    llm_folder, own = _llm_folder(folder, config.get("llm") or {}, llm)
    if own is not None:
        check_independent(folder, llm_folder)
    tokenizer, language_model = load_tokenizer(llm_folder), load_llm(llm_folder, place)
    s2t = SpeechToText.load(folder / "s2t", language_model)
    s2t.lora.merge_into(language_model)
    settle_llm(language_model, place)
    parts = assemble(folder, config, whisper, layer, s2t, tokenizer)
    parts.llm_folder = llm_folder
    parts.ear = load_ear(folder, whisper, layer, s2t, tokenizer)
    if s2t.config.dialect == "chat" or config.get("spelled_units") or (folder / "echo").is_dir():
        parts.voice = _load_voice(folder, vocoder, config.get("spelled_units", 0), tokenizer)
    if own is not None and parts.voice is not None:
        parts.own_reader = Reader(load_tokenizer(own), load_embeddings(own).to(place.device))
    check_parts(parts)
    settle(parts, place, torch.float32 if s2t.config.dialect == "chat" else place.dtype)
    if place.packs:
        pack_decoders(parts)
    return parts


def assemble(
    folder: Path, config: dict[str, Any], encoder: SpeechEncoder, layer: int, s2t: SpeechToText, tokenizer: Any
) -> Parts:
    """Return parts without a voice: how they talk and where answers are cut follow from the folder's config."""
    trigger, dialect = config.get("trigger"), s2t.config.dialect_of(tokenizer)
    if isinstance(dialect, EchoXDialect):
        stop, period = set(dialect.tokens.stops), dialect.tokens.period
    else:
        stop, period = stop_ids(tokenizer, s2t.llm), encode(tokenizer, ".")[-1]
    return Parts(
        folder=folder,
        llm_folder=folder,
        encoder=encoder,
        layer=layer,
        ear=CtcEar(encoder, layer, s2t, tokenizer),
        tokenizer=tokenizer,
        s2t=s2t,
        voice=None,
        dialect=dialect,
        stop=stop,
        segmenter=PhraseSegmenter(**config.get("phrases") or {}) if trigger is None else TriggerSegmenter(**trigger),
        trims=trigger is None,
        trigger_H=None if trigger is None else s2t.llm.get_output_embeddings().weight[period],
    )


def settle(parts: Parts, place: Place, dtype: torch.dtype) -> None:
    """Bring every part but the LLM to its device and `dtype` (vocoder and listener to float32), frozen."""
    modules: list[Any] = [parts.encoder, parts.s2t.lora]
    modules += [parts.s2t.adapter] if parts.s2t.config.hears else []
    modules += [parts.voice.t2c, parts.voice.echo] if parts.voice else []
    exact: list[Any] = [parts.ear.listener] if isinstance(parts.ear, AttentionEar) else []
    exact += [parts.voice.vocoder] if parts.voice else []
    for module in modules:
        module.to(place.device, dtype)
    for module in (*modules, *exact, parts.s2t):
        module.eval().requires_grad_(False)
    for module in exact:
        module.to(place.device)


def pack_decoders(parts: Parts) -> None:
    """Let what decodes step by step compute with the bits that it was stored in."""
    if isinstance(parts.ear, AttentionEar):
        pack(parts.ear.listener)
    if parts.voice is not None:
        pack(parts.voice.echo)
        if parts.voice.echo.t2c is not parts.voice.t2c:
            pack(parts.voice.t2c)


def _llm_folder(folder: Path, source: dict[str, Any], llm: str | Path | None) -> tuple[Path, Path | None]:
    """Return where the LLM lies, and, where that is another, the one that these parts learnt with.

    ConfigError when a copy is given to a model that carries its own.
    """
    carries = "folder" in source
    given, same = (None, False) if llm is None else named_llm(None if carries else source, llm)
    if given is None and llm is not None:
        raise ConfigError(f"{folder} carries its own text model: leave llm (--llm) out.")
    if given is not None and same:
        return given, None
    if given is not None:
        check_llm(given)
    own = inside(folder, str(source["folder"])) if carries else resolve_llm(source)
    if carries:
        check_llm(own)
    return (own, None) if given is None else (given, own)


def check_independent(folder: Path, llm: Path) -> None:
    """Raise ModelError unless the parts in `folder` hear and speak in text alone, so that any LLM may stand between them."""
    s2t, echo = load_config(folder / "s2t", S2TConfig), folder / "echo"
    reads = not echo.is_dir() or load_config(echo, EchoConfig).tokens
    if s2t.hears or (s2t.lora or {}).get("rank") != 0 or not reads:
        raise ModelError(
            f"{folder} learnt to hear or to speak with its own text model, and {llm} is another: leave llm (--llm) out."
        )


def _load_voice(folder: Path, given: str | Path | None, count: int, tokenizer: Any) -> Voice:
    t2c, vocoder = TextToCodec.load(folder / "t2c"), load_vocoder(Path(given or folder / "vocoder"))
    spelt = SpelledUnits(tokenizer, count, vocoder.config.num_units)
    units = spelt if count else UnitTokenizer.load(folder / "units")
    return Voice(t2c, EchoDecoder.load(folder / "echo", t2c), vocoder, units)


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
        if (found := read_config(Path(folder))).get("model_type") == LatentVocoderConfig.model_type:
            if "duration_quantile" in found:
                raise ConfigError(
                    'a voice trained before: put "duration_stretch": 1.0 in place of "duration_quantile".'
                )
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
    if isinstance(parts.dialect, EchoXDialect):
        highest = parts.dialect.tokens.audio_patch  # its tokenizer has unit tokens too, which nobody may type
    if highest >= rows:
        raise ModelError(
            f"{parts.llm_folder} has a tokenizer with token {highest} and an LLM with {rows}: they do not fit."
        )
    ear, width = parts.ear, parts.encoder.width
    if isinstance(ear, AttentionEar):
        part, heard = "listener", ear.listener.config.width
    else:
        part, heard = "s2t", parts.s2t.adapter.config.encoder_width
    if heard != width:
        raise ModelError(f"{parts.folder / part} hears states {heard} wide, encoder/ makes {width}: they do not fit.")
    if parts.voice is not None:
        check_voice(parts.folder, parts.voice, parts.reader.embeddings_VH.shape[1])


def check_voice(folder: Path, voice: Voice, width: int) -> None:
    """Raise ModelError when the parts of a voice disagree about units, or about the width of the LLM."""
    words = voice.unit_tokenizer.vocab_size
    for name, decoder in (("t2c", voice.t2c), ("echo", voice.echo)):
        if (found := decoder.config.llm_width) != width:
            raise ModelError(f"{folder / name} reads states {found} wide, the LLM's are {width}: they do not fit.")
        if (found := decoder.config.unit_vocab_size) != words:
            raise ModelError(f"{folder / name} writes {found} unit words, units/ knows {words}: they do not fit.")
    found, known = voice.unit_tokenizer.units, voice.vocoder.config.num_units
    if found > known:
        raise ModelError(f"{folder / 'units'} uses {found} units, the vocoder knows {known}: they do not fit.")
    for name, writer in (("t2c", voice.t2c), ("echo", voice.echo.t2c)):
        if isinstance(voice.vocoder, LatentVocoder) and not voice.vocoder.reads(writer.mark):
            raise ModelError(f"{folder / 'vocoder'} learnt with another T2C than {name}/: give one T2C to both.")
