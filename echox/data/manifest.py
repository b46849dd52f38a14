"""Manifests: JSONL files with one utterance a line, and the audio they point to; the one reader and writer of them.

A record holds `id`, `audio` (path relative to the manifest), `samples`, `sample_rate` and, as known, `text`,
`speaker`, `role` (user or assistant), `answers`, `answer`, `split`. Audio is either a sound file of its own or a slice
of an `.npy` shard of int16 samples, then `start` says where it begins. A corpus is a folder of shard-*.jsonl and of
manifest.jsonl, which is all of them. Knows nothing about models or voices.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import PCM16_SCALE, load_audio, save_wav
from echox.data.batching import groups
from echox.errors import InputError, reason_of
from echox.files import LINES_BYTES, open_regular, refuse_others, write_file

REQUIRED: dict[str, type] = {"id": str, "audio": str, "samples": int, "sample_rate": int}
LEAST = {"samples": 0, "sample_rate": 1}
SHARD = 500  # records of a manifest that names sound files
log = logging.getLogger(__name__)


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file; raise InputError naming the first line that is not one."""
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
            if not isinstance(record.get(key), kind) or (key in LEAST and record[key] < LEAST[key]):
                what = f"a whole number from {LEAST[key]} on" if key in LEAST else "a text"
                raise InputError(f"{path} line {number} has no `{key}`, {what}; make the manifest again.")
    return records


def write_manifest(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a manifest atomically; InputError for a record without a required key, OutputError as `write_jsonl`."""
    records = list(records)
    for record in records:
        for key in REQUIRED:
            if key not in record:
                raise InputError(f"record {record.get('id', '?')} for {path} has no `{key}`.")
    write_jsonl(path, records)


def tell_dropped(dropped: Counter[str], kept: int, what: str) -> None:
    """Say how many rows were left out and why; InputError when none is left."""
    why = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
    if not kept:
        raise InputError(f"none of the {what} can be used ({why or 'there are none'}): correct the data.")
    if dropped:
        log.warning("%d of %d %s are left out: %s.", sum(dropped.values()), kept + sum(dropped.values()), what, why)


def text_of(record: dict[str, Any], source: Path) -> str:
    """Return what was said in a record; InputError when it does not say."""
    if not isinstance(record.get("text"), str):
        raise InputError(f"{source} does not say what is said in {record.get('id')}: give its record a `text`.")
    return record["text"]


def gold_answers(record: Mapping[str, Any], source: Path) -> list[str]:
    """Return the accepted answers of a record, none where it has none; InputError unless they are a list of texts."""
    found = record.get("answers") or []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InputError(f"{source}: the answers of {record.get('id')} are no list of texts: make them one.")
    return found


def question_id(record: dict[str, Any]) -> str:
    """Return the id of the question that a spoken record renders."""
    return str(record.get("question_id", str(record["id"]).partition("@")[0]))


def texts_of(path: Path) -> list[str]:
    """Return the `text`, or else the `question`, of every line of a JSONL file; InputError for one that is no text."""
    texts = [record.get("text") or record.get("question") or "" for record in read_jsonl(path)]
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise InputError(f"{path} line {number} has a `text` or `question` that is no text: make it one.")
    return texts


def save_shard(folder: Path, number: int, said: Sequence[tuple[np.ndarray, dict[str, Any]]], files: bool) -> None:
    """Write one shard (or its single wav files) and then its manifest, each atomically; raise OutputError."""
    name = f"shard-{number:05d}.npy"
    records, start = [], 0
    for pcm, record in said:
        if files:
            place = {"audio": f"{record['id']}.wav"}
            save_wav(folder / place["audio"], pcm.astype(np.float32) / PCM16_SCALE, record["sample_rate"])
        else:
            place = {"audio": name, "start": start}
        records.append({"id": record["id"], **place, **record})
        start += len(pcm)
    if not files:
        with write_file(folder / name) as partial, partial.open("wb") as file:
            np.save(file, np.concatenate([np.zeros(0, np.int16), *(pcm for pcm, _ in said)]))
    write_manifest(folder / f"shard-{number:05d}.jsonl", records)


def join_shards(folder: Path, count: int) -> bool:
    """Write `manifest.jsonl` when all `count` shard manifests exist, and tell whether they do."""
    parts = [folder / f"shard-{number:05d}.jsonl" for number in range(count)]
    if not all(path.exists() for path in parts):
        return False
    write_jsonl(folder / "manifest.jsonl", (record for path in parts for record in read_jsonl(path)))
    return True


def refuse_other_corpora(folder: Path, *names: str) -> None:
    """Raise OutputError where `folder` holds a manifest.jsonl or one of `names`, but no shard of a corpus."""
    refuse_others(folder, ("manifest.jsonl", *names), "shard-*.jsonl", b'{"id": ')


def write_shards(folder: Path, records: list[dict[str, Any]]) -> None:
    """Write a corpus that names its sound files: shards of `SHARD` records, and all of them; InputError beside other shards."""
    parts = {f"shard-{number:05d}.jsonl": some for number, some in enumerate(groups(records, SHARD))}
    if others := sorted(path.name for path in folder.glob("shard-*") if path.name not in parts):
        raise InputError(f"{folder} holds {others[0]} of another corpus: remove the folder, or choose another one.")
    refuse_other_corpora(folder, *parts)
    folder.mkdir(parents=True, exist_ok=True)
    for name, some in parts.items():
        write_manifest(folder / name, some)
    write_manifest(folder / "manifest.jsonl", records)


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
