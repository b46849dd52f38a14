"""The two-player loss of the vocoder: least-squares GAN, spectra, features and durations; it knows no data files.

L_generator = mel * L1(log-mel) + stft * L_STFT + gan_share * (L_adversarial + features * L_features) + duration * L_duration
(Kong et al., arXiv 2010.05646, eq. 7; L_STFT: Yamamoto et al., arXiv 1910.11480; L_duration: spec section 5). Before
`gan_start` steps only the reconstruction terms run, which is cheap and settles the words.

Legend: B batch, F bins, S samples, T spectrum frames, U units.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from torch import nn
from torch.nn import functional

from echox.config.load import Settings
from echox.data.vocoder_segments import SegmentBatch
from echox.features.logmel import mel_filters
from echox.models.discriminators import Discriminators, Judgement
from echox.models.vocoder import UnitVocoder
from echox.objectives.loss import Loss


class VocoderLossSettings(Settings):
    """Weights and resolutions; the defaults are HiFi-GAN's, with the spectral losses of the mini model off."""

    mel: NonNegativeFloat = 45.0
    stft: NonNegativeFloat = 0.0
    resolutions: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...] = ((1024, 256, 80),)  # n_fft, hop, mel bins
    features: NonNegativeFloat = 2.0
    adversarial: NonNegativeFloat = 1.0
    duration: NonNegativeFloat = 1.0
    gan_start: NonNegativeInt = 0  # steps of reconstruction alone
    gan_ramp: PositiveInt = 1  # steps over which the adversarial terms then grow to full weight
    gan_samples: NonNegativeInt = 0  # samples of each segment that the judges see; 0 means all

    @model_validator(mode="after")
    def _check(self) -> "VocoderLossSettings":
        for n_fft, hop, _ in self.resolutions:
            if n_fft % hop:
                raise ValueError(
                    f"resolutions have a hop of {hop}, which does not divide its n_fft of {n_fft}: give one that does"
                )
        return self


@dataclass
class Played:
    """One generator pass, which both players judge: real and made waves, what the judges hear of them, log durations."""

    batch: SegmentBatch
    wave_BS: torch.Tensor
    window: slice
    log_durations_BU: torch.Tensor


class VocoderPass(nn.Module):
    """The forward pass of the stage: the vocoder speaks; the judges stand beside it and wait for their turn."""

    def __init__(self, vocoder: UnitVocoder, judges: Discriminators, gan_samples: int = 0) -> None:
        super().__init__()
        self.vocoder, self.judges, self.gan_samples = vocoder, judges, gan_samples

    def forward(self, batch: SegmentBatch) -> Played:
        """Return the batch made from its own units and durations."""
        batch = batch.to(self.vocoder.device)
        size, total = self.gan_samples, batch.wave_BS.shape[1]
        start = int(torch.randint(total - size + 1, ())) if 0 < size < total else 0
        window = slice(start, start + size if 0 < size < total else total)
        wave_BS = self.vocoder.synthesize(batch.frames_BT)
        log_durations_BU = self.vocoder.dur_predictor(self.vocoder.embedding(batch.units_BU), batch.durations_BU > 0)
        return Played(batch, wave_BS, window, log_durations_BU.float())


class VocoderObjective:
    """The losses of both players over one generator pass."""

    def __init__(
        self, judges: Discriminators, settings: VocoderLossSettings = VocoderLossSettings(), sample_rate: int = 16_000
    ) -> None:
        self.judges, self.settings, self.sample_rate = judges, settings, sample_rate

    def discriminator(self, played: Played, step: int) -> Loss:
        """Least-squares loss of the judges on real and made waves; nothing before `gan_start`."""
        if step < self.settings.gan_start:
            return Loss(torch.zeros(()))
        real = self.judges(played.batch.wave_BS[:, played.window])
        made = self.judges(played.wave_BS[:, played.window].detach())
        total = torch.zeros((), device=played.wave_BS.device)
        for (real_scores, _), (made_scores, _) in zip(real, made, strict=True):
            total = total + (1 - real_scores.float()).square().mean() + made_scores.float().square().mean()
        return Loss(total, tokens=played.batch.frames_BT.numel())

    def generator(self, played: Played, step: int) -> Loss:
        """Reconstruction, adversarial and duration terms of the generator."""
        settings, batch = self.settings, played.batch
        parts: dict[str, torch.Tensor] = {}
        with torch.autocast(batch.wave_BS.device.type, enabled=False):
            made_BS = played.wave_BS.float()
            mel, stft = spectral_losses(made_BS, batch.wave_BS, settings.resolutions, self.sample_rate)
            total = settings.mel * mel + settings.stft * stft
            parts |= {"mel": mel.detach(), "stft": stft.detach()}
        if step >= settings.gan_start:
            share = min(1.0, (step - settings.gan_start + 1) / settings.gan_ramp)
            adversarial, features = self._persuade(batch.wave_BS[:, played.window], played.wave_BS[:, played.window])
            total = total + share * (settings.adversarial * adversarial + settings.features * features)
            parts |= {"adversarial": adversarial.detach(), "features": features.detach()}
        duration = duration_loss(played.log_durations_BU, batch)
        parts["duration"] = duration.detach()
        return Loss(total + settings.duration * duration, parts, tokens=batch.frames_BT.numel())

    def _persuade(self, real_BS: torch.Tensor, made_BS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the adversarial and the feature-matching loss; in the generator's turn the judges are held still."""
        with torch.no_grad():
            real = self.judges(real_BS)
        made = self.judges(made_BS)
        adversarial = torch.stack([(1 - scores.float()).square().mean() for scores, _ in made]).sum()
        return adversarial, feature_loss(real, made)


def feature_loss(real: list[Judgement], made: list[Judgement]) -> torch.Tensor:
    """Return the L1 distance of all feature maps, summed over layers and judges (HiFi-GAN, eq. 6)."""
    distances = [
        (a - b).abs().mean().float()
        for (_, real_maps), (_, made_maps) in zip(real, made, strict=True)
        for a, b in zip(real_maps, made_maps, strict=True)
    ]
    return torch.stack(distances).sum()


def duration_loss(log_durations_BU: torch.Tensor, batch: SegmentBatch) -> torch.Tensor:
    """Return the mean squared error of log(duration + 1) over whole units."""
    error_BU = (log_durations_BU - torch.log(batch.durations_BU + 1.0)).square()
    return (error_BU * batch.whole_BU).sum() / batch.whole_BU.sum().clamp(min=1)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _fourier(n_fft: int, device: torch.device) -> torch.Tensor:
    """Return the windowed Fourier matrix, shape (n_fft, 2 F): cosines, then sines."""
    angle = torch.arange(n_fft)[:, None] * torch.arange(n_fft // 2 + 1)[None] * (2 * math.pi / n_fft)
    matrix = torch.cat([angle.double().cos(), angle.double().sin()], dim=1)
    return (torch.hann_window(n_fft, dtype=torch.double)[:, None] * matrix).float().to(device)


def magnitude(wave_BS: torch.Tensor, n_fft: int, hop: int) -> torch.Tensor:
    """Return STFT magnitudes (B, T, F), smoothed near zero so that gradients stay finite; `hop` divides `n_fft`.

    A matrix product: on a CPU its gradient costs a fifth of the FFT's.
    """
    padded = functional.pad(wave_BS[:, None], ((n_fft - hop) // 2,) * 2, mode="reflect")[:, 0]
    parts, count = n_fft // hop, (padded.shape[1] - n_fft) // hop + 1
    pieces = padded[:, : (count + parts - 1) * hop].unflatten(1, (-1, hop))
    frames = torch.cat([pieces[:, part : part + count] for part in range(parts)], dim=-1)
    real, imaginary = (frames @ _fourier(n_fft, wave_BS.device)).chunk(2, dim=-1)
    return (real.square() + imaginary.square() + 1e-9).sqrt()


def spectral_losses(
    made_BS: torch.Tensor, real_BS: torch.Tensor, resolutions: tuple[tuple[int, int, int], ...], sample_rate: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two means over `resolutions` (n_fft, hop, mel bins): L1 of log-mel spectra, and the STFT loss.

    The first is HiFi-GAN's eq. 5; the second, spectral convergence plus log-magnitude L1, arXiv 1910.11480, eqs. 3-6.
    """
    mels, stfts = [], []
    for n_fft, hop, n_mels in resolutions:
        made, real = magnitude(made_BS, n_fft, hop), magnitude(real_BS, n_fft, hop)
        filters = mel_filters(n_mels, n_fft, sample_rate).T.contiguous().to(made_BS.device)
        made_mel, real_mel = ((spectrum @ filters).clamp(min=1e-5).log() for spectrum in (made, real))
        mels.append(functional.l1_loss(made_mel, real_mel))
        convergence = (real - made).norm() / real.norm().clamp(min=1e-5)
        stfts.append(convergence + functional.l1_loss(made.clamp(min=1e-4).log(), real.clamp(min=1e-4).log()))
    return torch.stack(mels).mean(), torch.stack(stfts).mean()
