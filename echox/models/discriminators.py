"""Judges of waveforms for training a vocoder; they know samples, not units, and are never shipped.

Multi-period and multi-scale discriminators of HiFi-GAN (Kong et al., arXiv 2010.05646, section 2.3), and a discriminator of
magnitude spectra (Jang et al., arXiv 2106.07889). `width` scales the channels: 1.0 is HiFi-GAN's, 0.25 trains on a CPU.

Every discriminator returns its scores, any shape, and the feature maps before them. Legend: B batch, C channels, F bins,
P period, S samples, T time steps of a layer.
"""

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.1
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
