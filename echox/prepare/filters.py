"""The `filter` and `transcribe` steps: transcripts by a small recogniser, and which clips are too hard or too unsure.

Only Whisper tiny.en (or another training-side recogniser) belongs here; the judge of the evaluation never touches
training data.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import SAMPLE_RATE, as_int16, load_audio
from echox.data.manifest import (
    join_shards,
    read_audio,
    read_manifest,
    refuse_other_corpora,
    save_shard,
    text_of,
    write_manifest,
)
from echox.errors import ConfigError, InputError
from echox.files import write_text
from echox.prepare.recogniser import Whisper
from echox.prepare.speak import generator
from echox.prepare.stretches import stretches
from echox.prepare.texts import fraction
from echox.text.normalize import whisper_english
from echox.units.distance import edit_distance

log = logging.getLogger(__name__)
MAX_REAL_SECONDS = 28.0
LEAST_LOG_PROBABILITY = -0.35  # of a whole recording, the mean over its tokens
SOUND_FILES = (".flac", ".wav", ".ogg", ".mp3")


def word_errors(reference: str, heard: str) -> tuple[int, int]:
    """Return (edit distance in words, reference words) after Whisper's English normalisation."""
    expected, found = (whisper_english()(text).split() for text in (reference, heard))
    return edit_distance(found, expected), len(expected)


def measure(manifest: Path, recogniser: Whisper, sample: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Return the records (all, or `sample` of them) with `heard`, `errors` and `words` added."""
    records = read_manifest(manifest)
    if sample is not None and sample < len(records):
        chosen = np.sort(np.random.default_rng(seed).permutation(len(records))[:sample])
        records = [records[index] for index in chosen]
    texts = [text_of(record, manifest) for record in records]  # all of them before anything is heard
    for record, text in zip(records, texts, strict=True):
        record["heard"] = recogniser.hear(read_audio(record, manifest.parent)).text
        record["errors"], record["words"] = word_errors(text, record["heard"])
    return records


def error_by_voice(records: Iterable[Mapping[str, Any]]) -> dict[str, tuple[float, int]]:
    """Return {voice kind and style: (word error rate, clips)} of measured records, worst first."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for record in records:
        name = voice_of(record)
        for index, value in enumerate((record["errors"], record["words"], 1)):
            sums[name][index] += value
    rates = {name: (errors / max(words, 1), count) for name, (errors, words, count) in sums.items()}
    return dict(sorted(rates.items(), key=lambda item: -item[1][0]))


def voice_of(record: Mapping[str, Any]) -> str:
    """Return `kind-style` of a record's speaker; the pitch, and the second voice of a mix, are left out."""
    return record.get("speaker", "unknown").rsplit("-p", 1)[0].partition("+")[0]


def keep_clear(records: Iterable[Mapping[str, Any]], max_error: float) -> list[dict[str, Any]]:
    """Return measured records whose own word error is at most `max_error`, without the measuring keys."""
    kept = [record for record in records if record["errors"] <= max_error * max(record["words"], 1)]
    return [{key: record[key] for key in record if key not in ("heard", "errors", "words")} for record in kept]


def drop_voices(records: Iterable[Mapping[str, Any]], rates: Mapping[str, tuple[float, int]], limit: float) -> list:
    """Return the records whose voice is not above `limit` word error in `rates`; voices not measured stay."""
    return [record for record in records if rates.get(voice_of(record), (0.0, 0))[0] <= limit]


def transcribe_real(
    folder: Path,
    out: Path,
    recogniser: Whisper,
    min_log_probability: float | None = None,
    held_out: int = 0,
    spans: int | None = None,
) -> tuple[int, int]:
    """Write a corpus of the real recordings under `folder` with the recogniser's transcripts; return (clips kept, files seen).

    With `spans` it holds up to so many stretches of one to five confident words per recording instead (prepare/stretches.py).
    Dropped are recordings above 28 s, whole ones below the least log probability, and unreadable files, with a warning. The speaker
    is the file name's first part (LibriSpeech naming); `held_out` speakers, chosen by hash, are listed in `held_out.txt` instead.
    Raises InputError when the folder holds no recording, ConfigError for `spans` with a least log probability.
    """
    if spans and min_log_probability is not None:
        raise ConfigError("--spans takes words that are sure one by one: leave out --min-log-probability.")
    refuse_other_corpora(out, "held_out.txt")
    least = LEAST_LOG_PROBABILITY if min_log_probability is None else min_log_probability
    files = recordings_below(folder)
    if not files:
        raise InputError(f"{folder} holds no recording ({', '.join(SOUND_FILES)}).")
    speakers = sorted({speaker_of(path) for path in files}, key=lambda name: fraction("speaker", name))
    kept_back = set(speakers[:held_out])
    said = []
    for path in files:
        try:
            wave = load_audio(path, sample_rate=SAMPLE_RATE)
        except InputError as error:
            log.warning("left out: %s", error)
            continue
        if speaker_of(path) in kept_back or len(wave) > MAX_REAL_SECONDS * SAMPLE_RATE:
            continue
        name = path.relative_to(folder).as_posix()  # names may repeat from folder to folder
        record = {"sample_rate": SAMPLE_RATE, "speaker": f"real-{speaker_of(path)}", "role": "user", "split": "train"}
        if spans:
            pieces = stretches(wave, recogniser.words(wave), spans, generator(0, "stretches", name))
            for number, (piece, text) in enumerate(pieces):
                own = {"id": f"{name}-{number}", "samples": len(piece), "text": text}
                said.append((as_int16(piece), own | record))
            continue
        heard = recogniser.hear(wave)
        if heard.log_probability < least or not heard.text:
            continue
        own = {"id": name, "samples": len(wave), "text": heard.text, "log_probability": round(heard.log_probability, 4)}
        said.append((as_int16(wave), own | record))
    if said:
        out.mkdir(parents=True, exist_ok=True)
        save_shard(out, 0, said, files=False)
        join_shards(out, 1)
        stems = [path.stem for path in files if speaker_of(path) in kept_back]
        write_text(out / "held_out.txt", "".join(f"{stem}\n" for stem in stems))
    return len(said), len(files)


def recordings_below(folder: Path) -> list[Path]:
    """Return the sound files in a folder and all below it, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUND_FILES)


def speaker_of(path: Path) -> str:
    """Return the speaker of a recording: the part of its file name before the first dash."""
    return path.stem.split("-")[0]


def write_filtered(manifest: Path, records: Iterable[Mapping[str, Any]], out: Path) -> None:
    """Write records of `manifest` to another manifest in the same folder, so that audio paths stay valid."""
    if out.resolve().parent != manifest.resolve().parent:
        raise InputError(f"{out} must lie beside {manifest}, since audio paths are relative to the manifest.")
    write_manifest(out, records)
