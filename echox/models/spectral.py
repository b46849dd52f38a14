"""A decoder from phonetic latents to speech: five spectra a frame over a pulse source, then an inverse STFT; it knows no units.

The layout is hibari-tts 0.2.1's (Apache-2.0), 4.2 M parameters: inputs are latents, pitch as log(1 + f0) / 5 and energy at 80 Hz.

    inputs --conv, ConvNeXt blocks--> harmonic log-magnitude a, its phase b, noise log-magnitude c, free log-magnitude d and phase e
    S = exp(a) exp(i pi tanh b) STFT(pulses(f0)) + exp(c) Z + exp(d) exp(i e);   speech = inverse STFT of S

Two changes make pieces equal to the whole: the phase of the pulses starts anew at each voiced stretch, so that a difference of
one rounding in f0 cannot grow for minutes; and the noise Z is a table read at the absolute frame.

Legend: B batch, F bins, I inputs, S samples, T frames.
"""

import math
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig

from echox.errors import ConfigError
from echox.models.bounds import Layers, Odd, Positive, Rate, Samples, Width
from echox.models.convnext import AheadConv, AheadStack, Tail, start_small
from echox.models.io import Part

NOISE_FRAMES = 401  # the table's length: five seconds, then it repeats unheard
VOICED_ABOVE, HARMONICS_BELOW, MAX_LOG = 40.0, 11_000.0, 7.0  # Hz, Hz, log-magnitude


class SpectralConfig(PreTrainedConfig):
    """Sizes of a spectral decoder; the defaults are hibari's."""

    model_type = "echox_spectral"

    latents: Width = 128
    width: Width = 256
    layers: Layers = 8
    kernel: Odd = 7
    expansion: Positive = 3
    sample_rate: Rate = 24_000
    hop: Samples = 300  # samples per frame
    fft: Samples = 1200  # samples: a window is an even number of hops


class SpectralDecoder(Part[SpectralConfig]):
    """Latents, pitch and energy to spectra."""

    def __init__(self, config: SpectralConfig) -> None:
        super().__init__(config)
        if config.fft % (2 * config.hop):
            raise ConfigError(f"fft {config.fft} is not an even number of hops of {config.hop} samples.")
        half = [config.kernel // 2] * config.layers
        self.enter = AheadConv(config.latents + 2, config.width, config.kernel)
        self.blocks = AheadStack(config.width, half, [1] * config.layers, config.kernel, config.expansion)
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, 5 * (config.fft // 2 + 1))
        self.apply(start_small)  # a random decoder is only ever a toy

    @property
    def ahead(self) -> int:
        """Frames after a frame that its spectra depend on."""
        return self.enter.ahead + self.blocks.ahead

    def tails(self) -> list[Tail]:
        """Return fresh stream state."""
        return [Tail(), *self.blocks.tails()]

    def forward(self, inputs_BTI: torch.Tensor, tails: list[Tail] | None = None, last: bool = True) -> torch.Tensor:
        """Return the spectra that are ready, (B, T, 5 F): a, b, c, d, e of the formula above."""
        first, *rest = tails or self.tails()
        return self.head(self.norm(self.blocks.run(self.enter(inputs_BTI, first, last), rest, last)))


def as_inputs(latents_BTL: torch.Tensor, f0_BT: torch.Tensor, energy_BT: torch.Tensor) -> torch.Tensor:
    """Return decoder inputs (B, T, L + 2) from latents, pitch in Hz (0: unvoiced) and energy as the decoder takes it."""
    return torch.cat([latents_BTL, (torch.log1p(f0_BT.relu()) / 5)[..., None], energy_BT[..., None]], dim=-1)


def sound_ahead(config: SpectralConfig) -> int:
    """Return how many frames after a frame its samples depend on, spectra given."""
    return config.fft // config.hop


@lru_cache(maxsize=4)
def noise(bins: int, device: torch.device | None) -> torch.Tensor:
    """Return the noise of NOISE_FRAMES frames, complex (T, F), the same for all speech."""
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(False):  # it is kept
        return torch.view_as_complex(torch.randn(NOISE_FRAMES, bins, 2, generator=generator)).to(device)


class Sound:
    """Spectra and pitch to samples, frame by frame; any cutting into pieces gives the same samples.

    Waits for `sound_ahead` frames: pitch is interpolated to the next one, and half a window of pulses and half a window of
    speech reach on.
    """

    def __init__(self, config: SpectralConfig, device: torch.device | None = None) -> None:
        self.hop, self.fft, self.rate = config.hop, config.fft, config.sample_rate
        self.hann_S = torch.hann_window(self.fft, device=device)
        self.noise_TF = noise(self.fft // 2 + 1, device)
        u_S = ((torch.arange(self.hop, device=device) + 0.5) / self.hop - 0.5) % 1.0
        self.slope_S, self.early = u_S, torch.arange(self.hop, device=device) < self.hop // 2
        self.f0_T = torch.zeros(0, device=device)  # from the frame before the first that has no pulses yet
        self.started = False
        self.phase = torch.zeros((), dtype=torch.float64, device=device)  # of the pulses, in turns
        self.pulses_S = torch.zeros(self.fft // 2, device=device)
        self.spectra_TX = torch.zeros(0, 5 * (self.fft // 2 + 1), device=device)
        self.frame = 0  # absolute number of the first frame of `spectra_TX`
        self.total_S = torch.zeros(2, self.fft - self.hop, device=device)  # overlapped: speech, squared windows
        self.skip = self.fft // 2  # half a window lies before the first sample

    def push(self, spectra_TX: torch.Tensor, f0_T: torch.Tensor, last: bool = False) -> torch.Tensor:
        """Return the samples (S,) that no later frame can change; with `last`, all that are left."""
        self._excite(f0_T, last)
        self.spectra_TX = torch.cat([self.spectra_TX, spectra_TX])
        ready = len(self.spectra_TX) if last else max(0, (len(self.pulses_S) - self.fft) // self.hop + 1)
        frames_TS = self._frames(min(ready, len(self.spectra_TX)))
        wave_S = self._overlap(frames_TS)
        if last:
            rest_2S = self.total_S[:, : self.fft // 2]
            wave_S = torch.cat([wave_S, self._normal(rest_2S)])
        skipped = min(self.skip, len(wave_S))
        self.skip -= skipped
        return wave_S[skipped:]

    def _excite(self, f0_T: torch.Tensor, last: bool) -> None:
        """Add the pulses of every frame whose neighbours are known; the outermost frames repeat themselves."""
        if len(f0_T) and not self.started:
            self.f0_T, self.started = f0_T[:1], True
        f0 = torch.cat([self.f0_T, f0_T] + ([f0_T[-1:] if len(f0_T) else self.f0_T[-1:]] if last else []))
        if len(f0) >= 3:
            before, here, after = f0[:-2, None], f0[1:-1, None], f0[2:, None]
            rising = torch.where(
                self.early, before + (here - before) * self.slope_S, here + (after - here) * self.slope_S
            )
            self.pulses_S = torch.cat([self.pulses_S, self._pulses(rising.reshape(-1))])
            f0 = f0[-2:]
        self.f0_T = f0
        if last:
            self.pulses_S = functional.pad(self.pulses_S, (0, self.fft // 2))

    def _pulses(self, f0_S: torch.Tensor) -> torch.Tensor:
        """Return every harmonic of `f0_S` (Hz) below the limit at unit amplitude, zero where unvoiced."""
        voiced = f0_S > VOICED_ABOVE
        turns = self.phase + torch.cumsum(torch.where(voiced, f0_S, 0.0).double(), 0) / self.rate
        turns = turns - torch.cummax(torch.where(voiced, 0.0, turns), 0).values  # from the last unvoiced sample on
        self.phase = turns[-1] % 1.0
        angle = (2 * math.pi * (turns - turns.round())).float()
        count = (HARMONICS_BELOW / f0_S.clamp(min=VOICED_ABOVE)).floor() + 0.5
        half = 2 * torch.sin(angle / 2)
        flat = half.abs() <= 2e-3
        sums = torch.where(flat, count, torch.sin(count * angle) / torch.where(flat, 1.0, half))
        return torch.where(voiced, sums - 0.5, 0.0)

    def _frames(self, count: int) -> torch.Tensor:
        """Return windowed speech (T, fft) of the next `count` frames."""
        if not count:
            return self.pulses_S.new_zeros(0, self.fft)
        source_TS = self.pulses_S[: (count - 1) * self.hop + self.fft].unfold(0, self.fft, self.hop)
        source_TF = torch.fft.rfft(source_TS * (self.hann_S / (self.fft / 4)))
        a, b, c, d, e = self.spectra_TX[:count].chunk(5, dim=-1)
        index = (self.frame + torch.arange(count, device=self.noise_TF.device)) % NOISE_FRAMES
        spectrum_TF = (
            torch.polar(a.clamp(max=MAX_LOG).exp(), math.pi * torch.tanh(b)) * source_TF
            + c.clamp(max=MAX_LOG).exp() * self.noise_TF[index]
            + torch.polar(d.clamp(max=MAX_LOG).exp(), e)
        )
        self.pulses_S = self.pulses_S[count * self.hop :]
        self.spectra_TX = self.spectra_TX[count:]
        self.frame += count
        return torch.fft.irfft(spectrum_TF, n=self.fft) * self.hann_S

    def _overlap(self, frames_TS: torch.Tensor) -> torch.Tensor:
        """Overlap-add frames and return the samples that are whole, `hop` for each."""
        count, parts = len(frames_TS), self.fft // self.hop
        if not count:
            return self.total_S.new_zeros(0)
        squares = self.hann_S.square().expand(count, -1)
        total = functional.pad(self.total_S, (0, count * self.hop)).reshape(2, -1, self.hop)
        for part in range(parts):
            for row, source in enumerate((frames_TS, squares)):
                total[row, part : part + count] += source[:, part * self.hop : (part + 1) * self.hop]
        total = total.reshape(2, -1)
        self.total_S = total[:, count * self.hop :]
        return self._normal(total[:, : count * self.hop])

    def _normal(self, total_2S: torch.Tensor) -> torch.Tensor:
        return total_2S[0] / total_2S[1].clamp(min=1e-11)
