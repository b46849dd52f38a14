"""Word and character errors of what was heard against what was said, by jiwer, both sides normalised."""

from dataclasses import dataclass
from typing import Any

from echox.errors import require
from echox.text.normalize import whisper_basic, whisper_english

NORMALISER = "Whisper's English normaliser without its spelling table, jiwer"
"""The name that tables print."""
BASIC = "whisper-basic, jiwer"
"""The name of what other languages are normalised by."""


@dataclass(frozen=True)
class Errors:
    """Edits and lengths of one pair of texts, so that rates can be pooled over utterances."""

    words: int
    word_edits: int
    characters: int
    character_edits: int


def errors_between(reference: str, heard: str, normaliser: str = NORMALISER) -> Errors:
    """Return word and character edits of `heard` against `reference`, both normalised, for English or by whisper-basic.

    Nothing left of the reference gives 0 words, and every word heard is then an edit. Needs jiwer.
    """
    jiwer = require("jiwer", "eval")
    normalise = whisper_basic() if normaliser == BASIC else whisper_english()
    wanted, got = normalise(reference).strip(), normalise(heard).strip()
    if not wanted:
        return Errors(0, len(got.split()), 0, len(got))
    words, characters = jiwer.process_words(wanted, got), jiwer.process_characters(wanted, got)
    return Errors(len(wanted.split()), _edits(words), len(wanted), _edits(characters))


def all_deleted(text: str) -> Errors:
    """Return the errors of a text of which nothing was heard: every word and character counts as deleted."""
    wanted = whisper_english()(text).strip()
    return Errors(len(wanted.split()), len(wanted.split()), len(wanted), len(wanted))


def _edits(found: Any) -> int:
    return int(found.substitutions + found.deletions + found.insertions)
