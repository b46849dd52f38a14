"""The two generators of a unit vocoder and their sizes: embedded frames to samples; they know frames, not units.

`hifigan` is in the layout of the released unit vocoder (spec sections 5 and 10.4; Kong et al., arXiv 2010.05646; Polyak et al.,
arXiv 2104.00355). Module names and shapes are those of fairseq's CodeHiFiGANVocoder, so a released checkpoint loads by renaming two
prefixes. Weight norm is for training and for loading; it is folded into plain weights for use.

`istft` is small, and fast on a CPU. Most layers run at 50 frames a second, where a wide view is cheap: units tell phones, so pitch
must come from context. Blocks are ConvNeXt's; the head predicts log-magnitude and phase, as Vocos does (Siuzdak, arXiv 2306.00814).

    frames     |---------- 0 ----------|---------- 1 ----------|      50 a second: `trunk_layers` blocks
    spectra    |  0  |  1  |  2  |  3  |  4  |  5  |  6  |  7  |     200 a second: `head_layers` blocks
    samples    |-hop-|                                               16,000 a second: overlap-add of n_fft windows

Every layer pads with zeros to its own length, so frames nearer than `context_frames` to an edge feel it and no others do.

Legend: B batch, C channels, D embedding width, F bins, S samples, T frames or, inside, steps at the rate of
the layer, W window.
"""

import math
from typing import Annotated, Literal

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize
from transformers import PreTrainedConfig

from echox.errors import ConfigError
from echox.models.bounds import Classes, Factor, Few, Flag, Layers, Odd, Positive, Rate, Samples, Share, Width
from echox.models.convnext import AheadStack

SLOPE = 0.1  # of every leaky ReLU of `hifigan` but the last
Sizes = Annotated[list[Positive] | tuple[Positive, ...], Few]


class VocoderConfig(PreTrainedConfig):
    """Sizes of a unit vocoder; the defaults of `hifigan` are the released ones (spec section 5)."""

    model_type = "echox_vocoder"

    generator: Literal["istft", "hifigan"] = "istft"
    num_units: Classes = 1000
    embedding_dim: Width = 128
    sample_rate: Rate = 16_000
    hop: Samples = 320  # samples per frame
    weight_norm: Flag = False  # True while a hifigan generator trains
    duration_width: Width = 128
    duration_kernel: Odd = 3
    duration_dropout: Share = 0.5
    # hifigan
    upsample_rates: Sizes = (5, 4, 4, 2, 2)
    upsample_kernels: Sizes = (11, 8, 8, 4, 4)
    upsample_channels: Width = 512
    resblock_kernels: Annotated[list[Odd] | tuple[Odd, ...], Few] = (3, 7, 11)
    resblock_dilations: Annotated[list[Sizes] | tuple[Sizes, ...], Few] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    final_slope: Factor = 0.01  # of the last leaky ReLU: 0.01 in the released code, an oversight kept for compatibility
    # istft
    trunk_width: Width = 256
    trunk_layers: Layers = 8
    head_width: Width = 192
    head_layers: Layers = 4
    istft_kernel: Odd = 7
    istft_expansion: Positive = 3
    istft_steps: Positive = 4  # spectra per frame
    istft_fft: Samples = 320  # samples


def check_config(config: VocoderConfig) -> None:
    """Raise ConfigError when the sizes of `config` do not fit together."""
    if config.generator not in ("istft", "hifigan"):
        raise ConfigError(f"vocoder generator {config.generator!r} is unknown: choose istft or hifigan.")
    if config.generator == "hifigan":
        rates, kernels = config.upsample_rates, config.upsample_kernels
        if math.prod(rates) != config.hop:
            raise ConfigError(f"upsample_rates {list(rates)} multiply to another hop than {config.hop}.")
        fits = [k >= r and (k - r) % 2 == 0 for k, r in zip(kernels, rates, strict=False)]
        if len(kernels) != len(rates) or not all(fits):
            raise ConfigError(f"upsample_kernels {list(kernels)} do not fit the rates {list(rates)}.")
        if len(config.resblock_kernels) != len(config.resblock_dilations) or not len(config.resblock_kernels):
            raise ConfigError(
                "resblock_dilations must have one row for each of resblock_kernels, and there must be one."
            )
        if config.upsample_channels % 2 ** len(rates):
            raise ConfigError(f"upsample_channels {config.upsample_channels} cannot be halved {len(rates)} times.")
    else:
        spectrum_hop, rest = divmod(config.hop, config.istft_steps)
        if rest or config.istft_fft % spectrum_hop or (config.istft_fft - spectrum_hop) % 2:
            raise ConfigError(
                f"istft_steps {config.istft_steps} and istft_fft {config.istft_fft} do not divide the hop {config.hop}."
            )


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


class IstftGenerator(nn.Module):
    """Embedded frames to samples: trunk at frame rate, upsampling, blocks at spectrum rate, inverse STFT."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.steps = config.istft_steps  # spectra per frame
        self.hop = config.hop // self.steps
        self.n_fft = config.istft_fft
        kernel = config.istft_kernel
        trunk, head = config.trunk_width, config.head_width
        self.enter = nn.Conv1d(config.embedding_dim, trunk, kernel, padding=kernel // 2)
        self.trunk = _blocks(config.trunk_layers, trunk, config)
        self.upsample = nn.Linear(trunk, self.steps * head)
        self.head = _blocks(config.head_layers, head, config)
        self.norm = nn.LayerNorm(head)
        self.spectrum = nn.Linear(head, self.n_fft + 2)
        overlap = self.n_fft // self.hop // 2  # spectra on either side that reach into a frame's samples
        reach = (kernel // 2) * config.head_layers + overlap
        self.context_frames = (kernel // 2) * (1 + config.trunk_layers) + math.ceil(reach / self.steps)

    def forward(self, hidden_BDT: torch.Tensor, mask_BT: torch.Tensor | None = None) -> torch.Tensor:
        """Return samples (B, S) in about [-1, 1], S = T * hop, from embedded frames; masked frames are silent."""
        mask = None if mask_BT is None else mask_BT[..., None].to(hidden_BDT.dtype)
        hidden = self.enter(hidden_BDT if mask is None else hidden_BDT * mask.transpose(1, 2)).transpose(1, 2)
        hidden = self.trunk.run(hidden, mask_BT1=mask)
        B, T, _ = hidden.shape
        hidden = self.upsample(hidden).reshape(B, T * self.steps, -1)
        mask = None if mask is None else mask.repeat_interleave(self.steps, dim=1)
        spectrum_BTW = self.spectrum(self.norm(self.head.run(hidden, mask_BT1=mask))).float()
        log_magnitude, phase = spectrum_BTW.chunk(2, dim=-1)
        magnitude = log_magnitude.clamp(max=5.0).exp()
        if mask is not None:
            magnitude = magnitude * mask.float()
        wave_BS = inverse_stft(torch.polar(magnitude, phase), self.n_fft, self.hop)
        return wave_BS if mask is None else wave_BS * mask[..., 0].float().repeat_interleave(self.hop, dim=1)


def _blocks(count: int, width: int, config: VocoderConfig) -> AheadStack:
    half = [config.istft_kernel // 2] * count
    return AheadStack(width, half, [1] * count, config.istft_kernel, config.istft_expansion)


def inverse_stft(spectrum_BTF: torch.Tensor, n_fft: int, hop: int) -> torch.Tensor:
    """Return samples (B, T * hop) by overlap-add; spectrum t is centred on samples [t * hop, (t + 1) * hop).

    `n_fft` is an odd number of hops plus one, so the windows overhang evenly; the overhang at both ends is cut.
    """
    window_W = torch.hann_window(n_fft, device=spectrum_BTF.device)
    window_W = window_W / (window_W.square().sum() / hop).sqrt()  # its squares, overlapped every `hop`, sum to one
    frames_BTW = torch.fft.irfft(spectrum_BTF, n=n_fft, dim=-1) * window_W
    B, T, _ = frames_BTW.shape
    parts = n_fft // hop
    pieces = frames_BTW.reshape(B, T, parts, hop)
    total = frames_BTW.new_zeros(B, T + parts - 1, hop)
    for part in range(parts):  # piece p of spectrum t lands on hop t + p
        total = total + functional.pad(pieces[:, :, part], (0, 0, part, parts - 1 - part))
    overhang = (n_fft - hop) // 2
    return total.reshape(B, -1)[:, overhang : overhang + T * hop]
