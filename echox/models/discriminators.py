"""Judges that only train and are never shipped: of waveforms, for a vocoder, and of who tells speech from text, for S-Align.

Multi-period and multi-scale discriminators of HiFi-GAN (Kong et al., arXiv 2010.05646, section 2.3), and a discriminator of
magnitude spectra (Jang et al., arXiv 2106.07889). `width` scales the channels: 1.0 is HiFi-GAN's, 0.25 trains on a CPU.

Those of waveforms return their scores, any shape, and the feature maps before them. S-Align's (spec B2.1, B2.2):

    states ─► + MLP ─► norm ─► mean over time (sentence, window) or none (token) ─► logit: is it text?

Legend: B batch, F bins, G groups (sentences, windows or tokens of a row), N positions, P period, S samples, T time
steps of a layer, W width.
"""

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

if TYPE_CHECKING:  # it brings transformers' model code
    from echox.models.speech_translator import Positioned

SLOPE = 0.1
Level = Literal["sentence", "window", "token"]
Judgement = tuple[torch.Tensor, list[torch.Tensor]]  # scores, feature maps


def _scaled(channels: int, width: float, groups: int = 1) -> int:
    return max(groups, round(channels * width / groups) * groups)


class PeriodDiscriminator(nn.Module):
    """Looks at every P-th sample: the wave folded to (S / P, P), convolved along time."""

    def __init__(self, period: int, width: float = 1.0) -> None:
        super().__init__()
        self.period = period
        sizes = [1] + [_scaled(c, width) for c in (32, 128, 512, 1024, 1024)]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3 if i < 4 else 1, 1), padding=(2, 0)))
            for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False))
        )
        self.post = weight_norm(nn.Conv2d(sizes[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wave_BS: torch.Tensor) -> Judgement:
        """Return scores and features of waves (B, S)."""
        hidden = functional.pad(wave_BS[:, None], (0, -wave_BS.shape[1] % self.period), mode="reflect")
        hidden = hidden.unflatten(2, (-1, self.period))
        return _run(self.convs, self.post, hidden)


class ScaleDiscriminator(nn.Module):
    """Grouped strided convolutions over the wave, average-pooled `pool` times by two first."""

    def __init__(self, pool: int, width: float = 1.0) -> None:
        super().__init__()
        self.pool = pool
        layers = [(128, 15, 1, 1), (128, 41, 2, 4), (256, 41, 2, 16), (512, 41, 4, 16), (1024, 41, 4, 16)]
        layers += [(1024, 41, 1, 16), (1024, 5, 1, 1)]  # channels, kernel, stride, groups
        self.convs, last = nn.ModuleList(), 1
        for channels, kernel, stride, groups in layers:
            channels = _scaled(channels, width, 16)
            conv = nn.Conv1d(last, channels, kernel, stride, kernel // 2, groups=groups)
            self.convs.append(weight_norm(conv))
            last = channels
        self.post = weight_norm(nn.Conv1d(last, 1, 3, padding=1))

    def forward(self, wave_BS: torch.Tensor) -> Judgement:
        """Return scores and features of waves (B, S)."""
        hidden = wave_BS[:, None]
        for _ in range(self.pool):
            hidden = functional.avg_pool1d(hidden, 4, 2, padding=2)
        return _run(self.convs, self.post, hidden)


class SpectrogramDiscriminator(nn.Module):
    """Looks at the log-magnitude spectrum of one resolution as an image (time, bins)."""

    def __init__(self, n_fft: int, hop: int, width: float = 1.0) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        c = _scaled(64, width)
        strides = ((1, 2), (1, 2), (2, 2), (2, 2))  # in time and over bins
        convs = [nn.Conv2d(c if i else 1, c, (3, 9), stride, padding=(1, 4)) for i, stride in enumerate(strides)]
        convs.append(nn.Conv2d(c, c, (3, 3), padding=(1, 1)))
        self.convs = nn.ModuleList(map(weight_norm, convs))
        self.post = weight_norm(nn.Conv2d(c, 1, (3, 3), padding=(1, 1)))

    def forward(self, wave_BS: torch.Tensor) -> Judgement:
        """Return scores and features of waves (B, S)."""
        with torch.autocast(wave_BS.device.type, enabled=False):
            window = torch.hann_window(self.n_fft, device=wave_BS.device)
            spectrum_BFT = torch.stft(wave_BS.float(), self.n_fft, self.hop, window=window, return_complex=True)
            image = (spectrum_BFT.abs() + 1e-3).log().transpose(1, 2)[:, None]
        return _run(self.convs, self.post, image)


def _run(convs: nn.ModuleList, post: nn.Module, hidden: torch.Tensor) -> Judgement:
    features = []
    for conv in convs:
        hidden = functional.leaky_relu(conv(hidden), SLOPE)
        features.append(hidden)
    return post(hidden), features


class Discriminators(nn.Module):
    """All judges of one training run: periods, scales (times halved) and spectrogram sizes (n_fft, hop)."""

    def __init__(
        self, periods: tuple[int, ...], scales: int, spectra: tuple[tuple[int, int], ...], width: float = 1.0
    ) -> None:
        super().__init__()
        self.judges = nn.ModuleList(
            [PeriodDiscriminator(period, width) for period in periods]
            + [ScaleDiscriminator(pool, width) for pool in range(scales)]
            + [SpectrogramDiscriminator(n_fft, hop, width) for n_fft, hop in spectra]
        )

    def forward(self, wave_BS: torch.Tensor) -> list[Judgement]:
        """Return every judge's scores and features of waves (B, S)."""
        return [judge(wave_BS) for judge in self.judges]


class ModalityDiscriminator(nn.Module):
    """Who tells speech from text: a residual bottleneck, a norm, a mean, a linear; the sigmoid is in the loss."""

    def __init__(self, width: int, level: Level = "sentence", window: int = 8, stride: int = 5) -> None:
        super().__init__()
        self.level, (self.window, self.stride) = level, (window, stride) if level == "window" else (1, 1)
        self.down, self.up = nn.Linear(width, width // 2), nn.Linear(width // 2, width)
        self.dropout = nn.Dropout(0.1)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 1, bias=False)

    def forward(self, states: "Positioned") -> tuple[torch.Tensor, torch.Tensor]:
        """Return float32 logits (B, G), 0 where nothing is, and how many positions each stands for (B, G)."""
        x_BNW = states.states_BNW
        x_BNW = self.norm(x_BNW + self.dropout(self.up(self.down(x_BNW).relu())))
        mask_BN1 = states.mask_BN[..., None].to(x_BNW.dtype)
        x_BNW = x_BNW * mask_BN1
        if self.level == "sentence":
            sums_BGW, counts_BG1 = x_BNW.sum(1, keepdim=True), mask_BN1.sum(1, keepdim=True)
        else:
            sums_BGW, counts_BG1 = self._windows(x_BNW), self._windows(mask_BN1)
        logits_BG = self.out(sums_BGW / counts_BG1.clamp(min=1))[..., 0].float()
        counts_BG = counts_BG1[..., 0].float()
        if self.level != "sentence":
            # a window whose predecessor reached the row's end would only be there for the padding
            ends_G = torch.arange(counts_BG.shape[1], device=counts_BG.device) * self.stride - self.stride + self.window
            counts_BG = counts_BG * ((ends_G < states.mask_BN.sum(1)[:, None]) | (ends_G < self.window))
        return logits_BG * (counts_BG > 0), counts_BG

    def _windows(self, x_BNX: torch.Tensor) -> torch.Tensor:
        """Return sums (B, G, X) over windows that begin every `stride` positions; the last ones reach into the padding."""
        missing = max(0, self.window - x_BNX.shape[1])
        rest = (x_BNX.shape[1] + missing - self.window) % self.stride
        padded = nn.functional.pad(x_BNX, (0, 0, 0, missing + (self.stride - rest if rest else 0)))
        return padded.unfold(1, self.window, self.stride).sum(-1)
