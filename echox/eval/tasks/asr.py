"""`echox eval asr`: the word and character error rates of a recogniser on recordings whose words are known."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from echox.audio import load_audio
from echox.data.manifest import read_audio, read_manifest
from echox.errors import ConfigError
from echox.eval.judges import Judge
from echox.eval.model_under_test import at_16k, attempt, sounds_of
from echox.eval.questions import Item, check_questions, read_questions
from echox.eval.results import Results
from echox.eval.scorers.word_errors import NORMALISER, errors_between
from echox.eval.tables import Items, Table, failures, pooled_rate

BATCH = 16


class Reference(NamedTuple):
    """A recording whose words are known, and what loads its wave at 16 kHz."""

    id: str
    text: str
    load: Callable[[], np.ndarray]


def read_references(
    questions: Path | None, audio_dir: Path | None, manifest: Path | None
) -> tuple[list[Reference], str]:
    """Return the recordings of a questions file or a manifest, and its name.

    Raises ConfigError unless exactly one is given, InputError for faults or missing wavs.
    """
    if questions is not None and manifest is None:
        items = read_questions(questions, audio_dir, need_audio=True)
        return [
            Reference(item.id, item.question, partial(load_audio, item.audio or "")) for item in items
        ], questions.name
    if manifest is None or questions is not None:
        raise ConfigError("give either --questions FILE or --manifest FILE.")
    records = [record for record in read_manifest(manifest) if record.get("text")]
    found = [Item(str(r["id"]), r["text"], ("-",), manifest.parent / r["audio"]) for r in records]
    check_questions(found, manifest, need_audio=True)
    return [
        Reference(str(r["id"]), r["text"], partial(_from_manifest, r, manifest.parent)) for r in records
    ], manifest.name


def _from_manifest(record: dict[str, Any], folder: Path) -> np.ndarray:
    return at_16k(read_audio(record, folder), record["sample_rate"])


def run_asr(items: Sequence[Reference], judge: Judge, source: str, out: Path) -> list[Table]:
    """Return the error rates of a recogniser over references, writing asr.jsonl.

    A file that cannot be read is recorded, and all its words count as deleted.
    """
    settings = {"task": "asr", "model": judge.name, "questions": source, "wer_normaliser": NORMALISER, "shard": "0/1"}
    with Results(out / "asr.jsonl", settings) as results:
        for batch in results.batches("asr", items, BATCH):
            waves = [attempt(item.load, "audio: ") for item in batch]
            for item, wave, words in zip(batch, waves, judge.transcribe(sounds_of(waves)), strict=True):
                record = {"arm": "asr", "id": item.id, "text": item.text, "transcript": words}
                record |= asdict(errors_between(item.text, words)) | {"error": getattr(wave, "reason", "")}
                results.append(record)
    return asr_tables(settings, results.rows)


def asr_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the word and character error rates of a recogniser."""
    rates = [pooled_rate(items, f"{what}_edits", f"{what}s") for what in ("word", "character")]
    row = (str(settings["model"]), str(settings["questions"]), str(len(items)), *rates, str(failures(items)))
    note = (
        f"Recogniser {settings['model']}; {settings['wer_normaliser']}; a file that cannot be read counts as deleted."
    )
    return [Table("Recognition", ("recogniser", "set", "n", "WER %", "CER %", "failed"), (row,), note)]
