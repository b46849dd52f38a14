"""The tables of any results file: each task of `echox eval` has its own, and runs of one task stand side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from echox.eval import stats
from echox.eval.tables import Items, Table, arms_of, errors_note, pair, percent, pooled_rate, speech_table, summarise
from echox.eval.tasks.hearing_tables import hearing_tables
from echox.eval.tasks.joins import joins_tables
from echox.eval.tasks.latency import latency_table
from echox.eval.tasks.reference_voice import reference_table
from echox.eval.tasks.retention import retention_table

Run = tuple[dict[str, Any], list[dict[str, Any]]]


def tables_of(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the tables of one run, by the task that its settings name; a task without tables has none."""
    make = TABLES.get(str(settings.get("task", "qa")))
    return [] if make is None else make(settings, items)


def all_tables(runs: Sequence[Run]) -> list[Table]:
    """Return the tables of several runs, titled by their models, after the one that sets them side by side."""
    found = [] if len(qa_runs(runs)) < 2 else [side_by_side(runs)]
    for settings, items in runs:
        name = title_of(settings)
        found += [
            Table(f"{name}: {table.title}", table.head, table.rows, table.note) for table in tables_of(settings, items)
        ]
    return found


def title_of(settings: dict[str, Any]) -> str:
    """Return what a run is called: its model, or its task where it has none."""
    return str(settings.get("model") or settings.get("task") or "run")


def qa_runs(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that answered questions."""
    return [run for run in runs if run[0].get("task", "qa") == "qa"]


def side_by_side(runs: Sequence[Run]) -> Table:
    """Return accuracy by arm and run, and each later run minus the first one over the questions that both have."""
    own = qa_runs(runs)
    names = [f"{chr(ord('A') + place)}: {title_of(settings)}" for place, (settings, _) in enumerate(own)]
    arms = arms_of([item for _, items in own for item in items])
    rows = []
    for arm in arms:
        scores = [np.array([float(item["score"]) for item in items if item["arm"] == arm]) for _, items in own]
        cells = [f"{percent(stats.mean(each))}, n={len(each)}" if len(each) else "-" for each in scores]
        rows.append((arm, *cells, *(_minus_first(own[0], other, arm) for other in own[1:])))
    head = ("arm", *(f"{name}, %" for name in names), *(f"{name[0]} - A, points" for name in names[1:]))
    rules = {(run[0].get("scorer"), run[0].get("normaliser"), run[0].get("judge")) for run in own}
    named = [f"scorer {a or '?'} (normaliser: {b or '?'}), judge {c or 'none'}" for a, b, c in sorted(rules, key=str)]
    note = (
        f"{'; '.join(named)}. Differences: the questions with the same id, text and answers in both, paired bootstrap."
    )
    note += "" if len(rules) == 1 else " The runs were scored by different rules or judges: do not compare them."
    return Table("Side by side", head, tuple(rows), note)


def _minus_first(first: Run, other: Run, arm: str) -> str:
    """Return the paired difference of one arm between two runs, or a dash when they share no question."""
    asked = {item["id"]: (item["question"], tuple(item["answers"])) for item in first[1] if item["arm"] == arm}
    left = [{**item, "arm": "first"} for item in first[1] if item["arm"] == arm]
    right = [
        {**item, "arm": "other"}
        for item in other[1]
        if item["arm"] == arm and asked.get(item["id"]) == (item["question"], tuple(item["answers"]))
    ]
    scores, base = pair([*left, *right], "other", "first")
    return f"{percent(stats.difference(scores, base))}, n={len(scores)}" if len(scores) else "-"


def qa_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the tables of a question answering run, what is kept of the typed answers first where it is on a spoken set."""
    kept = [retention_table(settings, items)] if settings.get("retention") else []
    return [*(table for table in kept if table.rows), *summarise(settings, items)]


def asr_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the word and character error rates of a recogniser."""
    rates = [pooled_rate(items, f"{what}_edits", f"{what}s") for what in ("word", "character")]
    failed = sum(bool(item["error"]) for item in items)
    row = (str(settings["model"]), str(settings["questions"]), str(len(items)), *rates, str(failed))
    note = (
        f"Recogniser {settings['model']}; {settings['wer_normaliser']}; a file that cannot be read counts as deleted."
    )
    return [Table("Recognition", ("recogniser", "set", "n", "WER %", "CER %", "failed"), (row,), note)]


def speech_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return opinion scores and speaker similarity, then word errors and signal checks, by run and arm."""
    judge = f"Judge {settings.get('judge') or 'none'}"
    errors = speech_table(items, f"{judge}. {errors_note(settings)}")
    found = [_scores(items, judge), errors, reference_table(items)]
    return [found[0], *(table for table in found[1:] if table.rows)]


def _scores(items: Items, judge: str) -> Table:
    """Return the mean of every measure by arm, with its interval, over the answers that have it."""
    names = list(dict.fromkeys(name for item in items for name in item["measures"]))
    rows = []
    for arm in arms_of(items):
        own = [item["measures"] for item in items if item["arm"] == arm]
        cells = []
        for name in names:
            found = stats.mean(np.array([measures[name] for measures in own if name in measures]))
            cells.append(f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]" if found.n else "-")
        rows.append((arm, str(sum(bool(measures) for measures in own)), *cells))
    note = (
        "Means over answers with sound, 95 % bootstrap; no transcript is used. DNSMOS hardly separates voices; read it "
    )
    note += f"beside DistillMOS and WER. {judge}."
    return Table("Speech quality", ("run and arm", "n", *names), tuple(rows), note)


def latency_tables(settings: dict[str, Any], items: Items, memory: dict[str, float] | None = None) -> list[Table]:
    """Return the times of a latency run; failed answers are counted in the note and left out of the percentiles."""
    done = [item for item in items if not item["error"]]
    where = f"{settings.get('timed_on', '?')}, device {settings.get('device', '?')}"
    note = f"{title_of(settings)} on {where}; one answer at a time; {len(items) - len(done)} failed. "
    note += (
        "A player starts at the first chunk; stalled and delay are what a listener would notice. No scorer, no judge."
    )
    return [latency_table(done, memory or {}, note)]


def gap_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the tables that a gap.json holds."""
    return [
        Table(table["title"], tuple(table["head"]), tuple(map(tuple, table["rows"])), table["note"])
        for table in settings.get("tables", [])
    ]


TABLES: dict[str, Callable[[dict[str, Any], Items], list[Table]]] = {
    "qa": qa_tables,
    "asr": asr_tables,
    "hearing": hearing_tables,
    "speech": speech_tables,
    "joins": joins_tables,
    "latency": latency_tables,
    "gap": gap_tables,
}
