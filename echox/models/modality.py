"""Who tells speech from text: the discriminator of S-Align (spec B2.1, B2.2); training only.

    states ─► + MLP ─► norm ─► mean over time (sentence, window) or none (token) ─► logit: is it text?

Legend: B batch, G groups (sentences, windows or tokens of a row), N positions, W width.
"""

from typing import Literal

import torch
from torch import nn

from echox.models.speech_translator import Positioned

Level = Literal["sentence", "window", "token"]


class Discriminator(nn.Module):
    """A residual bottleneck, a norm, a mean, a linear; the sigmoid is in the loss."""

    def __init__(self, width: int, level: Level = "sentence", window: int = 8, stride: int = 5) -> None:
        super().__init__()
        self.level, self.window, self.stride = level, window, stride
        self.down, self.up = nn.Linear(width, width // 2), nn.Linear(width // 2, width)
        self.dropout = nn.Dropout(0.1)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 1, bias=False)

    def forward(self, states: Positioned) -> tuple[torch.Tensor, torch.Tensor]:
        """Return float32 logits (B, G), 0 where nothing is, and how many positions each stands for (B, G)."""
        x_BNW = states.states_BNW
        x_BNW = self.norm(x_BNW + self.dropout(self.up(self.down(x_BNW).relu())))
        mask_BN1 = states.mask_BN[..., None].to(x_BNW.dtype)
        if self.level == "token":
            return self.out(x_BNW)[..., 0].float() * states.mask_BN, states.mask_BN.float()
        x_BNW = x_BNW * mask_BN1
        if self.level == "sentence":
            sums_BGW, counts_BG1 = x_BNW.sum(1, keepdim=True), mask_BN1.sum(1, keepdim=True)
        else:
            sums_BGW, counts_BG1 = self._windows(x_BNW), self._windows(mask_BN1)
        logits_BG = self.out(sums_BGW / counts_BG1.clamp(min=1))[..., 0].float()
        counts_BG = counts_BG1[..., 0].float()
        if (
            self.level == "window"
        ):  # a window whose predecessor reached the row's end would only be there for the padding
            ends_G = torch.arange(counts_BG.shape[1], device=counts_BG.device) * self.stride - self.stride + self.window
            counts_BG = counts_BG * ((ends_G < states.mask_BN.sum(1)[:, None]) | (ends_G < self.window))
        return logits_BG * (counts_BG > 0), counts_BG

    def _windows(self, x_BNX: torch.Tensor) -> torch.Tensor:
        """Return sums (B, G, X) over windows that begin every `stride` positions; the last ones reach into the padding."""
        missing = max(0, self.window - x_BNX.shape[1])
        rest = (x_BNX.shape[1] + missing - self.window) % self.stride
        padded = nn.functional.pad(x_BNX, (0, 0, 0, missing + (self.stride - rest if rest else 0)))
        return padded.unfold(1, self.window, self.stride).sum(-1)
