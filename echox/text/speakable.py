"""Written English to words that can be said: numbers, money, dates, times, units and abbreviations; it knows no model.

    text --lines--> fold accents --> our few rules --kitten_text_processing--> words --> what no English voice can say is left out

The library does the work; the rules are what it reads wrong (tests/text/test_speakable.py holds both). Only `echox say` uses
this: a language model's own answer is spoken as it wrote it, but for acronyms (text/acronyms.py).
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from echox.errors import InputError, require

LONGEST = 240  # characters said at once
UNITS = {
    "km/h": "kilometers per hour", "kmh": "kilometers per hour", "m/s": "meters per second",
    "kWh": "kilowatt hours", "kHz": "kilohertz", "KB": "kilobytes", "kB": "kilobytes", "MB": "megabytes",
    "GB": "gigabytes", "mm": "millimeters", "m": "meters", "L": "liters", "min": "minutes", "h": "hours",
    "ms": "milliseconds", "¢": "cents",
}  # fmt: skip
SHORT = {
    "approx.": "approximately", "Prof.": "Professor", "Inc.": "Incorporated", "Gen.": "General",
    "Gov.": "Governor", "Sen.": "Senator", "Capt.": "Captain", "Rev.": "Reverend", "Ave.": "Avenue",
    "Blvd.": "Boulevard", "Mon.": "Monday", "Tues.": "Tuesday", "Wed.": "Wednesday", "Thurs.": "Thursday",
    "Fri.": "Friday", "pp.": "pages",
}  # fmt: skip
RULES = [
    (re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), r"\1"),  # what Markdown marks is not said
    (re.compile(r"^\s*(?:#+|[-*+>])\s+"), ""),
    (re.compile(r"(?<!\w)[*_`~]+|[*_`~]+(?!\w)"), ""),
    (re.compile(r"\bhttps?://(?:www\.)?|\bwww\.(?=\w)"), ""),
    (re.compile(r"\bNo\.\s?(?=\d)|\bno\.\s(?=\d)|(?<!\w)#(?=\d)"), "number "),
    (re.compile(r"(?<=[A-Z])&(?=[A-Z])"), " and "),
    (re.compile(r"\band/or\b"), "and or"),
    (re.compile(r"\b(24(?=/7\b)|50(?=/50\b))/"), r"\1 "),
    (re.compile(r"(?<=[$£€])(\d+(?:[.,]\d+)*)m\b"), r"\1 million"),
    (re.compile(r"(?<=[$£€])(\d{1,3})[kK]\b"), r"\1,000"),
    (re.compile(r"(?<![\d-])(\d)(\d)(\d)-(\d)(\d)(\d)(\d)(?![\d-])"), r"\1 \2 \3, \4 \5 \6 \7"),  # a telephone
    (re.compile(r"(?<![\d/.-])(\d{1,3})\s?[-–]\s?(\d{1,3})(?![\d/-]|\.\d)"), r"\1 to \2"),
    (re.compile(r"\s=\s"), " equals "),
    (re.compile(r"²"), " squared"),
    (re.compile(r"³"), " cubed"),
    (re.compile(r"[–—]"), ", "),
]
UNIT = re.compile(rf"((?<![\d.,/])1)?(?<=\d)\s?({'|'.join(map(re.escape, UNITS))})(?![\w/'’])")
PLURAL = re.compile(r"s\b")
ABBREVIATION = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, SHORT))})(?=\s+\w)")
MARKS = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "…": "...", "\u00a0": " ", "\u2011": "-"})
LETTERS = {
    "ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "ð": "th",
    "þ": "th",
}  # fmt: skip
NEVER_SAID = ("\u200d", "\ufe0e", "\ufe0f")  # joiners and variants of emoji: left out with what they belong to
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"')\]])\s+")
CAREFUL_END = re.compile(r"(?<=[a-z]{3}[.!?])\s+(?=[\"'A-Z])")  # not behind "Dr." or "Sept."
PLAIN = re.compile(r"[A-Z]?[a-z']+(?:,? [a-z']+)*(?<!etc)[.!?]?")  # nothing that would be read otherwise


@dataclass(frozen=True)
class Speakable:
    """Words to say, and the characters that no English voice can say and that were left out, each once."""

    text: str
    left_out: str = ""


def speakable(text: str) -> Speakable:
    """Return `text` as it is read aloud; InputError when nothing of it can be said, MissingDependency without the library."""
    lines = [read_line(line) for line in said_lines(text)]
    left_out = "".join(dict.fromkeys("".join(line.left_out for line in lines)))
    return Speakable("\n".join(line.text for line in lines if line.text), left_out)


def said_lines(text: str) -> list[str]:
    """Return the lines of a text, each for `read_line`; InputError when nothing of them can be said."""
    if not any(c.isascii() and c.isalnum() for c in _fold(text)):
        raise InputError("the text holds nothing that can be said: this voice speaks English.")
    return text.splitlines()


def read_line(line: str) -> Speakable:
    """Return one line as it is read aloud (the library takes some 10 ms a sentence); MissingDependency without the library."""
    normalize_text = require("kitten_text_processing", extra="say").normalize_text
    line = _fold(line.translate(MARKS))
    for pattern, words in RULES:
        line = pattern.sub(words, line)
    line = UNIT.sub(_unit, line)
    line = ABBREVIATION.sub(lambda found: SHORT[found[1]], line)
    parts = CAREFUL_END.split(line)  # the library's time grows faster than the length of what it reads
    line = " ".join(part if PLAIN.fullmatch(part) else normalize_text(part) for part in parts if part.strip())
    left_out = "".join(dict.fromkeys(c for c in line if not c.isascii() and c not in NEVER_SAID))
    line = " ".join("".join(c if c.isascii() and c.isprintable() else " " for c in line).split())
    line = re.sub(r" (?=[,.;:!?](?:\s|$))", "", line)
    return Speakable(line if any(c.isalnum() for c in line) else "", left_out)


def _unit(found: re.Match[str]) -> str:
    """Return a unit in words, as one of it behind a lone 1."""
    words = UNITS[found[2]]
    return f"1 {PLURAL.sub('', words, count=1)}" if found[1] else f" {words}"


def sentences(text: str, longest: int = LONGEST) -> Iterator[str]:
    """Yield a long text in pieces of whole sentences, at most `longest` characters each; longer ones are cut at a space."""
    for line in text.splitlines():
        piece = ""
        for sentence in SENTENCE_END.split(line.strip()):
            for part in _short_parts(sentence, longest):
                if piece and len(piece) + 1 + len(part) > longest:
                    yield piece
                    piece = ""
                piece = f"{piece} {part}" if piece else part
        if piece:
            yield piece


def _short_parts(sentence: str, longest: int) -> Iterator[str]:
    while len(sentence) > longest:
        cut = max(sentence.rfind(mark, 1, longest) for mark in (", ", "; ", ": "))
        cut = cut + 1 if cut > 0 else sentence.rfind(" ", 1, longest)
        cut = cut if cut > 0 else longest
        yield sentence[:cut]
        sentence = sentence[cut:].lstrip()
    if sentence:
        yield sentence


def _fold(line: str) -> str:
    """Return Latin letters without their accents; everything else as it is."""
    return "".join(c if c.isascii() else LETTERS.get(c) or _plain(c) for c in line)


def _plain(character: str) -> str:
    if not unicodedata.category(character).startswith("L"):
        return "" if unicodedata.category(character) == "Mn" else character
    letters = "".join(c for c in unicodedata.normalize("NFKD", character) if unicodedata.category(c) != "Mn")
    return letters if letters.isascii() else character
