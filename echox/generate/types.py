"""What an assistant is asked and what it gives back; it knows no model."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from echox.audio import Sound, save_wav
from echox.errors import OutputError


def as_list(given: Any) -> tuple[list[Any], bool]:
    """Return what was given as a list, and whether it was one: a list or a tuple; anything else is one thing."""
    return (list(given), True) if isinstance(given, list | tuple) else ([given], False)


@dataclass(frozen=True)
class Question:
    """One question: a recording (a path, a file's bytes, an open file, or samples at `sample_rate`) or typed text."""

    sound: Sound | None = None
    typed: str | None = None
    sample_rate: int | None = None

    @classmethod
    def of(
        cls, asked: "Sound | Question | None", typed: str | None = None, sample_rate: int | None = None
    ) -> "Question":
        """Return one value for what was asked, a Question as it is."""
        return asked if isinstance(asked, Question) else cls(asked, typed, sample_rate)

    @property
    def name(self) -> str:
        """What a reply calls it: the typed text, the recording's path, or "audio" for samples."""
        if self.typed is not None:
            return self.typed
        return str(self.sound) if isinstance(self.sound, (str, Path)) else "audio"


class Assistant(Protocol):
    """What every assistant offers: ours, the released ones, and the fake for tests."""

    load_seconds: float

    @property
    def sample_rate(self) -> int:
        """Samples per second of its speech."""
        ...

    def stream(
        self,
        question: Sound | Question | None = None,
        typed: str | None = None,
        *,
        text_only: bool = False,
        max_seconds: float | None = None,
        sample_rate: int | None = None,
    ) -> "Iterator[Piece]":
        """Yield text and audio of one answer as they are made; `sample_rate` is that of a question given as samples."""
        ...

    def ask(
        self,
        question: Sound | Question | None = None,
        typed: str | None = None,
        *,
        text_only: bool = False,
        max_seconds: float | None = None,
        sample_rate: int | None = None,
    ) -> "Reply":
        """Return the whole answer to one question."""
        ...

    def ask_many(
        self,
        questions: Sequence[Sound | Question],
        *,
        text_only: bool = False,
        max_seconds: float | None = None,
        sample_rate: int | None = None,
    ) -> "list[Reply]":
        """Return the answers to many questions, recordings and `Question(typed=...)` mixed."""
        ...

    def speak(self, text: str, max_seconds: float | None = None) -> "Iterator[Piece]":
        """Yield `text` spoken as it is made."""
        ...

    def say(self, text: str, max_seconds: float | None = None) -> "Reply":
        """Return `text` spoken."""
        ...


@dataclass(frozen=True)
class Call:
    """A tool that the model wants to be called: its name, and its arguments as the text of a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Piece:
    """A bit of an answer as it is made: new text, or new samples (float32 [S]), or the reason why it ended."""

    text: str = ""
    audio: np.ndarray | None = None
    units: tuple[int, ...] = ()  # de-duplicated units behind `audio`
    heard: str = ""  # what a spoken question was taken for, with the first piece
    finish: str = ""  # stop, length, empty, or unheard (nothing was understood); "" while the answer goes on
    call: Call | None = None


WAIT = Piece()  # stands in a stream where more takes a step of the engine that it shares


@dataclass
class Reply:
    """A whole answer; times are seconds since `ask` on a loaded model."""

    question: str
    text: str
    audio: np.ndarray | None  # float32 [S]
    sample_rate: int
    units: list[int] = field(default_factory=list)
    heard: str = ""  # what the adapter took a spoken question for
    wall_seconds: float = 0.0
    first_audio_seconds: float | None = None
    finish: str = "stop"
    calls: list[Call] = field(default_factory=list)

    @property
    def audio_seconds(self) -> float | None:
        """Length of the speech, or None where none was made."""
        return None if self.audio is None else len(self.audio) / self.sample_rate

    def save(self, path: str | Path) -> None:
        """Write the speech as a 16-bit WAV file; OutputError when there is none or the place cannot be written."""
        if self.audio is None:
            raise OutputError(f"there is no speech to write to {path}: ask without text_only.")
        save_wav(path, self.audio, self.sample_rate)


def collect(question: str, pieces: Iterator[Piece], sample_rate: int, with_audio: bool) -> Reply:
    """Return the whole answer that `pieces` make up, timed from this call."""
    started, first = time.perf_counter(), None
    text, heard, waves, units, finish = "", "", [np.zeros(0, np.float32)], [], "stop"
    calls: list[Call] = []
    for piece in pieces:
        text, heard = text + piece.text, heard or piece.heard
        finish = piece.finish or finish
        if piece.audio is not None and len(piece.audio):
            first = first if first is not None else time.perf_counter() - started
            waves.append(piece.audio)
        units += piece.units
        calls += [piece.call] if piece.call else []
    reply = Reply(question, text, np.concatenate(waves) if with_audio else None, sample_rate, units, heard, calls=calls)
    reply.wall_seconds, reply.first_audio_seconds, reply.finish = time.perf_counter() - started, first, finish
    return reply
