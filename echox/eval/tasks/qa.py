"""`echox eval qa` from its options to its results: check everything, load, run with a progress bar.

How each arm answers stands in arms.py, what is printed of it in qa_tables.py.
"""

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import progress

from echox.errors import ConfigError, InputError
from echox.eval.judges import choose_judges, find_judge, warn_if_own_ear
from echox.eval.model_under_test import ModelChoice, load_subject, machine
from echox.eval.probes import can_turn_off
from echox.eval.questions import Item, fingerprint, take
from echox.eval.results import Results, read_results, results_path
from echox.eval.scorers.answers import Scorer
from echox.eval.scorers.word_errors import NORMALISER
from echox.eval.tasks.arms import SPOKEN_ANSWER, QaRun, choose_arms, run_arms
from echox.eval.tasks.qa_tables import TYPED_ARMS

Tell = Callable[[str], None]
NOT_ON_A_SERVER = ("teacher", "t2t-off")


@dataclass(frozen=True)
class QaOptions:
    """The options of one `echox eval qa` besides model, questions and scorers; see `echox eval qa --help`."""

    arms: str
    judge: str
    judge_window: int
    recogniser: str
    out: Path
    limit: int | None
    shard: str
    batch: int
    seed: int
    max_seconds: float | None
    retry_failed: bool
    retention: dict[str, Any] | None
    typed_from: Path | None


def run_qa(
    questions: Sequence[Item],
    source: str,
    choice: ModelChoice,
    scorers: Sequence[Scorer],
    options: QaOptions,
    tell: Tell,
) -> Path:
    """Run what is still to do of one evaluation and return its results file.

    Raises any EchoxError of its inputs before a model is loaded.
    """
    wanted, started = _possible_arms(options.arms, choice, tell), time.perf_counter()
    todo, spoken = take(questions, options.limit, options.shard), bool(SPOKEN_ANSWER & set(wanted))
    device = "cuda" if choice.device == "cuda" else "cpu"
    server = load_subject(choice) if choice.endpoint else None  # it is asked once before judges are loaded
    judge, recogniser = choose_judges(
        options.judge, options.recogniser, spoken, "cascade" in wanted, options.judge_window, device
    )
    subject, name = server or load_subject(choice)
    warn_if_own_ear(choice.folder, find_judge(options.judge) if judge else None, tell)
    arms = choose_arms(",".join(wanted), subject_can_turn_off=can_turn_off(subject))
    settings = {"task": "qa", "model": name, "questions": source, "questions_mark": fingerprint(questions)}
    settings |= {"count": len(questions), "scorer": scorers[0].name, "scorers": [scorer.name for scorer in scorers]}
    settings |= {"normaliser": scorers[0].normaliser, "judge": judge.name if judge else None}
    settings |= {"recogniser": recogniser.name if recogniser else None, "wer_normaliser": NORMALISER}
    settings |= {name: getattr(options, name) for name in ("seed", "max_seconds", "batch", "limit", "shard")}
    settings |= {"started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    settings |= {"system": choice.system} if choice.system else {}
    settings |= {"arms": list(arms), "machine": machine(), "load_seconds": round(time.perf_counter() - started, 2)}
    settings |= {"retention": options.retention} if options.retention else {}
    asked = {"seed": options.seed} | ({"max_seconds": options.max_seconds} if options.max_seconds is not None else {})
    with Results(results_path(options.out, options.shard), settings, options.retry_failed) as results:
        run = QaRun(subject, judge, scorers, options.out, recogniser, subject, asked, options.batch)
        run.places = {item.id: place for place, item in enumerate(questions)}
        if options.typed_from is not None:
            copy_typed(options.typed_from, todo, results)
        _run_with_bar(run, todo, arms, results)
    return results.path


def copy_typed(path: Path, questions: Sequence[Item], results: Results) -> None:
    """Put the typed answers of another run of the same model into `results`, since they do not depend on recordings.

    Raises ConfigError when that run differs in what typed answers depend on.
    """
    settings, items = read_results(path)
    for name in ("model", "scorers", "seed", "batch", "system"):
        if settings.get(name) != results.settings.get(name):
            here, there = results.settings.get(name), settings.get(name)
            raise ConfigError(f"--typed-from {path} was made with {name} {there!r}, not {here!r}: leave it out.")
    wanted = {item.id: (item.question, list(item.answers)) for item in questions}
    for item in items:
        same = wanted.get(item["id"]) == (item["question"], item["answers"])
        if same and item["arm"] in TYPED_ARMS and (item["arm"], item["id"]) not in results.done:
            results.append({name: value for name, value in item.items() if name != "type"})


def refuse_all_failed(path: Path) -> None:
    """Raise InputError when a results file holds no single answer: every item of it failed."""
    _, items = read_results(path)
    if items and all(item.get("error") for item in items):
        raise InputError(f"all {len(items)} items of {path} failed, the last with: {items[-1]['error'].rstrip('.')}.")


def _possible_arms(names: str, choice: ModelChoice, tell: Tell) -> tuple[str, ...]:
    """Return the arms to run, telling which ones a server cannot have; ConfigError when none is left."""
    wanted = choose_arms(names, subject_can_turn_off=False)
    without = [arm for arm in wanted if arm in NOT_ON_A_SERVER] if choice.endpoint else []
    left = tuple(arm for arm in wanted if arm not in without)
    reason = "a server has neither a teacher nor adapters to turn off"
    if not left:
        raise ConfigError(f"{reason}: choose other arms than {', '.join(without)}.")
    if without:
        tell(f"{reason}: left out {', '.join(without)}")
    return left


def _run_with_bar(run: QaRun, questions: Sequence[Item], arms: Sequence[str], results: Results) -> None:
    total = len(questions) * len(arms)
    left = sum((arm, item.id) not in results.done for arm in arms for item in questions)
    text = progress.TextColumn("{task.description}")
    times = (progress.TimeElapsedColumn(), progress.TimeRemainingColumn())
    with progress.Progress(text, progress.BarColumn(), progress.MofNCompleteColumn(), *times) as bar:
        task = bar.add_task(", ".join(arms), total=total, completed=total - left)
        run.tell = lambda count: bar.advance(task, count)
        run_arms(run, questions, arms, results)
