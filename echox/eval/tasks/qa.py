"""`echox eval qa` from its options to its tables: check everything, load, run with a progress bar, report."""

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echox.errors import ConfigError, InputError
from echox.eval.judges import find_judge, warn_if_own_ear
from echox.eval.probes import can_turn_off
from echox.eval.questions import Question, fingerprint, take
from echox.eval.results import Results, read_beside, read_results
from echox.eval.scorers.answers import Scorer
from echox.eval.setup import WER_NORMALISER, ModelChoice, choose_judges, load_subject, machine, model_folder
from echox.eval.tables import Table
from echox.eval.tasks.arms import SPOKEN_ANSWER, QaRun, choose_arms, run_arms
from echox.eval.tasks.retention import TYPED_ARMS
from echox.files import write_text

Tell = Callable[[str], None]
NOT_ON_A_SERVER = ("teacher", "t2t-off")


@dataclass(frozen=True)
class QaOptions:
    """The options of one `echox eval qa` besides model, questions and scorers; see `echox eval qa --help`."""

    arms: str
    judge: str = ""
    judge_window: int = 15
    recogniser: str = ""
    out: Path = Path("report")
    limit: int | None = None
    shard: str = "0/1"
    batch: int = 8
    seed: int = 0
    max_seconds: float | None = None
    retry_failed: bool = False
    retention: dict[str, Any] | None = None
    typed_from: Path | None = None


def run_qa(
    questions: Sequence[Question],
    source: str,
    choice: ModelChoice,
    scorers: Sequence[Scorer],
    options: QaOptions,
    tell: Tell,
) -> list[Table]:
    """Run what is still to do of one evaluation and return its tables; write results, table.md and report.html.

    Raises any EchoxError of its inputs before a model is loaded.
    """
    wanted = _possible_arms(options.arms, choice, tell)
    todo = take(questions, options.limit, options.shard)
    spoken = bool(SPOKEN_ANSWER & set(wanted))
    device = "cuda" if choice.device == "cuda" else "cpu"
    started = time.perf_counter()
    server = load_subject(choice) if choice.endpoint else None
    judge, recogniser = choose_judges(
        options.judge, options.recogniser, spoken, "cascade" in wanted, options.judge_window, device
    )
    subject, name = server or load_subject(choice)
    warn_if_own_ear(model_folder(choice), find_judge(options.judge) if judge else None, tell)
    arms = choose_arms(",".join(wanted), subject_can_turn_off=can_turn_off(subject))
    settings = _settings(questions, source, name, judge, recogniser, scorers, options)
    settings |= {"system": choice.system} if choice.system else {}
    settings |= {"arms": list(arms), "machine": machine(), "load_seconds": round(time.perf_counter() - started, 2)}
    settings |= {"retention": options.retention} if options.retention else {}
    path = results_path(options.out, options.shard)
    with Results(path, settings, options.retry_failed) as results:
        run = QaRun(subject, judge, scorers, options.out, recogniser, subject, _ask_options(options), options.batch)
        run.places = {item.id: place for place, item in enumerate(questions)}
        if options.typed_from is not None:
            copy_typed(options.typed_from, todo, results)
        _run_with_bar(run, todo, arms, results)
    return write_report([path], options.out, tell)


def copy_typed(path: Path, questions: Sequence[Question], results: Results) -> None:
    """Put the typed answers of another run of the same model into `results`, since they do not depend on recordings.

    Raises ConfigError when that run differs in what typed answers depend on.
    """
    settings, items = read_results(path)
    for name in ("model", "scorers", "seed", "batch", "system"):
        if settings.get(name) != results.settings.get(name):
            here, there = results.settings.get(name), settings.get(name)
            raise ConfigError(f"--typed-from {path} was made with {name} {there!r}, not {here!r}: leave it out.")
    wanted = {item.id: item for item in questions}
    for item in items:
        asked = wanted.get(item["id"])
        same = asked is not None and (asked.question, list(asked.answers)) == (item["question"], item["answers"])
        if same and item["arm"] in TYPED_ARMS and (item["arm"], item["id"]) not in results.done:
            results.append({name: value for name, value in item.items() if name != "type"})


def _possible_arms(names: str, choice: ModelChoice, tell: Tell) -> tuple[str, ...]:
    """Return the arms to run, telling which ones a server cannot have; raise ConfigError when none is left."""
    wanted = choose_arms(names, subject_can_turn_off=False)
    without = [arm for arm in wanted if arm in NOT_ON_A_SERVER] if choice.endpoint else []
    left = tuple(arm for arm in wanted if arm not in without)
    reason = "a server has neither a teacher nor adapters to turn off"
    if not left:
        raise ConfigError(f"{reason}: choose other arms than {', '.join(without)}.")
    if without:
        tell(f"{reason}: left out {', '.join(without)}")
    return left


def write_report(paths: Sequence[Path], out: Path, tell: Tell) -> list[Table]:
    """Return the tables of results files and write them as table.md and report.html into `out`."""
    from echox.eval.report.page import write_html
    from echox.eval.report.summary import all_tables

    runs = read_beside(paths)
    tables = all_tables(runs)
    write_text(out / "table.md", "\n".join(table.markdown() for table in tables))
    write_html(out / "report.html", runs, tell)
    return tables


def refuse_all_failed(path: Path) -> None:
    """Raise InputError when a results file holds no single answer: every item of it failed."""
    _, items = read_results(path)
    if items and all(item.get("error") for item in items):
        raise InputError(f"all {len(items)} items of {path} failed, the last with: {items[-1]['error'].rstrip('.')}.")


def results_path(out: Path, shard: str, stem: str = "results") -> Path:
    """Return the results file of a shard: results.jsonl when there is only one."""
    index, _, count = shard.partition("/")
    return out / (f"{stem}.jsonl" if count == "1" else f"{stem}.{index}of{count}.jsonl")


def _ask_options(options: QaOptions) -> dict[str, Any]:
    found: dict[str, Any] = {"seed": options.seed}
    return found if options.max_seconds is None else found | {"max_seconds": options.max_seconds}


def _settings(
    questions: Sequence[Question],
    source: str,
    model: str,
    judge: Any,
    recogniser: Any,
    scorers: Sequence[Scorer],
    options: QaOptions,
) -> dict[str, Any]:
    return {
        "task": "qa",
        "model": model,
        "questions": source,
        "questions_mark": fingerprint(questions),
        "count": len(questions),
        "scorer": scorers[0].name,
        "scorers": [scorer.name for scorer in scorers],
        "normaliser": scorers[0].normaliser,
        "judge": judge.name if judge else None,
        "recogniser": recogniser.name if recogniser else None,
        "wer_normaliser": WER_NORMALISER,
        "seed": options.seed,
        "max_seconds": options.max_seconds,
        "batch": options.batch,
        "limit": options.limit,
        "shard": options.shard,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _run_with_bar(run: QaRun, questions: Sequence[Question], arms: Sequence[str], results: Results) -> None:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    total = len(questions) * len(arms)
    left = sum((arm, item.id) not in results.done for arm in arms for item in questions)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(", ".join(arms), total=total, completed=total - left)
        run.tell = lambda count: bar.advance(task, count)
        run_arms(run, questions, arms, results)
