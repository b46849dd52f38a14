"""Acoustic perturbation of speech: room, noise, telephone, silence, level.

Pure functions of samples and a random generator; knows no voice, file or recipe beyond the `Perturbation` settings.
Waves are float32 [samples] at `SAMPLE_RATE` Hz.
"""

from collections.abc import Sequence

import numpy as np

from echox.audio import SAMPLE_RATE, resample
from echox.errors import require
from echox.prepare.recipe import Perturbation

TELEPHONE_RATE = 8_000
TELEPHONE_BAND_HZ = (300.0, 3_400.0)
MU = 255.0


def power(wave: np.ndarray) -> float:
    """Return the mean square of a wave, never zero."""
    return float(np.mean(np.square(wave), dtype=np.float64)) + 1e-12 if len(wave) else 1e-12


def coloured_noise(count: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return `count` samples of white noise, or pink noise (power falling as 1 / f), of about unit power."""
    white = rng.standard_normal(count)
    if kind == "white" or count < 2:
        return white.astype(np.float32)
    spectrum = np.fft.rfft(white)
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    pink = np.fft.irfft(spectrum, count)
    return (pink / np.sqrt(power(pink))).astype(np.float32)


def babble(count: int, talkers: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return `count` samples of three to six talkers at once, each started at a random point and repeated."""
    mix = np.zeros(count, dtype=np.float32)
    for index in rng.integers(len(talkers), size=int(rng.integers(3, 7))):
        talker = talkers[index]
        mix += np.resize(np.roll(talker, -int(rng.integers(max(len(talker), 1)))), count) / np.sqrt(power(talker))
    return mix


def add_noise(wave: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Return wave + noise, the noise scaled so that the power ratio is `snr_db`."""
    gain = np.sqrt(power(wave) / power(noise) / 10 ** (snr_db / 10))
    return (wave + gain * noise).astype(np.float32)


def room_response(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return a synthetic impulse response: the direct sound, then noise that falls by 60 dB in `seconds`."""
    count = max(int(seconds * SAMPLE_RATE), 2)
    decay = np.exp(-6.9 * np.arange(count) / count)
    tail = rng.standard_normal(count) * decay
    tail[: int(rng.uniform(0.001, 0.006) * SAMPLE_RATE)] = 0.0
    response = tail * np.sqrt(rng.uniform(0.1, 0.8) / power(tail) / count)
    response[0] = 1.0
    return response.astype(np.float32)


def telephone(wave: np.ndarray) -> np.ndarray:
    """Return the wave as a telephone passes it: 300-3400 Hz, 8 kHz, 8-bit mu-law, and back at `SAMPLE_RATE`."""
    low, high = TELEPHONE_BAND_HZ
    signal = require("scipy.signal", extra="prepare")
    band = signal.butter(4, [low, high], btype="bandpass", fs=SAMPLE_RATE, output="sos")
    narrow = resample(np.asarray(signal.sosfilt(band, wave), dtype=np.float32), SAMPLE_RATE, TELEPHONE_RATE)
    peak = float(np.max(np.abs(narrow), initial=1e-6))
    companded = np.sign(narrow) * np.log1p(MU * np.abs(narrow) / peak) / np.log1p(MU)
    companded = np.round(companded * 127) / 127
    narrow = np.sign(companded) * np.expm1(np.abs(companded) * np.log1p(MU)) / MU * peak
    return np.resize(resample(narrow.astype(np.float32), TELEPHONE_RATE, SAMPLE_RATE), len(wave))


def at_peak(wave: np.ndarray, dbfs: float) -> np.ndarray:
    """Return the wave scaled so that its highest sample is at `dbfs` (0 is full scale)."""
    return (wave * (10 ** (dbfs / 20) / np.max(np.abs(wave), initial=1e-6))).astype(np.float32)


def perturb(
    wave: np.ndarray, settings: Perturbation, talkers: Sequence[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, float | str]]:
    """Return the perturbed wave and what was done to it (keys noise, snr_db, room_seconds, telephone, peak_dbfs)."""
    done: dict[str, float | str] = {}
    lead, trail = (int(rng.uniform(*settings.silence_seconds) * SAMPLE_RATE) for _ in range(2))
    wave = np.pad(wave, (lead, trail)).astype(np.float32)
    if rng.random() < settings.room_share:
        done["room_seconds"] = round(float(rng.uniform(*settings.room_seconds)), 3)
        convolve = require("scipy.signal", extra="prepare").fftconvolve
        wave = convolve(wave, room_response(float(done["room_seconds"]), rng))[: len(wave)]
    if rng.random() < settings.noise_share:
        kinds = [kind for kind in settings.noise_kinds if kind != "babble" or talkers]
        done["noise"] = kind = str(rng.choice(kinds))
        done["snr_db"] = round(float(rng.uniform(*settings.snr_db)), 2)
        noise = babble(len(wave), talkers, rng) if kind == "babble" else coloured_noise(len(wave), kind, rng)
        wave = add_noise(wave, noise, float(done["snr_db"]))
    if rng.random() < settings.telephone_share:
        done["telephone"] = 1.0
        wave = telephone(wave)
    done["peak_dbfs"] = round(float(rng.uniform(*settings.peak_dbfs)), 2)
    return at_peak(wave, float(done["peak_dbfs"])), done
