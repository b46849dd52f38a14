"""Batches of similar length, in an order that is a function of the seed alone; it knows no record format.

Any step can be asked for directly, so a run that resumes sees exactly the batches it would have seen.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from echox.errors import InputError

Row = TypeVar("Row")


def groups(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    """Return consecutive groups of `size` rows, the last one perhaps shorter."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def some_at_a_time(rows: Sequence[Any], costs: Sequence[int], max_cost: int) -> list[list[Any]]:
    """Return all rows, from the cheapest on, in lists that cost at most `max_cost` each: the longest row times their number."""
    return [[rows[item] for item in run] for run in packed(np.argsort(costs, kind="stable").tolist(), costs, max_cost)]


def in_runs(costs: Sequence[int], max_cost: int, call: Callable[[list[int]], Iterable[Any]]) -> list[Any]:
    """Return what `call` makes of each item, so many alike at a time as `max_cost` allows, in the order of the items."""
    runs = some_at_a_time(range(len(costs)), costs, max_cost)
    found = {item: one for run in runs for item, one in zip(run, call(run), strict=True)}
    return [found[item] for item in range(len(costs))]


def packed(order: Sequence[int], costs: Sequence[int] | np.ndarray, max_cost: int) -> list[list[int]]:
    """Return items in runs that cost at most `max_cost` each, in their order; an item that costs more is alone."""
    runs: list[list[int]] = []
    longest = 0
    for item in order:
        longest = max(longest, int(costs[item]))
        if not runs or longest * (len(runs[-1]) + 1) > max_cost:
            runs.append([])
            longest = int(costs[item])
        runs[-1].append(item)
    return runs


class BucketedBatches:
    """An endless stream: every epoch each item once, neighbours in length together, at most `max_cost` a batch.

    `costs` are padded lengths of the items (frames, tokens); a batch costs its longest item times its size.
    """

    def __init__(
        self,
        costs: Sequence[int],
        max_cost: int,
        collate: Callable[[list[int], np.random.Generator], Any],
        seed: int = 0,
    ) -> None:
        if not len(costs):
            raise InputError("there is nothing to train on: the manifest holds no usable record.")
        self.costs, self.max_cost, self.collate, self.seed = np.asarray(costs), max_cost, collate, seed
        self._epochs: dict[int, list[list[int]]] = {}
        self._firsts = [0]  # first step of every epoch known so far

    def epoch(self, number: int) -> list[list[int]]:
        """Return the batches, as lists of item numbers, of one epoch."""
        if number not in self._epochs:
            rng = np.random.default_rng((self.seed, number))
            noise = rng.uniform(0.9, 1.1, len(self.costs))  # other neighbours every epoch
            order = np.argsort(self.costs * noise, kind="stable")
            batches = packed(order.tolist(), self.costs, self.max_cost)
            self._epochs = {number: [batches[i] for i in rng.permutation(len(batches))]}
        return self._epochs[number]

    def epoch_of(self, step: int) -> int:
        """Return the epoch that `step` belongs to."""
        while self._firsts[-1] <= step:
            self._firsts.append(self._firsts[-1] + len(self.epoch(len(self._firsts) - 1)))
        return int(np.searchsorted(self._firsts, step, side="right")) - 1

    def __getitem__(self, step: int) -> Any:
        number = self.epoch_of(step)
        items = self.epoch(number)[step - self._firsts[number]]
        return self.collate(items, np.random.default_rng((self.seed, step, 1)))
