"""Manifests: JSONL files with one utterance a line, and the audio they point to; the one reader and writer of them.

A record holds `id`, `audio` (path relative to the manifest), `samples`, `sample_rate` and, as known, `text`,
`speaker`, `role` (user or assistant), `answers`, `answer`, `split`. Audio is either a sound file of its own or a slice
of an `.npy` shard of int16 samples, then `start` says where it begins. Knows nothing about models or voices.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import PCM16_SCALE, load_audio
from echox.errors import InputError, reason_of
from echox.files import LINES_BYTES, open_regular, write_file

REQUIRED: dict[str, type] = {"id": str, "audio": str, "samples": int, "sample_rate": int}


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file; raise InputError naming the first line that is not one."""
    path = Path(path)
    if not os.path.exists(path):
        raise InputError(f"{path} is missing: make it first, or correct the path.")
    records: list[dict[str, Any]] = []
    number = 0
    try:
        with TextIOWrapper(open_regular(path, LINES_BYTES), encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise InputError(f"{path} line {number} is not a JSON object; correct or remove it.")
                    records.append(record)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} line {number} is not JSON ({error.msg}); correct or remove it.") from error
    except RecursionError as error:
        raise InputError(f"{path} line {number} is nested too deeply; correct or remove it.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8.") from error
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{path} line {number} cannot be read ({reason_of(error)}); correct or remove it.") from error
    return records


def read_fields(path: str | Path, *names: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file; InputError names a line whose `id` or one of `names` is no text."""
    for number, record in enumerate(read_jsonl(path), start=1):
        for name in names:
            if not isinstance(record.get("id"), str) or not isinstance(record.get(name), str):
                raise InputError(f"{path} line {number} has no `id` or no `{name}`: make it again.")
        yield record


def write_jsonl(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one object a line, atomically; raise OutputError when the folder cannot be written."""
    with write_file(path) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_manifest(path: str | Path) -> list[dict[str, Any]]:
    """Return the records of a manifest; raise InputError when one lacks a required key, or what it holds is of another kind."""
    records = read_jsonl(path)
    for number, record in enumerate(records, start=1):
        for key, kind in REQUIRED.items():
            if not isinstance(record.get(key), kind) or (kind is int and record[key] < 0):
                what = "text" if kind is str else "whole number"
                raise InputError(f"{path} line {number} has no `{key}`, a {what}; make the manifest again.")
    return records


def write_manifest(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a manifest atomically; InputError for a record without a required key, OutputError as `write_jsonl`."""
    records = list(records)
    for record in records:
        for key in REQUIRED:
            if key not in record:
                raise InputError(f"record {record.get('id', '?')} for {path} has no `{key}`.")
    write_jsonl(path, records)


@lru_cache(maxsize=256)
def _open_shard(path: Path, changed_ns: int, size: int) -> np.ndarray:
    """Return a shard that stays open for further reads; one that was made again is another."""
    return np.load(path, mmap_mode="r")


def read_audio(record: Mapping[str, Any], folder: str | Path, sample_rate: int | None = None) -> np.ndarray:
    """Return a record's mono audio, float32 [samples] in [-1, 1], at `sample_rate` or by default the record's.

    `folder` is the manifest's own. A sound file is resampled. Raises InputError when the file is missing or shorter than the
    record says, or a shard is not at that rate.
    """
    path, wanted = Path(folder) / record["audio"], sample_rate or record["sample_rate"]
    if path.suffix != ".npy":
        wave = load_audio(path, sample_rate=wanted)
        expected = record["samples"] * wanted / record["sample_rate"]
        if len(wave) < expected - wanted / 100:  # what resampling and a decoder's padding may take away
            raise InputError(f"{path} ends after {len(wave) / wanted:.2f} s of {expected / wanted:.2f}: copy it again.")
        return wave
    if record["sample_rate"] != wanted:
        raise InputError(
            f"{record['id']} in {folder} has {record['sample_rate']} Hz where {wanted} are needed: make its shards at {wanted} Hz."
        )
    if not path.is_file():
        raise InputError(f"{path} is missing: make the corpus again, or move its shards beside the manifest.")
    start, samples = record.get("start", 0), record["samples"]
    status = path.stat()
    try:
        piece = _open_shard(path.absolute(), status.st_mtime_ns, status.st_size)[start : start + samples]
    except ValueError as error:
        raise InputError(f"{path} is not a whole .npy shard ({error}); delete it and make the corpus again.") from error
    if len(piece) != samples:
        raise InputError(f"{path} ends before {record['id']} does; delete it and make the corpus again.")
    return piece.astype(np.float32) / PCM16_SCALE
