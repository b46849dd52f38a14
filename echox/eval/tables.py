"""What every table of the harness is made of: titled rows of strings with a note, cells with intervals, arms in their order.

Every note names the scorer, normaliser and judge. Knows nothing about models or HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from echox.eval import stats
from echox.eval.stats import Interval

ORDER = ("t2t-off", "t2t", "s2t", "s2s", "teacher", "cascade")

Items = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Table:
    """A titled table of strings with a note under it; `markdown` prints it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [f"### {self.title}", "", _row(self.head), _row(tuple("---" for _ in self.head))]
        lines += [_row(row) for row in self.rows]
        return "\n".join([*lines, "", self.note, ""] if self.note else [*lines, ""])


def names_note(settings: dict[str, Any]) -> str:
    """Return the scorer, its normaliser and the judge of a run, for the note of every table."""
    scorer = f"Scorer {settings.get('scorer', '?')} (normaliser: {settings.get('normaliser', '?')})"
    return f"{scorer}; judge {settings.get('judge') or 'none'}"


def pair(items: Items, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of two arms on the questions that both hold, in one order."""
    by_id = [{item["id"]: float(item["score"]) for item in items if item["arm"] == arm} for arm in (first, second)]
    shared = sorted(by_id[0].keys() & by_id[1].keys())
    return np.array([by_id[0][id] for id in shared]), np.array([by_id[1][id] for id in shared])


def arms_of(items: Items) -> list[str]:
    """Return the arms there are, in reading order, unknown ones last."""
    found = {item["arm"] for item in items}
    return [arm for arm in ORDER if arm in found] + sorted(found - set(ORDER))


def pooled_rate(items: Items, edits: str, lengths: str) -> str:
    """Return all edits over all lengths of the items as percent, with its interval."""
    return percent(stats.rate([item[edits] for item in items], [item[lengths] for item in items]))


def percent(found: Interval) -> str:
    """Return an interval of shares as percent, a dash where there is none."""
    if not np.isfinite(found.value):
        return "-"
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def decimals(found: Interval, signed: bool = False) -> str:
    """Return an interval with two decimals, and their signs where it is of a difference; a dash where there is none."""
    form = "+.2f" if signed else ".2f"
    if not np.isfinite(found.value):
        return "-"
    return f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
