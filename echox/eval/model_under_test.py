"""What is measured: the few methods that the harness uses of a model, and how a batch of questions is put to it.

`SpeechAssistant`, its fake, and an `EndpointAssistant` all fit. A question that fails gives a `Failure` in its place:
it is written down and counts as wrong, and the rest of the batch goes on. Knows nothing about scores or files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, Protocol, runtime_checkable

import numpy as np

from echox.errors import EchoxError, EndpointError

RECORDED = (EchoxError, RuntimeError, ValueError, OSError)
"""Errors of one question that are recorded; anything else is a fault of the program and stops the run."""


class Answer(Protocol):
    """What a model gives back; `audio` is float32 at `sample_rate` or None, `finish` says why it ended."""

    text: str
    audio: np.ndarray | None
    sample_rate: int
    wall_seconds: float
    first_audio_seconds: float | None
    finish: str


@runtime_checkable
class Subject(Protocol):
    """A model under test: `ask` a spoken wave (16 kHz) or a typed text."""

    def ask(self, question: Any = None, typed: str | None = None, text_only: bool = False, **options: Any) -> Any: ...


@runtime_checkable
class Speaks(Protocol):
    """Anything that says a text aloud: the T2C teacher with its vocoder, or a TTS."""

    def say(self, text: str) -> Any: ...


@dataclass(frozen=True)
class Failure:
    """Stands where an answer should be; `reason` goes into the item's record, and so does the `text`, if known."""

    reason: str
    text: str = ""


@dataclass(frozen=True)
class Silence:
    """The answer of a model that had nothing to say: it is empty, which is wrong but no failure."""

    text: str = ""
    audio: None = None
    sample_rate: int = 16_000
    wall_seconds: float = 0.0
    first_audio_seconds: None = None
    finish: str = "empty"


def ask_all(
    subject: Subject,
    waves: Sequence[np.ndarray] | None = None,
    typed: Sequence[str] | None = None,
    text_only: bool = False,
    **options: Any,
) -> list[Any]:
    """Return one answer or Failure for each of `waves` (float32 at 16 kHz), or for each of `typed`.

    One call of `subject.ask_many` when it has that; when the call fails, and for other subjects, one `ask` each.
    """
    questions = list(waves if waves is not None else typed or ())
    name = "typed" if waves is None else "question"
    together: Callable[..., list[Any]] | None = getattr(subject, "ask_many", None)
    if together is not None and len(questions) > 1:
        from echox.generate.types import Question

        batch = questions if typed is None else [Question(typed=text) for text in questions]
        try:
            return list(together(batch, **_accepted(together, {"text_only": text_only, **options})))
        except RECORDED:
            pass  # one of them cannot be answered: ask each alone to find which
    return [attempt(lambda q=q: subject.ask(**{name: q}, text_only=text_only, **options)) for q in questions]


def say_all(speaker: Any, texts: Sequence[str], **options: Any) -> list[Any]:
    """Return one spoken answer or Failure for each text, an empty one giving Silence; `say` gets what it takes."""
    return [_say_one(speaker, text, options) if text.strip() else Silence() for text in texts]


def _say_one(speaker: Any, text: str, options: dict[str, Any]) -> Any:
    said = attempt(lambda: speaker.say(text, **_accepted(speaker.say, options)))
    return Failure(said.reason, text) if isinstance(said, Failure) else said


def at_16k(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return audio resampled to 16 kHz, float32 [samples]."""
    if sample_rate == 16_000:
        return np.asarray(audio, dtype=np.float32)
    import soxr

    return soxr.resample(np.asarray(audio, dtype=np.float32), sample_rate, 16_000).astype(np.float32)


def _accepted(call: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return those of `options` that `call` takes: a batch call may have no seed where decoding is greedy."""
    known = signature(call).parameters
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in known.values()):
        return options
    return {name: value for name, value in options.items() if name in known}


def attempt(call: Callable[[], Any], what: str = "") -> Any:
    """Return what `call` does, or a Failure that begins with `what` and names the error."""
    try:
        return call()
    except EndpointError as error:
        return Failure(f"{what}endpoint: {error}")
    except RECORDED as error:
        return Failure(f"{what}{type(error).__name__}: {error}")
