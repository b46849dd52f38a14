"""Questions files: `id question answers audio`, tab separated, checked whole before any model is loaded.

Answers are joined by ` | `; `audio` may be left out or empty, then `<id>.wav` in the audio folder is meant. All faults
of a file are told at once, because a run takes hours. Other formats: boards/sets.py.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from echox.audio import load_audio, save_wav
from echox.config.shard import shard_of
from echox.data.manifest import read_audio, read_manifest
from echox.data.tables import ANSWER_MARK, answers_in, table_rows, write_rows
from echox.errors import ConfigError, InputError
from echox.eval.model_under_test import Failure, at_16k, attempt
from echox.files import sha256_of

COLUMNS = ("id", "question", "answers", "audio")
FAULTS_SHOWN = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One item: `id` unique in its set, `answers` the accepted ones, `audio` the spoken question or None."""

    id: str
    question: str
    answers: tuple[str, ...]
    audio: Path | None = None
    kind: str = ""
    # of a corpus, whose `audio` may hold many utterances
    record: Mapping[str, Any] | None = field(default=None, compare=False)


def read_questions(path: str | Path, audio_dir: str | Path | None = None, need_audio: bool = False) -> list[Item]:
    """Return the questions of a TSV file in its order; audio paths are relative to `audio_dir`, or to the file.

    Raises InputError with every fault found: columns, empty fields, duplicate ids and, with `need_audio`, missing wavs.
    """
    path = Path(path)
    folder = Path(audio_dir) if audio_dir is not None else path.parent
    if audio_dir is not None and not os.path.isdir(folder):
        raise InputError(f"{folder} is not a folder: give --audio-dir the folder of the spoken questions.")
    questions, faults = [], []
    for number, row in table_rows(path, COLUMNS[:3]):
        id, question, answers = row["id"], row["question"], tuple(answers_in(row["answers"]))
        missing = "id" if not id else "question" if not question else "" if answers else "answers"
        if missing:
            faults.append(f"line {number}{f' ({id})' if id else ''} has no {missing}")
            continue
        given = row.get("audio", "")
        place = folder / (given or f"{id}.wav")
        audio = place if audio_dir is not None or given or need_audio or os.path.isfile(place) else None
        questions.append(Item(id, question, answers, audio, row.get("kind", "")))
    check_questions(questions, path, need_audio, faults)
    return questions


def read_corpus(manifest: Path) -> list[Item]:
    """Return the utterances of a corpus whose words are known; their `answers` say which part of a file they are.

    Raises InputError for faults, ids given twice and missing files.
    """
    found = []
    for record in read_manifest(manifest):
        audio = manifest.parent / record["audio"]
        part, record["audio"] = (f"{record.get('start', 0)}+{record['samples']}",), str(audio.absolute())
        if record.get("text"):
            found.append(Item(str(record["id"]), record["text"], part, audio, record=record))
    if not found:
        raise InputError(f"{manifest} names no recording with its `text`: give a corpus whose words are known.")
    check_questions(found, manifest, need_audio=True)
    return found


def check_questions(
    questions: Sequence[Item], source: str | Path, need_audio: bool, faults: Sequence[str] = ()
) -> None:
    """Raise InputError naming `source` when ids repeat, nothing is asked, or (with `need_audio`) a wav is missing."""
    found = list(faults)
    seen: set[str] = set()
    for item in questions:
        if item.id in seen:
            found.append(f"id {item.id!r} is there twice")
        seen.add(item.id)
        if need_audio and (item.audio is None or not os.path.isfile(item.audio)):
            found.append(f"the spoken question {item.audio or item.id} is missing")
    if found:
        shown = "; ".join(found[:FAULTS_SHOWN])
        more = f"; and {len(found) - FAULTS_SHOWN} more" if len(found) > FAULTS_SHOWN else ""
        raise InputError(f"{source} cannot be used, correct it first: {shown}{more}.")
    if not questions:
        raise InputError(f"{source} holds no questions.")


def names_in(text: str) -> list[str]:
    """Return the names of a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def chosen(text: str, known: Iterable[str], option: str) -> list[str]:
    """Return the names of a comma-separated list; ConfigError when there are none, or one that is not `known`."""
    names, known = names_in(text), list(known)
    if not names or set(names) - set(known):
        raise ConfigError(f"{option} {text!r}: choose from {', '.join(known)}, separated by commas.")
    return names


def take(questions: Sequence[T], limit: int | None = None, shard: str = "0/1") -> list[T]:
    """Return the questions of a shard (config/shard.py) of the first `limit`; ConfigError for a wrong one of either."""
    index, count = shard_of(shard)
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be 1 or more, not {limit}.")
    return list(questions[:limit])[index::count]


def load_question(item: Item) -> Any:
    """Return a question's wave, float32 at 16 kHz, or a Failure that says why there is none."""
    if item.audio is None:
        return Failure("the question has no audio")
    if item.record is not None:
        record = item.record
        return attempt(lambda: at_16k(read_audio(record, ""), record["sample_rate"]), "audio: ")
    return attempt(partial(load_audio, item.audio), "question audio: ")


def safe_name(identifier: str) -> str:
    """Return an id as a file name: unchanged when it is one, else cleaned and marked with its hash."""
    clean = re.sub(r"[^\w.-]", "_", identifier)[:80]
    if clean == identifier and not clean.startswith("."):
        return clean
    return f"{clean.lstrip('.')}-{hashlib.sha256(identifier.encode()).hexdigest()[:8]}"


def save_sound(folder: Path, identifier: str, wave: np.ndarray, sample_rate: int) -> Path:
    """Write float [samples] to a file in `folder` named by an id; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{safe_name(identifier)}.wav"
    save_wav(path, wave, sample_rate)
    return path


def one_line(text: str) -> str:
    """Return a text without the separators of a questions file."""
    return " ".join(text.split()).replace("|", "/")


def write_questions(path: str | Path, questions: Sequence[Item]) -> None:
    """Write a questions file atomically, its texts without the separators of one."""
    kinds = any(item.kind for item in questions)
    rows = []
    for item in questions:
        answers = ANSWER_MARK.join(map(one_line, item.answers))
        rows.append(vars(item) | {"question": one_line(item.question), "answers": answers, "audio": item.audio or ""})
    write_rows(path, (*COLUMNS, "kind") if kinds else COLUMNS, rows)


def fingerprint(questions: Sequence[Item]) -> str:
    """Return 16 hexadecimal digits that change when any id, question, answer or recording does."""

    @cache
    def mark(path: Path | None) -> str:
        return "" if path is None or not os.path.isfile(path) else sha256_of(path)

    return digest([[item.id, item.question, list(item.answers), mark(item.audio)] for item in questions])


def digest(content: Any) -> str:
    """Return 16 hexadecimal digits that change when what JSON writes of `content` does."""
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:16]
