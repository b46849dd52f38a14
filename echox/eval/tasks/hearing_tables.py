"""The tables of `echox eval hearing`: word errors by condition beside a recogniser's, and words heard in no speech."""

from typing import Any

import numpy as np

from echox.eval import stats
from echox.eval.tables import Items, Table, percent

NOTHING = "nothing said: "
"""Arms of sounds without speech begin with this."""


def hearing_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the word errors over speech and the share of sounds without speech in which words were heard."""
    arms = list(dict.fromkeys(item["arm"] for item in items))
    by_arm = {arm: [item for item in items if item["arm"] == arm] for arm in arms}
    note = f"{settings['model']} beside {settings['reference']}. "
    labels = f"Clips without transcripts: the words of {settings['labels']}. " if settings.get("labels") else ""
    how = f"{settings['wer_normaliser']}; pooled over utterances, what failed counts as deleted; 95 % paired bootstrap."
    spoken = tuple(_errors(arm, own) for arm, own in by_arm.items() if not arm.startswith(NOTHING))
    head = ("recordings", "n", "words", "model WER %", "recogniser WER %", "model / recogniser", "failed")
    quiet = {arm.removeprefix(NOTHING): own for arm, own in by_arm.items() if arm.startswith(NOTHING)}
    quiet |= {"all": [item for own in quiet.values() for item in own]} if len(quiet) > 1 else {}
    heard = tuple((kind, str(len(own)), _share(own, "heard"), _share(own, "recognised")) for kind, own in quiet.items())
    columns = ("sound", "n", "model hears words %", "recogniser hears words %")
    tables = [
        Table("Hearing", head, spoken, note + labels + how),
        Table("Nothing said", columns, heard, f"{note}Sounds made from a seed; words after the same normaliser."),
    ]
    return [table for table in tables if table.rows]


def _errors(arm: str, items: Items) -> tuple[str, ...]:
    words, own, other = (
        np.array([item[name] for item in items], float) for name in ("words", "word_edits", "recognised_edits")
    )
    found = stats.ratio(own, other)
    times = f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]" if np.isfinite(found.value) else "-"
    rates = (percent(stats.rate(edits, words)) for edits in (own, other))
    return (arm, str(len(items)), str(int(words.sum())), *rates, times, str(sum(bool(item["error"]) for item in items)))


def _share(items: Items, name: str) -> str:
    return percent(stats.mean([float(item[f"{name}_words"] > 0) for item in items]))
