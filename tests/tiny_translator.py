"""A textless model folder of random weights, in the real layout."""

import json
from pathlib import Path

import numpy as np
import torch

from echox.models.speech_to_units import SpeechToUnits, SpeechToUnitsConfig
from echox.models.vocoder import UnitVocoder, VocoderConfig
from echox.units.estimate import LexiconConfig
from echox.units.tokenizer import SPECIAL_TOKENS, UnitTokenizer

UNITS = 12
SIZES = {"width": 16, "heads": 2, "ffn": 32, "conv_channels": 16, "encoder_layers": 4, "decoder_layers": 1}
HEAD = {
    "model_type": "echox_translator",
    "kind": "textless",
    "source": "es",
    "target": "en",
    "beams": 1,
    "no_repeat_ngram": 1,
}


def tiny_model(seed: int = 0, **more) -> SpeechToUnits:
    """A translator of four small layers; what it says differs from sound to sound."""
    torch.manual_seed(seed)
    values = SIZES | {"vocabulary": UNITS + len(SPECIAL_TOKENS), "max_positions": 40} | more
    model = SpeechToUnits(SpeechToUnitsConfig(**values)).eval()
    with torch.no_grad():
        model.decoder.embedding.weight[model.config.eos_token_id] = 0  # it says something before it ends
        for layer in model.decoder.layers:
            layer.memory.out.weight.mul_(40)
    return model


def unit_language() -> UnitTokenizer:
    """A unit language over twelve units."""
    rng = np.random.default_rng(0)
    words = [rng.choice(UNITS, 3, replace=False) for _ in range(8)]
    rows = [np.concatenate([words[i] for i in rng.integers(0, 8, 12)]) for _ in range(40)]
    config = LexiconConfig(units=UNITS, vocabulary_size=30, min_count=2, held_out=0.2)
    return UnitTokenizer.train([row[np.r_[True, row[1:] != row[:-1]]] for row in rows], config)


def write_translator(folder: Path, **more) -> Path:
    """Write translator/ vocoder/ units/ and config.json."""
    (folder / "units").mkdir(parents=True)
    tiny_model().save(folder / "translator")
    unit_language().save(folder / "units")
    sizes = {"embedding_dim": 8, "duration_width": 8, "trunk_width": 8, "trunk_layers": 1, "head_width": 8}
    vocoder = UnitVocoder(VocoderConfig(num_units=UNITS, head_layers=1, **sizes))
    from echox.models.io import save_part

    save_part(folder / "vocoder", vocoder)
    (folder / "config.json").write_text(json.dumps(HEAD | more), encoding="utf-8")
    return folder
