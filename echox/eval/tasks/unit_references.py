"""Reference speech as units of a textless model's own codebook: what it says is scored before any vocoder has said it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from echox.prepare.encode import EncoderSettings, load_encode
from echox.translator import is_translator
from echox.units.extractor import CENTROIDS_FILE, UnitExtractor, load_centroids

UnitsOf = Callable[[Sequence[np.ndarray]], list[list[int]]]
"""Waves at 16 kHz to their de-duplicated units."""


def units_of(translator: Any, encoder: str | Path = "") -> UnitsOf | None:
    """Return the extractor of a `SpeechTranslator`'s target units; None for a model that has none, or whose encoder is not there.

    `encoder` is the one that the units were made with; a model that shares a shipped voice finds it there. ModelError or
    ConfigError where they do not fit.
    """
    voice: Path | None = getattr(translator.model, "voice", None)
    if voice is None or not (voice / "units" / CENTROIDS_FILE).is_file():
        return None
    if not encoder and is_translator(voice):  # its encoder, if any, hears the other language
        return None
    _, meta = load_centroids(voice / "units")
    made_with = {"encoder": str(encoder or voice / "encoder"), "layer": meta.layer, "window": meta.window}
    encode, _ = load_encode(EncoderSettings.parse(made_with, str(voice / "units")))
    extractor = UnitExtractor.load(voice / "units", encode)
    return lambda waves: [found.ids.tolist() for found in extractor.extract(list(waves))]
