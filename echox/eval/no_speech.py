"""Sounds in which nobody speaks, made from a seed: a model that hears words in them invents.

silence   the floor of an empty recording      hum      mains and its overtones
noise     white or pink                         chords   plucked triads, one after another
clicks    single decaying knocks at random moments
"""

from collections.abc import Callable

import numpy as np

from echox.audio import SAMPLE_RATE
from echox.prepare.perturb import at_peak, coloured_noise
from echox.prepare.speak import generator

SECONDS = (1.0, 10.0)
PEAK_DBFS = (-30.0, -3.0)
FLOOR_DBFS = (-70.0, -50.0)
TRIADS = ((0, 4, 7), (0, 3, 7), (0, 5, 9), (0, 4, 7, 10))


def _hum(count: int, rng: np.random.Generator) -> np.ndarray:
    base, seconds = float(rng.choice([50.0, 60.0])), np.arange(count) / SAMPLE_RATE
    strengths = rng.random(8) / np.arange(1, 9)
    tones = [s * np.sin(2 * np.pi * base * n * seconds + rng.uniform(0, 6)) for n, s in enumerate(strengths, start=1)]
    return np.sum(tones, axis=0)


def _chords(count: int, rng: np.random.Generator) -> np.ndarray:
    wave, start = np.zeros(count), 0
    while start < count:
        seconds = np.arange(count - start) / SAMPLE_RATE
        root = 220 * 2 ** (int(rng.integers(-12, 13)) / 12)
        for step in TRIADS[int(rng.integers(len(TRIADS)))]:
            tone = root * 2 ** (step / 12)
            overtones = sum(np.sin(2 * np.pi * tone * n * seconds) / n**1.5 for n in (1, 2, 3, 4))
            wave[start:] += overtones * np.exp(-3 * seconds)
        start += int(rng.uniform(0.3, 1.5) * SAMPLE_RATE)
    return wave


def _clicks(count: int, rng: np.random.Generator) -> np.ndarray:
    wave = 1e-3 * rng.standard_normal(count)
    for place in rng.integers(count, size=max(1, rng.poisson(2 * count / SAMPLE_RATE))):
        seconds = np.arange(min(count - place, SAMPLE_RATE // 20)) / SAMPLE_RATE
        wave[place : place + len(seconds)] += rng.standard_normal(len(seconds)) * np.exp(
            -seconds * rng.uniform(100, 800)
        )
    return wave


KINDS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "silence": lambda count, rng: rng.standard_normal(count),
    "noise": lambda count, rng: coloured_noise(count, str(rng.choice(["white", "pink"])), rng),
    "hum": _hum,
    "chords": _chords,
    "clicks": _clicks,
}


def no_speech(kind: str, number: int) -> np.ndarray:
    """Return one sound of a kind in `KINDS`, float32 at 16 kHz, 1 to 10 s; the same for the same number."""
    rng = generator(0, "no-speech", kind, str(number))
    count = int(rng.uniform(*SECONDS) * SAMPLE_RATE)
    wave = KINDS[kind](count, rng)
    return at_peak(np.asarray(wave), float(rng.uniform(*(FLOOR_DBFS if kind == "silence" else PEAK_DBFS))))
