"""The programs behind `echox eval asr | speech | latency | gap`: inputs checked, results written, tables returned."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import load_audio
from echox.errors import ConfigError, InputError, MissingDependency
from echox.eval.judges import Judge
from echox.eval.model_under_test import RECORDED, Failure, attempt
from echox.eval.probes import states_of, untouched
from echox.eval.questions import Question, Reference, fingerprint
from echox.eval.report.summary import asr_tables, latency_tables, qa_runs, speech_tables, title_of
from echox.eval.results import Results, read_all
from echox.eval.scorers.sound import distillmos, dnsmos, errors_between, speaker_similarity
from echox.eval.setup import WER_NORMALISER, timed_on
from echox.eval.tables import Table, with_words
from echox.eval.tasks.arms import load_question
from echox.eval.tasks.joins import joins_tables, streamed
from echox.eval.tasks.latency import measure, peak_memory
from echox.eval.tasks.reference_voice import SAYS, ReferenceVoice
from echox.eval.tasks.stages import StageClock, stage_table, stages_of
from echox.files import write_text

Tell = Callable[[str], None]
Measure = Callable[[np.ndarray], dict[str, float]]
NETWORKS = ("dnsmos", "distillmos", "speaker_similarity")
ASR_BATCH = 16


def run_asr(items: Sequence[Reference], judge: Judge, source: str, out: Path) -> Table:
    """Return the word and character error rates of a recogniser over references, writing asr.jsonl.

    A file that cannot be read is recorded, and all its words count as deleted.
    """
    settings = {
        "task": "asr",
        "model": judge.name,
        "questions": source,
        "wer_normaliser": WER_NORMALISER,
        "shard": "0/1",
    }
    with Results(out / "asr.jsonl", settings) as results:
        todo = [item for item in items if ("asr", item[0]) not in results.done]
        for start in range(0, len(todo), ASR_BATCH):
            batch = todo[start : start + ASR_BATCH]
            waves = [attempt(load, "audio: ") for _, _, load in batch]
            heard = judge.transcribe([np.zeros(0, np.float32) if isinstance(w, Failure) else w for w in waves])
            for (name, text, _), wave, words in zip(batch, waves, heard, strict=True):
                edits = errors_between(text, words)
                record = {"arm": "asr", "id": name, "text": text, "transcript": words, "words": edits.words}
                record |= {"word_edits": edits.word_edits, "characters": edits.characters}
                record |= {"character_edits": edits.character_edits, "error": getattr(wave, "reason", "")}
                results.append(record)
        done = list(results.items.values())
    return asr_tables(settings, done)[0]


def run_speech(
    paths: Sequence[Path], networks: Sequence[str], voice: Path | None, out: Path, tell: Tell,
    reference: ReferenceVoice | None = None, limit: int | None = None,
) -> list[Table]:  # fmt: skip
    """Return the tables of spoken answers by run and arm of results files, writing speech.jsonl: opinion scores and
    speaker similarity; word errors, rate, pauses, clipping and offsets.

    With a `reference` voice also those of the same texts in that voice, and what is between them. `limit` takes the first
    answers of every arm.

    Raises ConfigError for an unknown network or similarity without a `voice`, InputError when no answer has audio.
    """
    unknown = set(networks) - set(NETWORKS)
    if unknown:
        raise ConfigError(f"there is no measure {', '.join(sorted(unknown))}: choose from {', '.join(NETWORKS)}.")
    if "speaker_similarity" in networks and voice is None:
        raise ConfigError(
            "speaker similarity needs a recording of the voice that answers should have: give --voice FILE."
        )
    runs = qa_runs(read_all(paths))
    spoken = [(title_of(run[0]), item) for run in runs for item in _spoken_answers(run[1], limit)]
    if not any(item.get("audio") for _, item in spoken):
        raise InputError(f"{paths[0]} holds no spoken answers: run `echox eval qa` with the arm s2s first.")
    makers: dict[str, Callable[[], Measure]] = {"dnsmos": dnsmos, "distillmos": distillmos}
    if voice is not None:
        makers["speaker_similarity"] = partial(speaker_similarity, load_audio(voice))
    measures = [makers[name]() for name in networks]
    judges = " and ".join(dict.fromkeys(str(run[0].get("judge")) for run in runs))
    settings = {"task": "speech", "networks": list(networks), "voice": str(voice or ""), "judge": judges}
    settings |= {"wer_normaliser": WER_NORMALISER, "shard": "0/1"}
    if reference is not None:
        _same_judge(judges, reference)
        settings |= {"reference": reference.kind}
    with Results(out / "speech.jsonl", settings) as results:
        for model, item in _bar(spoken, "speech"):
            arm = f"{model} {item['arm']}"
            if (arm, item["id"]) not in results.done:
                results.append({"arm": arm, "id": item["id"], **_measured(item, measures)})
            beside = f"{arm}{SAYS}{reference.kind}" if reference is not None else ""
            if reference is not None and (beside, item["id"]) not in results.done:
                said = reference.say(item, out)
                results.append({"arm": beside, "id": item["id"], **_measured(said, measures)})
        done = list(results.items.values())
    if any(item["error"] for item in done):
        tell(f"{sum(bool(item['error']) for item in done)} answers were not measured; {out / 'speech.jsonl'} says why")
    return speech_tables(settings, done)


def _same_judge(judges: str, reference: ReferenceVoice) -> None:
    """Raise ConfigError when the answers were heard by another judge than the reference voice would be."""
    if judges != reference.judge.name:
        raise ConfigError(
            f"the answers were heard by {judges}, not by {reference.judge.name}: give that one as --judge."
        )


def _spoken_answers(items: list[dict[str, Any]], limit: int | None = None) -> list[dict[str, Any]]:
    """Return the answers that a judge heard, silent and failed ones among them, with their counts of words."""
    texts = {item["id"]: item["text"] for item in items if item["arm"] == "s2t"}
    heard = [with_words(item, texts) for item in items if item.get("transcript") is not None]
    arms = dict.fromkeys(item["arm"] for item in heard)
    return [item for arm in arms for item in [one for one in heard if one["arm"] == arm][:limit]]


def run_joins(subject: Any, name: str, paths: Sequence[Path], count: int, out: Path) -> list[Table]:
    """Return what happens where pieces of streamed answers meet, writing joins.jsonl.

    The first `count` questions of results files are put to the model once more, typed.
    """
    asked = {item["id"]: item["question"] for _, items in qa_runs(read_all(paths)) for item in items}
    settings = {"task": "joins", "model": name, "shard": "0/1"}
    with Results(out / "joins.jsonl", settings) as results:
        for id, question in _bar(list(asked.items())[:count], "joins"):
            if ("joins", id) not in results.done:
                results.append({"arm": "joins", "id": id, "question": question, **streamed(subject, question)})
        done = list(results.items.values())
    return joins_tables(settings, done)


def run_latency(
    subject: Any, name: str, questions: Sequence[Question], out: Path, warmup: int, options: dict[str, Any]
) -> list[Table]:
    """Return the latency table of a model over questions (spoken where they have audio), writing latency.jsonl.

    The first `warmup` questions are asked beforehand, for a second table of the time in each part. Failures are
    recorded and left out of the percentiles. Raises ConfigError when the file was timed on another machine or device.
    """
    asked = [(item, load_question(item) if item.audio is not None else item.question) for item in questions]
    stages = _stage_tables(subject, [q for _, q in asked[:warmup] if not isinstance(q, Failure)], options)
    settings = {"task": "latency", "model": name, "questions_mark": fingerprint(questions), "shard": "0/1", **options}
    settings |= timed_on(subject)
    settings |= {"system": subject.system} if getattr(subject, "system", "") else {}
    with Results(out / "latency.jsonl", settings) as results:
        for item, question in _bar(asked, "latency"):
            if ("latency", item.id) not in results.done:
                results.append({"arm": "latency", "id": item.id, **_timed(subject, question, options)})
        done = list(results.items.values())
    load = getattr(subject, "load_seconds", None)
    memory = peak_memory() | ({"load_seconds": float(load)} if load else {})
    tables = [*latency_tables(settings, done, memory), *stages]
    _write(out / "latency.md", "\n".join(each.markdown() for each in tables))
    return tables


def run_gap(
    reader: Any, name: str, sets: Any, wave_of: Any, questions: Any, out: Path, tell: Tell, voice: str = "no voice"
) -> list[Table]:
    """Return the tables of the gap benchmark and write gap.json, gap.md and, with matplotlib, gap.svg into `out`.

    `wave_of` speaks a word (or is None) in what `voice` names; `questions` is what `typed_against_spoken` takes (or
    empty). Raises ConfigError when the model shows no states.
    """
    from echox.eval.tasks.gap import (
        LENGTH_ONLY,
        draw_views,
        gap_table,
        length_states,
        measure_view,
        typed_against_spoken,
    )
    from echox.eval.tasks.states import available

    sources = available(reader, wave_of)
    if not sources:
        raise ConfigError(
            f"{name} shows no hidden states: it needs typed_states, spoken_states, echo_states or unit_states."
        )
    views = []
    for view, source in _bar(list(sources.items()), "views"):
        states = states_of(reader if source.adapters else untouched(reader))
        views.append(measure_view(view, partial(source.read, states), sets))
    baseline = measure_view(LENGTH_ONLY, length_states, sets)
    note = (
        f"{name}; {len(sets)} sets, a view's own number beside it; words spoken by {voice if wave_of else 'nobody'}; "
    )
    note += (
        "text LLM: adapters off where there are any; cosines centred over all words; probes: ridge on |a-b| and a*b, "
    )
    note += "against the same relation's word of another set, held-out sets, chance 50. A view shows sound or meaning "
    note += "only where it beats length alone. No scorer, no judge."
    tables = [gap_table([*views, baseline], note)]
    content: dict[str, Any] = {"task": "gap", "model": name, "sets": len(sets), "voice": voice, "views": {}}
    for view in (*views, baseline):
        probes = {"sound": view.sound_probe_L.tolist(), "meaning": view.meaning_probe_L.tolist()}
        choices = [[choice.value, choice.low, choice.high] for choice in view.choices]
        numbers = {"sets": view.sets, "cosines": view.cosines_LR.tolist(), "sound_nearer": choices, "probes": probes}
        content["views"][view.name] = numbers
    if questions:
        found_L3 = typed_against_spoken(states_of(reader), questions)
        content["typed_against_spoken"] = found_L3.tolist()
        rows = tuple((str(layer), *(f"{value:+.3f}" for value in row)) for layer, row in enumerate(found_L3))
        head = ("layer", "same question", "same, centred", "other question, centred")
        note = f"{name}, adapters on; mean cosine over {len(questions)} questions. No scorer, no judge."
        tables.append(Table("Typed against spoken", head, rows, note))
    content["tables"] = [asdict(table) for table in tables]
    _write_gap(out, content, tables, lambda: draw_views(views, baseline), tell)
    return tables


def _write_gap(out: Path, content: dict[str, Any], tables: list[Table], draw: Callable[[], str], tell: Tell) -> None:
    _write(out / "gap.json", json.dumps(content, indent=1))
    _write(out / "gap.md", "\n".join(table.markdown() for table in tables))
    try:
        _write(out / "gap.svg", draw())
    except MissingDependency as error:
        tell(f"no figure: {error}")


def _measured(item: dict[str, Any], measures: Sequence[Measure]) -> dict[str, Any]:
    """Return what is written about the sound of one answer, with its word errors and signal checks of the qa run."""
    names = ("text", "transcript", "words", "word_edits", "characters", "character_edits", "audio_seconds", "signal")
    record = {name: item[name] for name in names if name in item}
    if not item.get("audio"):
        return record | {"measures": {}, "error": item.get("error") or "the answer is silent"}
    path = Path(item["folder"]) / item["audio"]
    record |= {"audio": str(path)}
    try:
        wave = load_audio(path)
        found = {name: value for measure in measures for name, value in measure(wave).items()}
        return record | {"measures": found, "error": ""}
    except RECORDED as error:
        return record | {"measures": {}, "error": f"{type(error).__name__}: {error}"}


def _timed(subject: Any, question: Any, options: dict[str, Any]) -> dict[str, Any]:
    if isinstance(question, Failure):
        return {"error": question.reason}
    try:
        return measure(subject, question, **options) | {"error": ""}
    except RECORDED as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _stage_tables(subject: Any, questions: Sequence[Any], options: dict[str, Any]) -> list[Table]:
    """Answer questions once to warm up and, where the model has parts, once more to time them."""
    answered = [question for question in questions if not _timed(subject, question, options)["error"]]
    stages = stages_of(subject)
    if not stages or not answered:
        return []
    with StageClock(stages) as clock:
        found = [_timed(subject, question, options) for question in answered]
    whole = [each["total"] for each in found if not each["error"]]
    return [stage_table(clock.seconds, sum(whole), len(whole))] if len(whole) == len(found) else []


def _write(path: Path, text: str) -> None:
    write_text(path, text)


def _bar(items: Sequence[Any], what: str) -> Iterable[Any]:
    from rich.progress import track

    return track(items, description=what, total=len(items))
