"""`echox eval asr`: the word and character error rates of a recogniser on recordings whose words are known."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from echox.data.manifest import read_audio, read_manifest
from echox.errors import ConfigError
from echox.eval.judges import Judge
from echox.eval.model_under_test import at_16k, attempt, sounds_of
from echox.eval.questions import Item, check_questions, fingerprint, load_question, read_questions, take
from echox.eval.results import results_path, run_items
from echox.eval.scorers.texts import NORMALISER, errors_between
from echox.eval.tables import Items, Table, error_rates, failures

BATCH = 16


def read_references(
    questions: Path | None, audio_dir: Path | None, manifest: Path | None
) -> tuple[list[Item], str, Callable[[Item], Any]]:
    """Return recordings whose words are known, their file's name, and what loads one at 16 kHz or says why it cannot be.

    The `answers` of a manifest's say which part of a file they are. Raises ConfigError unless exactly one file is given, InputError
    for faults or missing wavs.
    """
    if questions is not None and manifest is None:
        return read_questions(questions, audio_dir, need_audio=True), questions.name, load_question
    if manifest is None or questions is not None:
        raise ConfigError("give either --questions FILE or --manifest FILE.")
    records, folder = [one for one in read_manifest(manifest) if one.get("text")], manifest.parent
    parts = [(f"{one.get('start', 0)}+{one['samples']}",) for one in records]
    found = [
        Item(str(one["id"]), one["text"], part, folder / one["audio"]) for one, part in zip(records, parts, strict=True)
    ]
    check_questions(found, manifest, need_audio=True)
    by_id = {str(one["id"]): one for one in records}

    def load(item: Item) -> Any:
        one = by_id[item.id]
        return attempt(lambda: at_16k(read_audio(one, folder), one["sample_rate"]), "audio: ")

    return found, manifest.name, load


def run_asr(
    references: tuple[Sequence[Item], str, Callable[[Item], Any]],
    judge: Judge,
    out: Path,
    limit: int | None = None,
    shard: str = "0/1",
) -> list[Table]:
    """Return the error rates of a recogniser over what `read_references` returns, writing asr.jsonl.

    A file that cannot be read is recorded, and all its words count as deleted.
    """
    items, source, load = references
    settings = {"task": "asr", "model": judge.name, "questions": source, "wer_normaliser": NORMALISER, "shard": shard}

    def answer(arm: str, some: Sequence[Item]) -> Iterator[dict[str, Any]]:
        waves = [load(item) for item in some]
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
