"""What every table of the harness is made of: titled rows of strings with a note, cells with intervals, arms in their order.

Every note names the scorer, normaliser and judge. Knows nothing about models or HTML.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from echox.eval import stats
from echox.eval.stats import Interval

FORM = "t2t-form"
ORDER = ("t2t-off", "t2t", FORM, "s2t", "s2s", "teacher", "cascade")

Items = Sequence[dict[str, Any]]
_SEEDED = re.compile(r"-\d+( \w+)?$")


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


def by_arm(items: Items) -> dict[str, list[dict[str, Any]]]:
    """Return the items of each arm, arms in the order in which they come."""
    found: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        found.setdefault(item["arm"], []).append(item)
    return found


def shared(first: Items, second: Items) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the items of two arms or runs that answer one question, in the order of the first."""
    others = {item["id"]: item for item in second}
    return [(item, others[item["id"]]) for item in first if item["id"] in others]


def pair(items: Items, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of two arms on the questions that both hold, in the order of their ids."""
    arms = by_arm(sorted(items, key=lambda item: item["id"]))
    both = [(one["score"], other["score"]) for one, other in shared(arms.get(first, []), arms.get(second, []))]
    scores_2N = np.array(both, float).reshape(-1, 2).T
    return scores_2N[0], scores_2N[1]


def arms_of(items: Items) -> dict[str, list[dict[str, Any]]]:
    """Return the items of each arm, arms in reading order, unknown ones last."""
    found = by_arm(items)
    return {arm: found[arm] for arm in (*ORDER, *sorted(found.keys() - set(ORDER))) if arm in found}


def failures(items: Items) -> int:
    """Return how many items failed."""
    return sum(bool(item["error"]) for item in items)


def arm_table(
    title: str,
    arms: Mapping[str, Items],
    cells: Callable[[Items], Mapping[str, str]],
    note: str = "",
    first: str = "arm",
) -> Table:
    """Return a table of a row an arm: its name under `first`, how many items it has, and the cells of them by column."""
    found = {arm: {"n": str(len(own)), **cells(own)} for arm, own in arms.items()}
    head = tuple(next(iter(found.values()), {}))
    return Table(title, (first, *head), tuple((arm, *own.values()) for arm, own in found.items()), note)


def pooled_rate(items: Items, edits: str, lengths: str) -> str:
    """Return all edits over all lengths of the items as percent, with its interval."""
    return percent(stats.ratio([item[edits] for item in items], [item[lengths] for item in items]))


def rates_between(both: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Interval:
    """Return how many more word errors the first of each two has, as percent of the words; NaN without words."""
    counts_N3 = np.array([(one["word_edits"], other["word_edits"], other["words"]) for one, other in both], float)
    counts_N3 = counts_N3.reshape(-1, 3)
    return stats.paired_bootstrap(counts_N3, lambda m: stats.divided(100 * (m[..., 0] - m[..., 1]), m[..., 2]))


def percent(found: Interval) -> str:
    """Return an interval of shares as percent, a dash where there is none."""
    return shown(found, ".1f", 100)


def decimals(found: Interval, signed: bool = False) -> str:
    """Return an interval with two decimals, and their signs where it is of a difference; a dash where there is none."""
    return shown(found, "+.2f" if signed else ".2f")


def shown(found: Interval, form: str, scale: int = 1) -> str:
    """Return an interval in a format, its numbers times `scale`; a dash where there is none."""
    value, low, high = (f"{scale * number:{form}}" for number in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]" if np.isfinite(found.value) else "-"


def over_seeds(numbers: Mapping[str, float], note: str) -> list[Table]:
    """Return mean, least and most of numbers whose names differ in a seed alone, as `arm-0 st` and `arm-1 st`; no table without."""
    groups: dict[str, list[float]] = {}
    for name, number in numbers.items():
        if _SEEDED.search(name):
            groups.setdefault(_SEEDED.sub(r"\1", name), []).append(number)
    if all(len(some) < 2 for some in groups.values()):
        return []
    rows = []
    for name, some in groups.items():
        rows.append((name, str(len(some)), *(f"{one:.2f}" for one in (np.mean(some), min(some), max(some)))))
    return [Table("Over seeds", ("arm", "seeds", "mean", "least", "most"), tuple(rows), note)]


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
