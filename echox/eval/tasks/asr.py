"""`echox eval asr`: the word and character error rates of a recogniser on recordings whose words are known."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from echox.data.manifest import read_audio, read_manifest
from echox.errors import ConfigError
from echox.eval.judges import Judge
from echox.eval.model_under_test import at_16k, attempt, sounds_of
from echox.eval.questions import Item, check_questions, fingerprint, load_question, read_questions, take
from echox.eval.results import results_path, run_items
from echox.eval.scorers.word_errors import NORMALISER, errors_between
from echox.eval.tables import Items, Table, error_rates, failures

BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Reference(Item):
    """A recording whose words are known, and what loads its wave at 16 kHz; of a manifest `answers` say which part of the file."""

    load: Callable[[], Any]


def read_references(
    questions: Path | None, audio_dir: Path | None, manifest: Path | None
) -> tuple[list[Reference], str]:
    """Return the recordings of a questions file or a manifest, and its name.

    Raises ConfigError unless exactly one is given, InputError for faults or missing wavs.
    """
    if questions is not None and manifest is None:
        items = read_questions(questions, audio_dir, need_audio=True)
        return [Reference(**vars(item), load=partial(load_question, item)) for item in items], questions.name
    if manifest is None or questions is not None:
        raise ConfigError("give either --questions FILE or --manifest FILE.")
    found, folder = list[Reference](), manifest.parent
    for one in read_manifest(manifest):
        if one.get("text"):
            part, load = (f"{one.get('start', 0)}+{one['samples']}",), partial(_from_manifest, one, folder)
            found.append(Reference(str(one["id"]), one["text"], part, folder / one["audio"], load=load))
    check_questions(found, manifest, need_audio=True)
    return found, manifest.name


def _from_manifest(record: dict[str, Any], folder: Path) -> np.ndarray:
    return at_16k(read_audio(record, folder), record["sample_rate"])


def run_asr(
    items: Sequence[Reference], judge: Judge, source: str, out: Path, limit: int | None = None, shard: str = "0/1"
) -> list[Table]:
    """Return the error rates of a recogniser over references, writing asr.jsonl.

    A file that cannot be read is recorded, and all its words count as deleted.
    """
    settings = {"task": "asr", "model": judge.name, "questions": source, "wer_normaliser": NORMALISER, "shard": shard}

    def answer(arm: str, some: Sequence[Reference]) -> Iterator[dict[str, Any]]:
        waves = [attempt(item.load, "audio: ") for item in some]
        for item, wave, words in zip(some, waves, judge.transcribe(sounds_of(waves)), strict=True):
            record = {"text": item.question, "transcript": words, "error": getattr(wave, "reason", "")}
            yield record | asdict(errors_between(item.question, words))

    asked = {"asr": take(items, limit, shard)}
    return asr_tables(*run_items(results_path(out, shard, "asr"), settings, fingerprint(items), asked, BATCH, answer))


def asr_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the word and character error rates of a recogniser."""
    rates, note = error_rates(items), f"Recogniser {settings['model']}; {settings['wer_normaliser']}; "
    row = (str(settings["model"]), str(settings["questions"]), str(len(items)), *rates.values(), str(failures(items)))
    note += "a file that cannot be read counts as deleted."
    return [Table("Recognition", ("recogniser", "set", "n", *rates, "failed"), (row,), note)]
