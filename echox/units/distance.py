"""How far two sequences are apart."""

from collections.abc import Iterable, Sequence


def edit_distance(a: Sequence[object], b: Sequence[object]) -> int:
    """Return the Levenshtein distance of two sequences."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def error_rate(pairs: Iterable[tuple[Sequence[object], Sequence[object]]]) -> float:
    """Return edits per wanted item over all pairs of what was found and what was wanted; 0 where nothing was."""
    errors = total = 0
    for found, wanted in pairs:
        errors += edit_distance(found, wanted)
        total += len(wanted)
    return errors / max(total, 1)
