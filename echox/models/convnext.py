"""Convolutions over time that can be fed piece by piece: offline and streamed are the same code; it knows no units and no sound.

A layer sees `behind` rows before and `ahead` rows after each of its outputs, so a stream hands out a row once `ahead` more have
come. `Tail` keeps what a layer still needs; outside the signal there are zeros, at every layer, as in a padded convolution.

    rows     |--behind--| new ........ |--ahead--|
    outputs             | new ........ |

Legend: B batch, C width, T rows (time).
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


class Tail:
    """The rows of one layer's input that later outputs still need."""

    def __init__(self) -> None:
        self.rows_BTC: torch.Tensor | None = None

    def window(self, new_BTC: torch.Tensor, behind: int, ahead: int, last: bool) -> tuple[torch.Tensor, int]:
        """Return old and new rows (B, behind + ready + ahead, C) and how many outputs are ready; `last` ends the signal."""
        B, _, C = new_BTC.shape
        before = new_BTC.new_zeros(B, behind, C) if self.rows_BTC is None else self.rows_BTC
        rows = torch.cat([before, new_BTC, new_BTC.new_zeros(B, ahead if last else 0, C)], dim=1)
        ready = max(0, rows.shape[1] - behind - ahead)
        self.rows_BTC = rows[:, ready:]
        return rows, ready


class AheadConv(nn.Conv1d):
    """A convolution over time on (B, T, C) that sees `ahead` rows of the future and the rest of its kernel behind."""

    def __init__(
        self, width: int, out: int, kernel: int, ahead: int | None = None, dilation: int = 1, groups: int = 1
    ) -> None:
        super().__init__(width, out, kernel, dilation=dilation, groups=groups)
        span = (kernel - 1) * dilation
        self.ahead = span // 2 if ahead is None else ahead
        self.behind = span - self.ahead

    def forward(self, new_BTC: torch.Tensor, tail: Tail | None = None, last: bool = True) -> torch.Tensor:
        """Return the outputs that are ready, (B, ready, out)."""
        return self.on_rows(new_BTC, tail or Tail(), last)[0]

    def on_rows(self, new_BTC: torch.Tensor, tail: Tail, last: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs that are ready and the input rows they belong to."""
        rows, ready = tail.window(new_BTC, self.behind, self.ahead, last)
        here = rows[:, self.behind : self.behind + ready]
        if not ready:
            return rows.new_zeros(len(rows), 0, self.out_channels), here
        return super().forward(rows.transpose(1, 2)).transpose(1, 2), here


class ConvNeXtBlock(nn.Module):
    """A ConvNeXt block: depthwise convolution, layer norm and a two-layer perceptron, scaled and added to the input."""

    def __init__(
        self, width: int, kernel: int = 7, expansion: int = 3, ahead: int | None = None, dilation: int = 1
    ) -> None:
        super().__init__()
        self.depthwise = AheadConv(width, width, kernel, ahead, dilation, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(
        self, new_BTC: torch.Tensor, tail: Tail | None = None, last: bool = True, mask_BT1: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the states that are ready, (B, ready, C); rows outside the mask count as zeros."""
        new_BTC = new_BTC if mask_BT1 is None else new_BTC * mask_BT1
        mixed_BTC, here_BTC = self.depthwise.on_rows(new_BTC, tail or Tail(), last)
        return here_BTC + self.scale * self.down(functional.gelu(self.up(self.norm(mixed_BTC))))


def start_small(module: nn.Module) -> None:
    """Start a convolution or a line near zero, as ConvNeXt does; for `nn.Module.apply`."""
    if isinstance(module, nn.Conv1d | nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class AheadStack(nn.ModuleList):
    """Blocks in a row; `ahead` is what the whole stack sees of what comes."""

    def __init__(
        self, width: int, aheads: Sequence[int], dilations: Sequence[int], kernel: int, expansion: int
    ) -> None:
        blocks = [
            ConvNeXtBlock(width, kernel, expansion, ahead, dilation)
            for ahead, dilation in zip(aheads, dilations, strict=True)
        ]
        super().__init__(blocks)
        self.ahead = sum(block.depthwise.ahead for block in blocks)  # rows after a row that its output depends on

    def tails(self) -> list[Tail]:
        """Return fresh stream state."""
        return [Tail() for _ in self]

    def run(
        self,
        states_BTC: torch.Tensor,
        tails: list[Tail] | None = None,
        last: bool = True,
        mask_BT1: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the states that are ready after all blocks."""
        for block, tail in zip(self, tails or self.tails(), strict=True):
            states_BTC = block(states_BTC, tail, last, mask_BT1)
        return states_BTC
