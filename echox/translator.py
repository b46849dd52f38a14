"""Open this second: a recording in one language in, its translation out. The whole data flow is one class.

    read_question ─► features ──────► encode ─────────► beam search ──► units ─► vocoder ─► samples
    (audio.py)       (features/       (models/speech_    (generate/      (units/   (models/
                      filterbank.py)   to_units.py)       beam.py)        ...)      vocoder.py)

A model folder says its `kind`, and each kind is one module of generate/: `textless` (generate/textless.py) never passes through
text, `joint` (generate/joint.py) writes it, from speech or from text. How they are trained stands in train/stage_textless.py and
train/stage_translate.py. No request leaves a trace on the model.
"""

import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, overload

from echox.audio import RECORDING_SECONDS, Sound, read_question
from echox.errors import InputError, ModelError
from echox.generate.checks import samples_of
from echox.generate.translation import MODEL_TYPE, Said, Translates, Translation, Wanted, Writes
from echox.generate.types import as_list
from echox.hub import resolve_model
from echox.models.device import pick_device, pick_dtype
from echox.models.io import read_config
from echox.models.llm import Place

KINDS = {"textless": "echox.generate.textless", "joint": "echox.generate.joint"}


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
        loaded = import_module(KINDS[kind]).load(folder, Place(where, pick_dtype(dtype, where), packed=dtype is None))
        return cls(loaded, time.perf_counter() - started)

    @property
    def writes(self) -> bool:
        """Whether it writes text, and reads it; otherwise it speaks."""
        return isinstance(self.model, Writes)

    @overload
    def translate(
        self, sound: Sound, beams: int | None = None, max_seconds: float | None = None, sample_rate: int | None = None
    ) -> Translation: ...
    @overload
    def translate(
        self,
        sound: Sequence[Sound],
        beams: int | None = None,
        max_seconds: float | None = None,
        sample_rate: int | None = None,
    ) -> list[Translation]: ...
    @overload
    def translate(
        self, *, beams: int | None = None, max_seconds: float | None = None, sample_rate: int | None = None, typed: str
    ) -> Translation: ...
    @overload
    def translate(
        self,
        *,
        beams: int | None = None,
        max_seconds: float | None = None,
        sample_rate: int | None = None,
        typed: Sequence[str],
    ) -> list[Translation]: ...
    def translate(
        self,
        sound: Any = None,
        beams: int | None = None,
        max_seconds: float | None = None,
        sample_rate: int | None = None,
        typed: Any = None,
    ) -> Any:
        """Return the translation of one recording, or of each in a list, searched together; times are then the list's.

        A recording is a path, a file's bytes, an open file, or mono samples (float in [-1, 1], or int16) at `sample_rate` (16 kHz
        if none is given); models that write take `typed` text instead. `beams` is the model's own by default; `max_seconds` bounds
        the speech. InputError, ConfigError and ModelError name what cannot be used.
        """
        if (sound is None) == (typed is None):
            raise InputError("give one thing to translate: either recordings or typed text.")
        wanted, started = Wanted(beams, samples_of(max_seconds, self.sample_rate)), time.perf_counter()
        items, many = as_list(typed if sound is None else sound)
        if typed is not None:
            said = self._writer().translate_texts(items, wanted) if items else []
        else:
            waves = [read_question(one, sample_rate, RECORDING_SECONDS) for one in items]
            said = self.model.translate(waves, wanted) if waves else []
        seconds = time.perf_counter() - started
        names = [str(one) if isinstance(one, str | Path) else "audio" for one in items]
        found = [self._translation(name, one, seconds) for name, one in zip(names, said, strict=True)]
        return found if many else found[0]

    def stream(
        self, sound: Sound | None = None, typed: str | None = None, sample_rate: int | None = None
    ) -> Iterator[str]:
        """Yield a written translation in pieces as it is made, the likeliest token at every step; joined they are `beams=1`'s."""
        if (sound is None) == (typed is None):
            raise InputError("give one thing to translate: either a recording or typed text.")
        wave = None if sound is None else read_question(sound, sample_rate, RECORDING_SECONDS)
        return self._writer().stream(wave, typed or "")

    @overload
    def transcribe(self, sound: Sound, beam: int = 1, sample_rate: int | None = None) -> str: ...
    @overload
    def transcribe(self, sound: Sequence[Sound], beam: int = 1, sample_rate: int | None = None) -> list[str]: ...
    def transcribe(self, sound: Any, beam: int = 1, sample_rate: int | None = None) -> Any:
        """Return what is said in a recording, or in each of a list; ModelError for a model that writes nothing."""
        sounds, many = as_list(sound)
        waves = [read_question(one, sample_rate, RECORDING_SECONDS) for one in sounds]
        found = self._writer().transcribe(waves, beam) if waves else []
        return found if many else found[0]

    def _writer(self) -> Writes:
        if not isinstance(self.model, Writes):
            raise ModelError("this model passes through no text: give it recordings, and take its speech.")
        return self.model

    def _translation(self, name: str, said: Said, seconds: float) -> Translation:
        return Translation(
            name,
            said.text,
            said.audio,
            self.sample_rate,
            list(said.units),
            said.heard,
            seconds,
            None if said.audio is None else seconds,
            said.finish,
            unit_words=list(said.unit_words),
        )


def is_translator(folder: Path) -> bool:
    """Say whether a model folder translates rather than answers."""
    return read_config(folder).get("model_type") == MODEL_TYPE


def kind_of(folder: Path) -> str:
    """Return the kind of translator that a model folder holds; ModelError where it answers questions instead, or is unknown."""
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
