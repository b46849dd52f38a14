"""A small unit-to-wave generator that ends in an inverse short-time Fourier transform; it knows frames, not units.

Most layers run at 50 frames a second, where a wide view is cheap: units tell phones, so pitch must come from context. Blocks
are ConvNeXt's; the head predicts log-magnitude and phase, as Vocos does (Siuzdak, arXiv 2306.00814). Fast on a CPU.

    frames     |---------- 0 ----------|---------- 1 ----------|      50 a second: `trunk_layers` blocks
    spectra    |  0  |  1  |  2  |  3  |  4  |  5  |  6  |  7  |     200 a second: `head_layers` blocks
    samples    |-hop-|                                               16,000 a second: overlap-add of n_fft windows

Every layer pads with zeros to its own length, so frames nearer than `context_frames` to an edge feel it and no others do.

Legend: B batch, C width, D embedding width, F bins, H samples per spectrum, S samples, T frames, W window.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from echox.models.convnext import AheadStack
from echox.models.vocoder_config import VocoderConfig


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
