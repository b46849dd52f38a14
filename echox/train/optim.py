"""Optimizers and learning-rate schedules; it knows parameters, not models."""

import math
from typing import Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat
from torch import nn

from echox.config.load import Rate, Settings, Share
from echox.train.sharding import is_cut, whole


class OptimSettings(Settings):
    """AdamW and its schedule; the defaults are the specification's (section 12, suggested defaults).

    Schedules after the warm-up: `cosine` falls towards `final_ratio` of lr, `inverse_sqrt` with the root of the step
    (Vaswani et al., arXiv 1706.03762, section 5.3), `constant` stays.
    """

    lr: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    betas: tuple[Rate, Rate] = (0.9, 0.95)
    weight_decay: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    warmup_steps: NonNegativeInt = 100
    schedule: Literal["cosine", "inverse_sqrt", "constant"] = "cosine"
    final_ratio: Share = 0.05
    clip: PositiveFloat = 1.0  # gradient norm


def build_optimizer(parameters: dict[str, nn.Parameter], settings: OptimSettings) -> torch.optim.AdamW:
    """Return AdamW over named `parameters`, with weight decay on matrices only; scalars, which are never cut, stand apart."""
    groups = []
    for ndim, rate in ((2, settings.weight_decay), (1, 0.0), (0, 0.0)):
        if own := [(name, one) for name, one in parameters.items() if min(one.ndim, 2) == ndim]:
            groups.append({"params": own, "weight_decay": rate})
    on_cpu = all(p.device.type == "cpu" and p.is_contiguous() and not is_cut(p) for p in parameters.values())
    fused = on_cpu or None  # one pass over memory; elsewhere torch chooses
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=fused)


def clip_gradients(parameters: list[nn.Parameter], most: float) -> float:
    """Scale all gradients down to a common norm of at most `most`; return the norm that they had."""
    cut = [[p for p in parameters if p.grad is not None and is_cut(p.grad) == kind] for kind in (False, True)]
    if not cut[1]:
        return float(nn.utils.clip_grad_norm_(parameters, most))
    norms = [whole(nn.utils.get_total_norm([p.grad for p in some if p.grad is not None])) for some in cut if some]
    total = torch.stack([norm.square() for norm in norms]).sum().sqrt()
    for some in cut:
        nn.utils.clip_grads_with_norm_(some, most, total)
    return float(total)


def rate_at(step: int, steps: int, settings: OptimSettings) -> float:
    """Return the learning rate as a share of `lr` at `step` of `steps`."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "inverse_sqrt":
        return math.sqrt(max(1, settings.warmup_steps) / (step + 1))
    done = min(1.0, (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps))
    return settings.final_ratio + (1 - settings.final_ratio) * 0.5 * (1 + math.cos(math.pi * done))
