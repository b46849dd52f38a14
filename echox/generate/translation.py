"""What a translator gives back, and what every kind of translator offers; it knows no model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from echox.errors import ConfigError
from echox.generate.types import Reply

MODEL_TYPE = "echox_translator"  # of the config.json of every kind
LARGEST_BEAM = 100


@dataclass
class Translation(Reply):
    """A whole translation; `question` names the recording, `text` is empty where the model writes none."""

    unit_words: list[str] = field(default_factory=list)  # in print, `12_407_33`; textless models alone


@dataclass(frozen=True)
class Wanted:
    """How to translate: beams of the search, and the longest speech in samples of the translation (None: no limit)."""

    beams: int | None = None  # none: the model's own
    samples: int | None = None

    def __post_init__(self) -> None:
        if self.beams is not None and not 1 <= self.beams <= LARGEST_BEAM:
            raise ConfigError(f"beam is {self.beams}: give a number from 1 to {LARGEST_BEAM}.")


@dataclass(frozen=True)
class Said:
    """One translation: speech (float32 [S]) or None, text or "", the units behind the speech, and why it ended."""

    audio: np.ndarray | None
    text: str = ""
    units: Sequence[int] = ()
    unit_words: Sequence[str] = ()
    heard: str = ""
    finish: str = "stop"


class Translates(Protocol):
    """One loaded model of any kind."""

    @property
    def sample_rate(self) -> int:
        """Samples per second of its speech."""
        ...

    def translate(self, waves: Sequence[np.ndarray], wanted: Wanted) -> list[Said]:
        """Return the translation of each wave, float32 [samples] at 16 kHz."""
        ...


@runtime_checkable
class Writes(Translates, Protocol):
    """A model that also writes: text to text, and what it hears."""

    def translate_texts(self, texts: Sequence[str], wanted: Wanted) -> list[Said]:
        """Return the translation of each text."""
        ...

    def transcribe(self, waves: Sequence[np.ndarray], beam: int = 1) -> list[str]:
        """Return what is said in each wave."""
        ...

    def stream(self, wave: np.ndarray | None = None, typed: str = "") -> Iterator[str]:
        """Yield one translation as it is written."""
        ...
