"""The tables of any results files: each task of `echox eval` has its own, and runs of one task stand side by side."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from echox.eval import stats
from echox.eval.results import Run, qa_runs, titles_of
from echox.eval.tables import Items, Table, arms_of, by_arm, percent, shared
from echox.eval.tasks.asr import asr_tables
from echox.eval.tasks.gap import gap_tables
from echox.eval.tasks.hearing import hearing_tables
from echox.eval.tasks.joins import joins_tables
from echox.eval.tasks.ladder import ladder_tables
from echox.eval.tasks.latency import latency_tables
from echox.eval.tasks.load import load_tables
from echox.eval.tasks.qa_tables import qa_tables
from echox.eval.tasks.speech import speech_tables
from echox.eval.tasks.translation import tasks_tables, translation_tables

TABLES: dict[str, Callable[[dict[str, Any], Items], list[Table]]] = {
    "qa": qa_tables,
    "asr": asr_tables,
    "hearing": hearing_tables,
    "speech": speech_tables,
    "joins": joins_tables,
    "latency": latency_tables,
    "load": load_tables,
    "ladder": ladder_tables,
    "gap": gap_tables,
    "translation": translation_tables,
    "tasks": tasks_tables,
}


def tables_of(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the tables of one run, by the task that its settings name; a task without tables has none."""
    make = TABLES.get(str(settings.get("task", "qa")))
    return [] if make is None else make(settings, items)


def all_tables(runs: Sequence[Run]) -> list[Table]:
    """Return the tables of several runs, titled by their models, after the one that sets them side by side."""
    found = [] if len(qa_runs(runs)) < 2 else [side_by_side(runs)]
    for title, run in zip(titles_of(runs), runs, strict=True):
        found += [replace(one, title=f"{title}: {one.title}") for one in tables_of(*run)]
    return found


def side_by_side(runs: Sequence[Run]) -> Table:
    """Return accuracy by arm and run, and each later run minus the first one over the questions that both have."""
    own = qa_runs(runs)
    names = [f"{chr(ord('A') + place)}: {title}" for place, title in enumerate(titles_of(own))]
    rows = []
    for arm in arms_of([item for _, items in own for item in items]):
        answers = [by_arm(items).get(arm, []) for _, items in own]
        scores = [[item["score"] for item in each] for each in answers]
        cells = [f"{percent(stats.mean(each))}, n={len(each)}" if each else "-" for each in scores]
        rows.append((arm, *cells, *(_minus(other, answers[0]) for other in answers[1:])))
    head = ("arm", *(f"{name}, %" for name in names), *(f"{name[0]} - A, points" for name in names[1:]))
    rules = {(run[0].get("scorer"), run[0].get("normaliser"), run[0].get("judge")) for run in own}
    named = [f"scorer {a or '?'} (normaliser: {b or '?'}), judge {c or 'none'}" for a, b, c in sorted(rules, key=str)]
    note = f"{'; '.join(named)}. "
    note += "Differences: the questions with the same id, text and answers in both, paired bootstrap."
    note += "" if len(rules) == 1 else " The runs were scored by different rules or judges: do not compare them."
    return Table("Side by side", head, tuple(rows), note)


def _minus(other: Items, first: Items) -> str:
    """Return the paired difference of one arm between two runs, or a dash when they share no question."""
    both = shared(sorted(other, key=lambda item: item["id"]), first)
    same = [(a, b) for a, b in both if (a["question"], a["answers"]) == (b["question"], b["answers"])]
    scores, base = ([pair[side]["score"] for pair in same] for side in (0, 1))
    return f"{percent(stats.difference(scores, base))}, n={len(scores)}" if scores else "-"
