"""A model folder and its parts: encoder/ s2t/ t2c/ echo/ vocoder/ units/ beside one config.json.

The folder's config.json names the LLM, the sample rate and the layer that is heard; every part has its own config. Loading is
strict: a missing or extra tensor is an error that names it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from echox.errors import ModelError
from echox.hub import resolve_llm
from echox.models.echo import EchoDecoder
from echox.models.encoder import SpeechEncoder
from echox.models.io import load_part, read_config
from echox.models.latent_vocoder import LatentVocoder, LatentVocoderConfig
from echox.models.llm import load_llm, load_tokenizer
from echox.models.s2t import SpeechToText
from echox.models.t2c import TextToCodec
from echox.models.vocoder import UnitVocoder, VocoderConfig
from echox.text.prompt import Prompt, build_prompt, stop_ids
from echox.units.tokenizer import UnitTokenizer

MODEL_TYPE = "echox_assistant"


@dataclass
class Parts:
    """Everything that answering needs, on one device."""

    folder: Path
    llm_folder: Path
    encoder: SpeechEncoder
    layer: int
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
    if config.get("model_type") != MODEL_TYPE:
        raise ModelError(f"{folder / 'config.json'} describes a {config.get('model_type')!r}, not a {MODEL_TYPE!r}.")
    layer = config.get("encoder_layer")
    if not isinstance(layer, int) or layer < 1:
        raise ModelError(f"{folder / 'config.json'} has encoder_layer {layer!r}: it must be the number of a layer.")
    source = config.get("llm") or {}
    llm_folder = folder / source["folder"] if "folder" in source else resolve_llm(source, llm)
    tokenizer, language_model = load_tokenizer(llm_folder), load_llm(llm_folder, dtype)
    s2t = SpeechToText.load(folder / "s2t", language_model)
    s2t.lora.merge_into(language_model)
    unit_tokenizer = UnitTokenizer.load(folder / "units")
    parts = Parts(
        folder=folder,
        llm_folder=llm_folder,
        encoder=SpeechEncoder.from_pretrained(folder / "encoder"),
        layer=layer,
        tokenizer=tokenizer,
        s2t=s2t,
        t2c=TextToCodec.load(folder / "t2c"),
        echo=EchoDecoder.load(folder / "echo"),
        vocoder=load_vocoder(folder / "vocoder"),
        unit_tokenizer=unit_tokenizer,
        prompt=build_prompt(tokenizer, s2t.config.system),
        stop=stop_ids(tokenizer, language_model),
    )
    check_vocabularies(parts)
    for module in (parts.encoder, parts.s2t, parts.t2c, parts.echo, parts.vocoder):
        module.to(device).eval().requires_grad_(False)
    return parts


def load_vocoder(folder: Path) -> UnitVocoder | LatentVocoder:
    """Load a vocoder part strictly, in float32; its config.json names the kind."""
    values = {k: v for k, v in read_config(folder).items() if k not in ("architectures", "dtype")}
    if values.get("model_type") == LatentVocoderConfig.model_type:
        vocoder = LatentVocoder(LatentVocoderConfig(**values))
    else:
        vocoder = UnitVocoder(VocoderConfig(**values))
    load_part(folder, vocoder)
    return vocoder.float()


def check_vocabularies(parts: Parts) -> None:
    """Raise ModelError when decoders, unit language and vocoder disagree about units."""
    words = parts.unit_tokenizer.vocab_size
    for name, decoder in (("t2c", parts.t2c), ("echo", parts.echo)):
        if decoder.config.unit_vocab_size != words:
            found = decoder.config.unit_vocab_size
            raise ModelError(f"{parts.folder / name} writes {found} unit words, units/ knows {words}: they do not fit.")
    if parts.unit_tokenizer.lexicon.units > parts.vocoder.config.num_units:
        found, known = parts.unit_tokenizer.lexicon.units, parts.vocoder.config.num_units
        raise ModelError(f"{parts.folder / 'units'} uses {found} units, the vocoder knows {known}: they do not fit.")
