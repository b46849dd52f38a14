"""Speech normaliser: the encoder states of many voices in, the reference voice's reduced units of the same texts out, by CTC.

Sides are those of parallel speech (data/pairs.py): source corpora in other voices, one target corpus in the reference voice, by id.
Measured: how far the units of other voices are from the reference's, as k-means gives them and normalised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import PositiveInt
from torch import nn

from echox.config.load import Settings, known
from echox.data.batching import BucketedBatches, some_at_a_time
from echox.data.textless import Pair, Sides, read_sides
from echox.errors import ConfigError
from echox.models.io import settings_from
from echox.models.normaliser import Normaliser, NormaliserConfig
from echox.models.ragged import pad_right
from echox.objectives.loss import Loss
from echox.objectives.s2t import ctc_loss
from echox.train.evaluate import still
from echox.train.loop import Player, Stage, TrainingRecipe
from echox.units.distance import error_rate


class NormaliserData(Settings):
    """Voices to train on, and voices and texts that are only measured."""

    train: Sides
    dev: Sides
    max_cost: PositiveInt = 8000  # frames in a batch, padding included
    max_frames: PositiveInt = 1000


class Recipe(TrainingRecipe):
    """Recipe of stage `normalise`."""

    stage: Literal["normalise"]
    data: NormaliserData
    model: Annotated[dict[str, Any], known(NormaliserConfig)] = {}
    evaluate_every: PositiveInt = 200


@dataclass
class NormaliserBatch:
    """States padded to the right, their lengths, and the target units."""

    states_BTD: torch.Tensor
    lengths_B: torch.Tensor
    units: list[list[int]]


class NormalisePass(nn.Module):
    """The forward pass with what the loss needs beside it."""

    def __init__(self, normaliser: Normaliser) -> None:
        super().__init__()
        self.normaliser = normaliser

    def forward(self, batch: NormaliserBatch) -> tuple[torch.Tensor, NormaliserBatch]:
        """Return log-probabilities (B, T, C) and the batch."""
        device = self.normaliser.head.weight.device
        batch = NormaliserBatch(batch.states_BTD.to(device), batch.lengths_B.to(device), batch.units)
        return self.normaliser(batch.states_BTD, batch.lengths_B), batch


def ctc_of(outputs: tuple[torch.Tensor, NormaliserBatch], step: int = 0) -> Loss:
    """Return the CTC loss a unit; its mean is over utterances."""
    log_probs_BTC, batch = outputs
    loss = ctc_loss(log_probs_BTC, batch.lengths_B, batch.units)
    return Loss(loss, tokens=sum(map(len, batch.units)), weight=len(batch.units))


def build(recipe: Recipe) -> Stage:
    """Return the stage; states stay on disk. ConfigError where states or units are missing."""
    torch.manual_seed(recipe.seed)
    train, dev = (
        [pair for pair in read_sides(sides) if pair.frames <= recipe.data.max_frames and len(pair.target_units)]
        for sides in (recipe.data.train, recipe.data.dev)
    )
    if not train or not dev or any(pair.states_TD is None for pair in (*train, *dev)):
        raise ConfigError("a normaliser reads a frozen encoder's states: give data.train.states and data.dev.states.")
    first = train[0].states_TD
    sizes = {"encoder_width": 0 if first is None else first.shape[1]}
    sizes |= {"units": 1 + int(max(pair.target_units.max(initial=0) for pair in train))}
    model = Normaliser(settings_from(NormaliserConfig, sizes | recipe.model, "model"))

    costs = [pair.frames for pair in train]
    batches = BucketedBatches(costs, recipe.data.max_cost, lambda n, _: batch_of([train[i] for i in n]), recipe.seed)
    player = Player("normalise", ctc_of, ("*",), recipe.train.optim)

    def evaluate() -> dict[str, float]:
        return distances(model, dev, recipe.data.max_cost)

    stage_model, every = NormalisePass(model), recipe.evaluate_every
    return Stage(stage_model, [player], batches, model.save, evaluate, every, evaluates_parts=True)


def batch_of(pairs: Sequence[Pair]) -> NormaliserBatch:
    """Return a batch of some pairs."""
    states_BTD, mask_BT = pad_right([pair.features(0) for pair in pairs])
    return NormaliserBatch(states_BTD, mask_BT.sum(1), [pair.target_units.tolist() for pair in pairs])


def distances(model: Normaliser, pairs: Sequence[Pair], max_cost: int) -> dict[str, float]:
    """Return the unit error rates of other voices against the reference voice: of k-means units, and normalised."""
    after, before = [], []
    for rows in some_at_a_time(pairs, [pair.frames for pair in pairs], max_cost):
        batch = batch_of(rows)
        device = model.head.weight.device
        with still(model):
            said = model.units(batch.states_BTD.to(device), batch.lengths_B.to(device))
        after += zip(said, batch.units, strict=True)
        heard = [pair for pair in rows if pair.source_units is not None]
        before += [(pair.source_units.tolist(), pair.target_units.tolist()) for pair in heard]
    numbers = {"unit_distance": error_rate(after), "unit_distance_before": error_rate(before)}
    return {name: value for name, value in numbers.items() if value or name == "unit_distance"}
