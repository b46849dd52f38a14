"""Reads the public text collections (OpenTriviaQA, WebQuestions, Tatoeba, Multi30k) from local files.

Knows file formats only: not which questions are good, which are held out, nor anything about speech.
"""

import gzip
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from echox.data.tables import lines_of
from echox.errors import InputError
from echox.files import LINES_BYTES, read_json, read_text


@dataclass(frozen=True)
class Question:
    """One question with every answer counted as right; `answers` is never empty, `choices` are the wrong ones offered."""

    id: str
    question: str
    answers: tuple[str, ...]
    source: str
    choices: tuple[str, ...] = ()


def decode_text(raw: bytes) -> str:
    """Return UTF-8 bytes as text, falling back to Windows-1252 (12 of the 22 trivia files need it)."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def _existing(path: Path, what: str) -> Path:
    if not path.exists():
        raise InputError(f"{what}: {path} does not exist; download the source named in the recipe or set its path.")
    return path


def read_trivia(folder: Path) -> Iterator[Question]:
    """Yield the questions of an OpenTriviaQA `categories` folder; raise InputError when it holds none.

    An entry is `#Q` with the question over one or more lines, `^` with the right answer, then the choices.
    """
    files = sorted(path for path in _existing(folder, "OpenTriviaQA").iterdir() if path.is_file())
    found = 0
    for path in files:
        for entry in re.split(r"^#Q", decode_text(path.read_bytes()), flags=re.MULTILINE)[1:]:
            asked, caret, rest = entry.partition("\n^")
            question = " ".join(asked.split())
            answer, *offered = [line.strip() for line in rest.splitlines()] or [""]
            choices = tuple(line[2:].strip() for line in offered if re.match(r"[A-D] ", line))
            if caret and question and answer:
                wrong = tuple(choice for choice in choices if choice and choice != answer)
                yield Question(f"trivia-{path.name}-{found:05d}", question, (answer,), "opentriviaqa", wrong)
                found += 1
    if not found:
        raise InputError(f"OpenTriviaQA: no `#Q` entry in {folder}; give the folder that holds the category files.")


def read_webquestions(path: Path) -> Iterator[Question]:
    """Yield the questions of one WebQuestions JSON file; raise InputError when it is not in that format."""
    try:
        entries = read_json(_existing(path, "WebQuestions"))
        for entry in entries:
            answers = tuple(answer.strip() for answer in entry["answers"] if answer.strip())
            if answers:
                yield Question(entry["qId"], entry["qText"].strip(), answers, f"webquestions-{path.stem}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"WebQuestions: {path} is not a list of qId, qText, answers ({error}).") from error


def read_tatoeba(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (English, other) of a Tatoeba pair file (`fra-eng.zip`, or its tab-separated text); InputError without a pair."""
    found = False
    for line in _tatoeba_lines(path):
        english, tab, rest = line.partition("\t")
        if tab:
            found = True
            yield english.strip(), rest.split("\t")[0].strip()
    if not found:
        raise InputError(f"Tatoeba: {path} has no line with a tab: give the pair file of two languages.")


def _tatoeba_lines(path: Path) -> list[str]:
    """Return the lines of a pair file, zipped or plain."""
    _existing(path, "Tatoeba")
    if path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if not name.startswith("_"))
                text = decode_text(archive.read(name))
        except (zipfile.BadZipFile, StopIteration) as error:
            raise InputError(f"Tatoeba: {path} is not a zip with a pair file; download it again.") from error
    else:
        text = decode_text(path.read_bytes())
    return lines_of(text)


def read_replies(path: Path) -> list[str]:
    """Return the lines of a text file, blank ones left out; InputError where there is none."""
    found = [line.strip() for line in lines_of(read_text(path, LINES_BYTES)) if line.strip()]
    if not found:
        raise InputError(f"{path} holds no line of text: write one reply a line.")
    return found


def read_captions(path: Path) -> Iterator[str]:
    """Yield the lines of a Multi30k side, gzip-compressed or plain."""
    raw = _existing(path, "Multi30k").read_bytes()
    try:
        text = decode_text(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, EOFError) as error:
        raise InputError(f"Multi30k: {path} is not a gzip file; download it again.") from error
    for line in lines_of(text):
        yield line.strip()
