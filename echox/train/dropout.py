"""Dropout whose masks are cheap on a CPU: sixteen random bits an entry, where torch draws a number for each; it knows no stage.

In a translator of width 256 torch's masks take a tenth to a fifth of the step (LOG.md). Accelerators keep torch's own.
"""

from math import prod

import torch
from torch import nn

LEVELS = 2**16  # of the share that is dropped
LANES = 4  # entries to one draw of 64 bits


class Dropout(nn.Dropout):
    """torch's Dropout; on a CPU `p` is rounded to a multiple of 1 / LEVELS, and the scale fits the rounded value."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the input with a share `p` of its entries set to zero while training."""
        dropped = round(self.p * LEVELS)
        if not self.training or not 0 < dropped < LEVELS or input.device.type != "cpu":
            return super().forward(input)
        count = prod(input.shape)
        draws = torch.empty(-(-count // LANES), dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16)[:count].view(input.shape)
        kept = bits.ge_(dropped - LEVELS // 2).to(input.dtype)  # in place: a mask of bools takes six times as long
        return input * kept.mul_(LEVELS / (LEVELS - dropped))


def use_cheap_masks(model: nn.Module) -> None:
    """Replace every torch Dropout in `model` by this one; names and weights stay."""
    for module in model.modules():
        for name, child in module._modules.items():
            if type(child) is nn.Dropout:
                module._modules[name] = Dropout(child.p, child.inplace).train(child.training)
