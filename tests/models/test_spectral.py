"""The spectral decoder and its sound against plain twins in numpy."""

import numpy as np
import pytest
import torch

from echox.models.spectral import NOISE_FRAMES, Sound, SpectralConfig, SpectralDecoder, as_inputs, sound_ahead

CONFIG = SpectralConfig(latents=6, width=10, layers=2, kernel=5)
F0 = np.r_[np.zeros(4), np.linspace(120, 260, 14), np.zeros(5), np.full(9, 180.0), np.zeros(3)].astype(np.float32)


def spectra(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(F0), 5 * 601, generator=generator) - 2.0


def slow_pulses(f0: np.ndarray, hop: int, rate: int) -> np.ndarray:
    """Sample by sample, harmonic by harmonic."""
    padded, out, turns = np.r_[f0[0], f0, f0[-1]].astype(np.float64), [], 0.0
    for sample in range(len(f0) * hop):
        place = (sample + 0.5) / hop + 0.5
        low = int(place)
        value = padded[low] + (padded[low + 1] - padded[low]) * (place - low)
        if value <= 40:
            turns = 0.0
            out.append(0.0)
            continue
        turns += value / rate
        harmonics = np.arange(1, int(11_000 / value) + 1)
        out.append(np.cos(2 * np.pi * turns * harmonics).sum())
    return np.array(out)


def slow_sound(spectra_TX: np.ndarray, f0: np.ndarray, noise_TF: np.ndarray) -> np.ndarray:
    """Frame by frame: spectrum of the pulses, five parts, inverse, overlap-add over the squared windows."""
    hop, fft = CONFIG.hop, CONFIG.fft
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(fft) / fft)
    pulses = np.pad(slow_pulses(f0, hop, CONFIG.sample_rate), fft // 2)
    total, weight = np.zeros(len(f0) * hop + fft), np.zeros(len(f0) * hop + fft)
    for frame, row in enumerate(spectra_TX):
        at = slice(frame * hop, frame * hop + fft)
        source = np.fft.rfft(pulses[at] * window / (fft / 4))
        a, b, c, d, e = np.split(row, 5)
        spectrum = np.exp(a + 1j * np.pi * np.tanh(b)) * source
        spectrum += np.exp(c) * noise_TF[frame % NOISE_FRAMES] + np.exp(d + 1j * e)
        total[at] += np.fft.irfft(spectrum, fft) * window
        weight[at] += window**2
    inner = slice(fft // 2, fft // 2 + len(f0) * hop)
    return total[inner] / weight[inner]


def test_sound_equals_its_slow_twin():
    sound = Sound(CONFIG)
    expected = slow_sound(spectra().numpy().astype(np.float64), F0, sound.noise_TF.numpy())
    made = sound.push(spectra(), torch.from_numpy(F0), last=True).numpy()
    assert made.shape == (len(F0) * 300,) and made.std() > 0.01
    np.testing.assert_allclose(made, expected, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize("cuts", [[1] * 35, [0, 7, 1, 20, 7], [34, 1]])
def test_any_cutting_gives_the_same_samples(cuts):
    expected = Sound(CONFIG).push(spectra(), torch.from_numpy(F0), last=True)
    sound, made = Sound(CONFIG), []
    rows, pitch = spectra().split(cuts), torch.from_numpy(F0).split(cuts)
    for number in range(len(cuts)):
        made.append(sound.push(rows[number], pitch[number], last=number == len(cuts) - 1))
        if number < len(cuts) - 1:
            assert sum(map(len, made)) == max(0, sum(cuts[: number + 1]) - sound_ahead(CONFIG)) * 300
    torch.testing.assert_close(torch.cat(made), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_decoder_pieces_equal_the_whole():
    torch.manual_seed(0)
    decoder = SpectralDecoder(CONFIG).eval()
    inputs_BTI = as_inputs(torch.randn(1, 30, 6), torch.full((1, 30), 150.0), torch.rand(1, 30))
    expected, tails = decoder(inputs_BTI), decoder.tails()
    made = [decoder(piece, tails, last=i == 2) for i, piece in enumerate(inputs_BTI.split([4, 21, 5], dim=1))]
    assert made[0].shape[1] == max(0, 4 - decoder.ahead)
    torch.testing.assert_close(torch.cat(made, dim=1), expected)


def test_inputs_are_pitch_as_a_log_and_energy():
    inputs = as_inputs(torch.zeros(1, 2, 6), torch.tensor([[0.0, 147.4132]]), torch.tensor([[0.5, 1.0]]))
    torch.testing.assert_close(inputs[0, :, 6:], torch.tensor([[0.0, 0.5], [1.0, 1.0]]))
