"""Open this second: a recording in one language in, its translation out. The whole data flow is one class.

    read_question ─► features ──────► encode ─────────► beam search ──► units ─► vocoder ─► samples
    (audio.py)       (features/       (models/speech_    (generate/      (units/   (models/
                      filterbank.py)   to_units.py)       beam.py)        ...)      vocoder.py)

A model folder says its `kind`, and each kind is one module of generate/: `textless` (generate/textless.py) never passes through
text. How a translator is trained stands in train/stage_textless.py. No request leaves a trace on the model.
"""

import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import overload

from echox.assistant import pick_device, pick_dtype
from echox.audio import Sound, read_question
from echox.errors import ModelError
from echox.generate.checks import samples_of
from echox.generate.translation import Translates, Translation, Wanted
from echox.hub import resolve_model

MODEL_TYPE = "echox_translator"
KINDS = {"textless": "echox.generate.textless"}
LONGEST_SECONDS = 600.0


class SpeechTranslator:
    """A loaded model that translates speech."""

    def __init__(self, model: Translates, load_seconds: float = 0.0) -> None:
        self.model, self.load_seconds = model, load_seconds
        self.sample_rate = model.sample_rate

    @classmethod
    def load(cls, model: str | Path, device: str = "auto", dtype: str | None = None) -> "SpeechTranslator":
        """Load a shipped name, a local folder or a hub name; ModelError says what is missing, or that it does not translate."""
        started = time.perf_counter()
        folder, where = resolve_model(model), pick_device(device)
        kind = kind_of(folder)
        loaded = import_module(KINDS[kind]).load(folder, where, pick_dtype(dtype, where))
        return cls(loaded, time.perf_counter() - started)

    @overload
    def translate(self, sound: Sound, **options: float | None) -> Translation: ...
    @overload
    def translate(self, sound: Sequence[Sound], **options: float | None) -> list[Translation]: ...
    def translate(
        self,
        sound: Sound | Sequence[Sound],
        beams: int | None = None,
        max_seconds: float | None = None,
        sample_rate: int | None = None,
    ) -> Translation | list[Translation]:
        """Return the translation of one recording, or of each in a list, searched together; times are then the list's.

        A recording is a path, a file's bytes, an open file, or mono samples (float in [-1, 1], or int16) at `sample_rate` (16 kHz
        if none is given). `beams` is the model's own by default; `max_seconds` bounds the speech. InputError and ConfigError
        name what cannot be used.
        """
        sounds, wanted = (
            [sound] if not isinstance(sound, list | tuple) else sound,
            Wanted(beams, samples_of(max_seconds, self.sample_rate)),
        )
        started = time.perf_counter()
        waves = [read_question(one, sample_rate, LONGEST_SECONDS) for one in sounds]
        said = self.model.translate(waves, wanted) if waves else []
        seconds = time.perf_counter() - started
        found = [
            Translation(
                _name(one), s.text, s.audio, self.sample_rate, list(s.units), s.heard, seconds, seconds, s.finish,
                list(s.unit_words),
            )
            for one, s in zip(sounds, said, strict=True)
        ]  # fmt: skip
        return found if isinstance(sound, list | tuple) else found[0]


def kind_of(folder: Path) -> str:
    """Return the kind of translator that a model folder holds; ModelError where it answers questions instead, or is unknown."""
    from echox.models.io import read_config

    config = read_config(folder)
    if config.get("model_type") != MODEL_TYPE:
        raise ModelError(
            f"{folder.name} answers questions and does not translate: use `echox ask --model {folder.name}`."
        )
    if config.get("kind") not in KINDS:
        raise ModelError(
            f"{folder / 'config.json'} is a translator of kind {config.get('kind')!r}: install a newer echox, or choose another."
        )
    return config["kind"]


def _name(sound: Sound) -> str:
    return str(sound) if isinstance(sound, str | Path) else "audio"
