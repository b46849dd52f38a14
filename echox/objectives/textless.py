"""The textless objective: label-smoothed cross-entropies of all tasks, weighted, and prompts kept apart (spec A3.3, A3.4).

    L = L_main + sum over tasks k of w_k L_k + d (1 + cos(p_0, p_1)) / 2

`per: main` divides every sum over tokens by the main task's tokens, as the published code does, so that a short target weighs
little; `per: own` divides each by its own. The published prompt term, - d |p_0 - p_1|, has no lower bound; it is `distance`.

How much two tasks pull the shared layers apart is the cosine of their gradients there, measured now and then (`Conflict`).

Legend: B batch, P prompts, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import nn

from echox.config.load import Settings
from echox.models.speech_to_units import MAIN, Guided, Predicted
from echox.objectives.loss import Loss

Apart = Literal["cosine", "distance"]


class Conflict(Settings):
    """Which two tasks' gradients are compared, on which encoder layers (1 is the first), every so many steps."""

    tasks: tuple[str, str]
    layers: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    every: PositiveInt = 20


@dataclass(frozen=True)
class Weights:
    """Weights and label smoothing of every task, how sums are divided, and how strongly prompts are kept apart."""

    tasks: Mapping[str, float]
    smoothing: Mapping[str, float]
    per: Literal["main", "own"] = "main"
    diversity: float = 0.0
    apart: Apart = "cosine"


class TextlessObjective:
    """The weighted sum over all tasks."""

    def __init__(self, model: Guided, weights: Weights, conflict: Conflict | None = None) -> None:
        self.model, self.weights, self.conflict = model, weights, conflict

    def __call__(self, outputs: dict[str, Predicted], step: int = 0) -> Loss:
        """Return the loss of one batch, a mean over the main task's tokens; parts are each task's mean over its own."""
        weights, main = self.weights, int(outputs[MAIN].mask_BU.sum())
        sums = {name: smoothed_sum(one, weights.smoothing.get(name, 0.0)) for name, one in outputs.items()}
        counts = {name: int(one.mask_BU.sum()) for name, one in outputs.items()}
        own = {name: total / max(1, counts[name]) for name, total in sums.items()}
        losses = own if weights.per == "own" else {name: total / main for name, total in sums.items()}
        total = torch.stack([weights.tasks.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
        parts = {name: loss.detach() for name, loss in own.items()}
        parts["accuracy"] = accuracy(outputs[MAIN])
        prompts_PD = getattr(self.model.translator, "prompts_PD", None)
        if weights.diversity and prompts_PD is not None and len(prompts_PD) > 1:
            parts["prompts"] = alikeness(prompts_PD, weights.apart)
            total = total + weights.diversity * parts["prompts"]
            parts["prompts"] = parts["prompts"].detach()
        asked = self.conflict
        if asked and step % asked.every == 0 and set(asked.tasks) <= set(losses) and total.requires_grad:
            one, other = (losses[name] for name in asked.tasks)
            parts["gradient_cosine"] = gradient_cosine(
                one, other, [self.model.translator.layers[layer - 1] for layer in asked.layers]
            )
        return Loss(total, parts, tokens=main, over=counts)


def smoothed_sum(found: Predicted, smoothing: float) -> torch.Tensor:
    """Return the label-smoothed cross-entropy summed over real tokens."""
    logits, targets = found.logits_BUV[found.mask_BU].float(), found.targets_BU[found.mask_BU]
    return nn.functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)


def accuracy(found: Predicted) -> torch.Tensor:
    """Return the share of real tokens that are predicted right."""
    return (found.logits_BUV.argmax(-1) == found.targets_BU)[found.mask_BU].float().mean().detach()


def alikeness(prompts_PD: torch.Tensor, apart: Apart = "cosine") -> torch.Tensor:
    """Return how alike the first two prompts are: (1 + cosine) / 2 in [0, 1], or minus their distance (the published term)."""
    one_D, other_D = prompts_PD[0], prompts_PD[1]
    if apart == "distance":
        return -(one_D - other_D).norm()
    return (1 + nn.functional.cosine_similarity(one_D, other_D, dim=0)) / 2


def gradient_cosine(one: torch.Tensor, other: torch.Tensor, layers: Sequence[nn.Module]) -> torch.Tensor:
    """Return the cosine of two losses' gradients over all parameters of `layers`; below zero they pull against each other."""
    parameters = [parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad]
    found = (
        torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        for loss in (one, other)
    )
    a, b = (torch.cat([gradient.float().flatten() for gradient in gradients]) for gradients in found)
    return nn.functional.cosine_similarity(a, b, dim=0)
