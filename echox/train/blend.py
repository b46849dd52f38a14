"""Weights on the straight line between a model that was tuned and the one that it started from.

Tuning on narrow data forgets some of what was known before; the line keeps most of each (Wortsman et al., "Robust fine-tuning of
zero-shot models", arXiv 2109.01903).
"""

from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def blend(start: Module, tuned: Module, share: float) -> Module:
    """Return `start` with its weights moved: `share` of its own and the rest of those of `tuned`, tensor by tensor."""
    state = start.state_dict()
    for name, value in tuned.state_dict().items():
        state[name].mul_(share).add_(value.to(state[name].device), alpha=1 - share)
    return start
