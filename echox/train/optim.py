"""Optimizers and learning-rate schedules; it knows parameters, not models."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from echox.config.load import Settings


class OptimSettings(Settings):
    """AdamW and its schedule; the defaults are the specification's (section 12, suggested defaults)."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    warmup_steps: int = 100
    schedule: Literal["cosine", "constant"] = "cosine"  # cosine (to `final_ratio` of lr at the last step) or constant
    final_ratio: float = 0.05
    clip: float = 1.0  # gradient norm


def build_optimizer(parameters: Iterable[nn.Parameter], settings: OptimSettings) -> torch.optim.AdamW:
    """Return AdamW over the trainable `parameters`, with weight decay on matrices only."""
    trainable = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas)


def rate_at(step: int, steps: int, settings: OptimSettings) -> float:
    """Return the learning rate as a share of `lr` at `step` of `steps`."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return 1.0
    done = min(1.0, (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps))
    return settings.final_ratio + (1 - settings.final_ratio) * 0.5 * (1 + math.cos(math.pi * done))
