"""The tables of `echox eval qa`: accuracy by arm and kind, the gaps between arms, and what is kept of the typed answers.

Nothing is dropped: a failed item counts as wrong, and the shares of failed, empty and cut answers stand beside the accuracy.

Kept: what spoken questions keep of what the text model knows (T2T: adapters off, asked in writing), the measure with power for
small models; docs/evaluation.md says what its columns are. A spoken set holds nearly all right questions of its pool but few of
the wrong ones, so each counts for as many of its kind as it stands for: net = (kept + gains of all wrong ones) / right ones.
Resampling keeps the kinds apart.
"""

import re
from collections import Counter
from typing import Any

import numpy as np

from echox.eval import stats
from echox.eval.tables import FORM, Items, Table, arms_of, by_arm, names_note, pair, percent, shared
from echox.eval.tasks.spoken_answers import errors_note, speech_table

GAPS = (
    ("s2t - t2t", "s2t", "t2t", "what hearing costs"),
    ("s2t - t2t-form", "s2t", FORM, "what hearing costs beside form"),
    ("t2t-form - t2t", FORM, "t2t", "what a capital and a question mark bring"),
    ("s2s - s2t", "s2s", "s2t", "what speaking costs"),
    ("t2t - t2t-off", "t2t", "t2t-off", "what the adapters cost on typed questions"),
    ("teacher - s2t", "teacher", "s2t", "what T2C, vocoder and judge cost"),
    ("s2s - teacher", "s2s", "teacher", "what the echo decoder costs against its teacher"),
    ("s2s - cascade", "s2s", "cascade", "against recogniser, LLM and the same voice"),
    ("s2s / t2t", "s2s", "t2t", "what is kept of the typed answer"),
)
MOST_KINDS = 8
TYPED_ARMS = ("t2t-off", "t2t")  # the first one there is is called T2T


def qa_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the tables of one run, accuracy, gaps and speech, and first what is kept of the typed answers on a spoken set."""
    kept = [retention_table(settings, items)] if settings.get("retention") else []
    named = names_note(settings)
    note = f"{named}; intervals: 95 %, paired bootstrap, {stats.RESAMPLES} resamples over questions, "
    note += f"seed {stats.SEED}. Failed items count as wrong."
    tables = [*kept, accuracy_table(items, note), gap_table(items, note)]
    tables.append(speech_table(items, f"{named}. {errors_note(settings)}"))
    return [table for table in tables if table.rows]


def accuracy_table(items: Items, note: str) -> Table:
    """Return accuracy by arm, over everything and by kind of question, with the shares that explain it."""
    rows = []
    for arm, own in arms_of(items).items():
        for kind in ("all", *kinds_of(items)):
            part = [item for item in own if kind in ("all", kind_of(item))]
            accuracy = percent(stats.mean([item["score"] for item in part]))
            shares = [[float(item.get("text_score", item["score"])) for item in part]]
            shares += [[bool(item.get(name)) for item in part] for name in ("empty", "cut", "error")]
            cells = (f"{100 * np.mean(share):.1f}" for share in shares) if part else ()
            rows += [(arm, kind, str(len(part)), accuracy, *cells)] if part else []
    head = ("arm", "questions", "n", "accuracy %", "own text %", "empty %", "cut %", "failed %")
    return Table("Accuracy", head, tuple(rows), note)


def gap_table(items: Items, note: str) -> Table:
    """Return the differences and the ratio between arms, over the questions that both have."""
    rows = []
    for name, first, second, meaning in GAPS:
        scores, others = pair(items, first, second)
        form = stats.ratio if "/" in name else stats.difference
        rows += [(name, str(len(scores)), percent(form(scores, others)), meaning)] if len(scores) else []
    return Table("The gap", ("gap", "n", "value (points, or % for the ratio)", "what it is"), tuple(rows), note)


def kind_of(item: dict[str, Any]) -> str:
    """Return an item's kind: its own, or the letters that its id begins with."""
    found = re.match(r"[A-Za-z]+", item["id"])
    return item.get("kind") or (found.group(0) if found else "")


def kinds_of(items: Items) -> list[str]:
    """Return the kinds of question when there are between two and eight of them, else none."""
    found = Counter(kind_of(item) for item in items if kind_of(item))
    return sorted(found) if 2 <= len(found) <= MOST_KINDS else []


def worst_first(items: Items) -> list[dict[str, Any]]:
    """Return items worst first: failed, empty, wrong although the own text was right, wrong, then by word errors."""

    def badness(item: dict[str, Any]) -> tuple[float, ...]:
        lost = item.get("text_score", 0.0) > item["score"]
        share = item.get("word_edits", 0) / max(item.get("words", 0), 1)
        return (-bool(item.get("error")), -bool(item.get("empty")), -lost, item["score"], -share)

    return sorted(items, key=badness)


def retention_table(settings: dict[str, Any], items: Items) -> Table:
    """Return what every arm keeps of T2T, and the later ones of T2T in form, with intervals, over the questions both have answered.

    `settings["retention"]` is {"pool": {kind: questions}}. No rows where no typed arm was run.
    """
    pool = settings["retention"]["pool"]
    arms = arms_of(items)
    base = next((arm for arm in TYPED_ARMS if arm in arms), None)
    rows = [_kept_row(items, arm, base, pool) for arm in arms if base and arm != base]
    if base and FORM in arms:
        rows += [_kept_row(items, arm, FORM, pool) for arm in arms if arm not in (*TYPED_ARMS, FORM)]
    note = f"{names_note(settings)}; T2T: {base}. Set {settings.get('questions', '?')}: of a pool of "
    note += f"{sum(pool.values())} questions, {', '.join(f'{count} {kind}' for kind, count in pool.items())}. "
    note += "Net: accuracy over the pool as a share of T2T's, the wrong ones of the set standing for all of them. "
    note += "95 % bootstrap within each kind."
    head = ("arm", "n", "right by T2T", "kept %", "wrong by T2T", "gained %", "same text %", "net of gains %")
    return Table("Retention", head, tuple(rows), note)


def _kept_row(items: Items, arm: str, base: str, pool: dict[str, int]) -> tuple[str, ...]:
    arms, name = by_arm(items), f"{arm} / {FORM}" if base == FORM else arm
    both = [(own, typed) for typed, own in shared(arms[base], arms[arm])]
    scores_N2 = np.array([[own["score"], typed["score"]] for own, typed in both], float).reshape(-1, 2)
    same = [own["text"].strip() == typed["text"].strip() for own, typed in both]
    right = scores_N2[:, 1] > 0
    kinds = np.array([typed.get("kind", "") for _, typed in both])
    strata = [(float(count), scores_N2[kinds == kind]) for kind, count in pool.items() if (kinds == kind).any()]
    shares = [stats.mean(scores_N2[right, 0]), stats.mean(scores_N2[~right, 0]), stats.mean(np.array(same, float))]
    kept, gained, alike = map(percent, shares)
    net = percent(stats.stratified_ratio(strata)) if sum(count > 0 for count in pool.values()) == len(strata) else "-"
    return (name, str(len(both)), str(right.sum()), kept, str((~right).sum()), gained, alike, net)
