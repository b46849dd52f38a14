"""HiFi-GAN's generator in the layout of the released unit vocoder; it knows frames, not units (spec sections 5 and 10.4).

Kong et al., arXiv 2010.05646; Polyak et al., arXiv 2104.00355. Module names and shapes are those of fairseq's
CodeHiFiGANVocoder, so a released checkpoint loads by renaming two prefixes. Weight norm is for training and for loading; it
is folded into plain weights for use.

Legend: B batch, C channels, D embedding width, S samples, T frames or, inside, steps at the rate of the layer.
"""

import math

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from echox.models.vocoder_config import VocoderConfig

SLOPE = 0.1  # of every leaky ReLU but the last


def _masked(hidden_BCT: torch.Tensor, mask_B1T: torch.Tensor | None) -> torch.Tensor:
    return hidden_BCT if mask_B1T is None else hidden_BCT * mask_B1T


class ResBlock(nn.Module):
    """HiFi-GAN's residual block "1": per dilation, a dilated and a plain convolution added to the input."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * (kernel - 1) // 2) for d in dilations
        )
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2) for _ in dilations)
        self.reach = sum((d + 1) * (kernel - 1) // 2 for d in dilations)

    def forward(self, hidden_BCT: torch.Tensor, mask_B1T: torch.Tensor | None = None) -> torch.Tensor:
        """Return states of the same shape."""
        for conv1, conv2 in zip(self.convs1, self.convs2, strict=True):
            inner = conv1(_masked(functional.leaky_relu(hidden_BCT, SLOPE), mask_B1T))
            hidden_BCT = hidden_BCT + conv2(_masked(functional.leaky_relu(inner, SLOPE), mask_B1T))
        return hidden_BCT


class HifiganGenerator(nn.Module):
    """Embedded frames to samples: transposed convolutions, each followed by the mean of residual blocks."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.rates = tuple(config.upsample_rates)
        self.final_slope = config.final_slope
        channels = config.upsample_channels
        kernels, dilations = config.resblock_kernels, config.resblock_dilations
        self.conv_pre = nn.Conv1d(config.embedding_dim, channels, 7, padding=3)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        reach, scale = 3.0, 1  # in frames; steps per frame
        for rate, kernel in zip(self.rates, config.upsample_kernels, strict=True):
            up = nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2)
            self.ups.append(up)
            channels //= 2
            scale *= rate
            blocks = [ResBlock(channels, k, tuple(d)) for k, d in zip(kernels, dilations, strict=True)]
            self.resblocks.extend(blocks)
            reach += kernel / scale + max(block.reach for block in blocks) / scale
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3)
        self.context_frames = math.ceil(reach + 3 / scale)

    def forward(self, hidden_BDT: torch.Tensor, mask_BT: torch.Tensor | None = None) -> torch.Tensor:
        """Return samples (B, S) in [-1, 1], S = T * hop, from embedded frames; masked frames are silent."""
        mask = None if mask_BT is None else mask_BT[:, None].to(hidden_BDT.dtype)
        hidden = self.conv_pre(_masked(hidden_BDT, mask))
        per_rate = len(self.resblocks) // len(self.ups)
        for index, (rate, up) in enumerate(zip(self.rates, self.ups, strict=True)):
            hidden = up(_masked(functional.leaky_relu(hidden, SLOPE), mask))
            mask = None if mask is None else mask.repeat_interleave(rate, dim=2)
            blocks = self.resblocks[index * per_rate : (index + 1) * per_rate]
            hidden = torch.stack([block(hidden, mask) for block in blocks]).mean(dim=0)
        wave_B1S = torch.tanh(self.conv_post(_masked(functional.leaky_relu(hidden, self.final_slope), mask)))
        return _masked(wave_B1S, mask)[:, 0]


def _convolutions(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d)]


def add_weight_norm(generator: nn.Module) -> None:
    """Give every convolution separate direction and length, as in training and in the released file."""
    for conv in _convolutions(generator):
        if not parametrize.is_parametrized(conv):
            parametrizations.weight_norm(conv)


def remove_weight_norm(generator: nn.Module) -> None:
    """Fold directions and lengths into plain weights; outputs stay the same."""
    for conv in _convolutions(generator):
        if parametrize.is_parametrized(conv):
            parametrize.remove_parametrizations(conv, "weight")


def from_released_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the tensors of a released `generator` (spec section 10.4) to those of UnitVocoder with weight norm."""
    renamed = {}
    for name, tensor in state.items():
        name = name.replace(".weight_g", ".parametrizations.weight.original0")
        name = name.replace(".weight_v", ".parametrizations.weight.original1")
        if name.startswith("dict."):
            name = "embedding." + name.removeprefix("dict.")
        elif not name.startswith("dur_predictor."):
            name = "generator." + name
        renamed[name] = tensor
    return renamed
