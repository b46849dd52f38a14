"""Counts of all frequent n-grams of a unit corpus, exactly; it knows nothing about words or probabilities.

An n-gram is frequent only if the two (n-1)-grams inside it are, so every level works on the ranks that the level
before gave to its survivors, and one sort a level counts it:

    units    4  7  4  7  9          rank of the frequent n-gram that starts here, -1 for a rare one
    level 1  4  7  4  7  9
    level 2  0  1  0  2  -          key = rank[i] of level 1 * k + units[i + 1], then ranked again

Occurrences may overlap and never cross the end of a sequence.  Spec A2.7, point 2.
"""

from collections.abc import Sequence

import numpy as np

from echox.errors import InputError
from echox.units.sequence import as_ids


def count_ngrams(sequences: Sequence[np.ndarray], max_length: int, min_count: int) -> dict[tuple[int, ...], int]:
    """Return {n-gram: occurrences} for lengths 1 to `max_length`, at least `min_count` each (twin: benchmarks/slow_units.py)."""
    flat, left = flatten(sequences)
    if not len(flat):
        return {}
    k = int(flat.max()) + 1
    found: dict[tuple[int, ...], int] = {}
    ranks, starts = np.zeros(len(flat), np.int64), np.arange(len(flat))
    for length in range(1, max_length + 1):
        if length > 1:
            starts = starts[(left[starts] >= length) & (ranks[starts] >= 0)]
            starts = starts[ranks[starts + 1] >= 0]
        if not len(starts):
            break
        keys = ranks[starts] * k + flat[starts + length - 1]
        _, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        frequent = counts >= min_count
        dense = np.where(frequent, np.cumsum(frequent) - 1, -1)
        ranks = np.full(len(flat), -1)
        ranks[starts] = dense[inverse]
        grams = flat[starts[first[frequent]][:, None] + np.arange(length)].tolist()
        found.update(zip(map(tuple, grams), counts[frequent].tolist(), strict=True))
    return found


def flatten(sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Join sequences; return their ids [N] and, at every position, how many ids its sequence still has [N]."""
    checked = [as_ids(sequence, "units") for sequence in sequences]
    if not checked:
        raise InputError("no unit sequences were given: extract units first.")
    left = [np.arange(len(ids), 0, -1) for ids in checked]
    return np.concatenate(checked), np.concatenate(left)
