"""Losses of held-out examples, a few at a time; it knows no stage."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from echox.objectives.loss import Loss
from echox.train.ranks import Ranks


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Put `model` into evaluation mode without gradients, and back into training mode afterwards if it was."""
    training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(training)


def mean_loss(
    model: nn.Module, batches: Iterable[Any], objective: Callable[[Any], Loss], *step: int
) -> dict[str, float]:
    """Return the weighted means of the numbers of `objective`, of what `model` makes of each batch in evaluation mode.

    A model that goes by steps is given one.
    """
    sums: dict[str, tuple[float, float]] = {}
    with still(model):
        for batch in batches:
            objective(model(batch, *step)).add_to(sums)
    return Ranks().merge(sums)
