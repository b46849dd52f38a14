"""Cuts stretches of a few words out of long recordings: real voices for a listener that must hear single words, too.

A recogniser hears isolated words badly, so words are aligned in the whole recording and cut at quiet places between them; it knows
no recogniser.

Legend: S samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from echox.audio import SAMPLE_RATE

MOST_WORDS, MOST_SECONDS, LEAST_SECONDS = 5, 3.0, 0.2
SURE = 0.6  # of every word
WINDOW = SAMPLE_RATE // 50  # samples, 20 ms, over which power is taken
REACH = 0.06  # seconds beyond the ends of two words in which the place between them is looked for
EDGE = 0.2  # seconds kept before the first word and after the last
QUIET = 0.02  # of the power of the loud parts: 17 dB below them
FADE = SAMPLE_RATE // 100  # samples


@dataclass(frozen=True)
class Word:
    """A recognised word with its leading space, its times in seconds, and its probability."""

    text: str
    start: float
    end: float
    probability: float


def stretches(
    wave_S: np.ndarray, words: Sequence[Word], count: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, str]]:
    """Yield up to `count` random stretches of a 16 kHz wave with their words; unsure or badly cut ones are skipped."""
    if not words:
        return
    power_S = np.convolve(np.square(wave_S, dtype=np.float64), np.ones(WINDOW) / WINDOW, "same")
    cuts = [_sample(words[0].start - EDGE, wave_S), *_between(words, power_S), _sample(words[-1].end + EDGE, wave_S)]
    limit = QUIET * np.percentile(power_S, 90)
    clean = [True, *(power_S[cut] < limit for cut in cuts[1:-1]), True]
    seen = set()
    for _ in range(count):
        first, length = int(rng.integers(len(words))), int(rng.integers(1, MOST_WORDS + 1))
        last = first + length
        if last > len(words) or not (clean[first] and clean[last]) or (first, last) in seen:
            continue
        seen.add((first, last))
        own = words[first:last]
        samples = cuts[last] - cuts[first]
        if min(word.probability for word in own) < SURE or not LEAST_SECONDS < samples / SAMPLE_RATE < MOST_SECONDS:
            continue
        yield _faded(wave_S[cuts[first] : cuts[last]]), "".join(word.text for word in own).strip()


def _between(words: Sequence[Word], power_S: np.ndarray) -> list[int]:
    """Return the quietest sample between each word and the next."""
    places = []
    for word, following in zip(words, words[1:], strict=False):
        middle = (word.end + following.start) / 2
        first = _sample(min(word.end, middle) - REACH, power_S)
        last = _sample(max(following.start, middle) + REACH, power_S)
        places.append(first + int(power_S[first : last + 1].argmin()))
    return places


def _sample(seconds: float, wave_S: np.ndarray) -> int:
    return min(max(0, int(seconds * SAMPLE_RATE)), len(wave_S) - 1)


def _faded(wave_S: np.ndarray) -> np.ndarray:
    faded_S, ramp = wave_S.copy(), np.linspace(0, 1, FADE, dtype=np.float32)
    faded_S[:FADE] *= ramp
    faded_S[-FADE:] *= ramp[::-1]
    return faded_S
