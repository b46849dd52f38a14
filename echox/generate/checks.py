"""What is refused of typed text and limits, for every kind of assistant; it knows no model."""

import math

from echox.errors import ConfigError, InputError
from echox.generate.types import Question

MAX_TEXT = 4000  # characters of a typed question or a text to say


def check_text(text: str, name: str) -> None:
    """Raise InputError when `text` is empty or too long to be meant."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{name} holds bytes that are not UTF-8 text: type it again.") from error
    if not text.strip():
        raise InputError(f"{name} is empty: write a few words.")
    if len(text) > MAX_TEXT:
        raise InputError(f"{name} has {len(text)} characters, the limit is {MAX_TEXT}: make it shorter.")


def check_question(question: Question) -> None:
    """Raise InputError unless a question is either spoken or typed, and a typed one can be used."""
    if (question.sound is None) == (question.typed is None):
        raise InputError("give one question: either a recording or typed text.")
    if question.typed is not None:
        check_text(question.typed, "the typed question")


def samples_of(max_seconds: float | None, sample_rate: int) -> int | None:
    """Return a limit in seconds as samples (None: no limit); ConfigError unless it is positive and finite."""
    if max_seconds is None:
        return None
    if not (math.isfinite(max_seconds) and max_seconds > 0):
        raise ConfigError(f"max_seconds is {max_seconds:g}: give a positive number of seconds.")
    return int(min(max_seconds, 1e9) * sample_rate)
