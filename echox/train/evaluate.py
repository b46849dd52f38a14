"""Losses of held-out examples, a few at a time; it knows no stage."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from echox.data.batching import runs_under
from echox.objectives.loss import Loss


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Hold `model` as it is in use, without gradients, and let it train on afterwards if it did."""
    training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(training)


def mean_loss(model: nn.Module, batches: Iterable[Any], loss: Callable[[Any], Loss]) -> dict[str, float]:
    """Return the numbers of `loss` over all batches, each weighed by what it is a mean over; `model` is still meanwhile."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    with still(model):
        for batch in batches:
            found = loss(batch)
            for name, value in found.numbers().items():
                sums[name] = sums.get(name, 0.0) + value * found.count
                counts[name] = counts.get(name, 0) + found.count
    return {name: total / max(counts[name], 1) for name, total in sums.items()}


def some_at_a_time(rows: Sequence[Any], costs: Sequence[int], max_cost: int) -> list[list[Any]]:
    """Return all rows in lists that fit into `max_cost`, alike in length."""
    return [[rows[item] for item in run] for run in runs_under(costs, max_cost)]
