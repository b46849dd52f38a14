"""`echox eval asr`: the word and character error rates of a recogniser on recordings whose words are known."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import load_audio
from echox.data.manifest import read_audio, read_manifest
from echox.errors import ConfigError
from echox.eval.judges import Judge
from echox.eval.model_under_test import Failure, at_16k, attempt
from echox.eval.questions import Item, check_questions, read_questions
from echox.eval.results import Results
from echox.eval.scorers.word_errors import NORMALISER, errors_between
from echox.eval.tables import Items, Table, pooled_rate

Reference = tuple[str, str, Callable[[], np.ndarray]]
"""The id of a recording, its words, and what loads its wave at 16 kHz."""
BATCH = 16


def read_references(
    questions: Path | None, audio_dir: Path | None, manifest: Path | None
) -> tuple[list[Reference], str]:
    """Return (id, words, function that loads the wave at 16 kHz) of a questions file or a manifest, and its name.

    Raises ConfigError unless exactly one is given, InputError for faults or missing wavs.
    """
    if questions is not None and manifest is None:
        items = read_questions(questions, audio_dir, need_audio=True)
        return [(item.id, item.question, partial(load_audio, item.audio or "")) for item in items], questions.name
    if manifest is None or questions is not None:
        raise ConfigError("give either --questions FILE or --manifest FILE.")
    records = [record for record in read_manifest(manifest) if record.get("text")]
    found = [Item(str(r["id"]), r["text"], ("-",), manifest.parent / r["audio"]) for r in records]
    check_questions(found, manifest, need_audio=True)
    return [(str(r["id"]), r["text"], partial(_from_manifest, r, manifest.parent)) for r in records], manifest.name


def run_asr(items: Sequence[Reference], judge: Judge, source: str, out: Path) -> list[Table]:
    """Return the error rates of a recogniser over references, writing asr.jsonl.

    A file that cannot be read is recorded, and all its words count as deleted.
    """
    settings = {"task": "asr", "model": judge.name, "questions": source, "wer_normaliser": NORMALISER, "shard": "0/1"}
    with Results(out / "asr.jsonl", settings) as results:
        todo = [item for item in items if ("asr", item[0]) not in results.done]
        for start in range(0, len(todo), BATCH):
            batch = todo[start : start + BATCH]
            waves = [attempt(load, "audio: ") for _, _, load in batch]
            heard = judge.transcribe([np.zeros(0, np.float32) if isinstance(w, Failure) else w for w in waves])
            for (name, text, _), wave, words in zip(batch, waves, heard, strict=True):
                record = {"arm": "asr", "id": name, "text": text, "transcript": words}
                results.append(record | asdict(errors_between(text, words)) | {"error": getattr(wave, "reason", "")})
        done = list(results.items.values())
    return asr_tables(settings, done)


def _from_manifest(record: dict[str, Any], folder: Path) -> np.ndarray:
    return at_16k(read_audio(record, folder), record["sample_rate"])


def asr_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the word and character error rates of a recogniser."""
    rates = [pooled_rate(items, f"{what}_edits", f"{what}s") for what in ("word", "character")]
    failed = sum(bool(item["error"]) for item in items)
    row = (str(settings["model"]), str(settings["questions"]), str(len(items)), *rates, str(failed))
    note = (
        f"Recogniser {settings['model']}; {settings['wer_normaliser']}; a file that cannot be read counts as deleted."
    )
    return [Table("Recognition", ("recogniser", "set", "n", "WER %", "CER %", "failed"), (row,), note)]
