"""Phrases of a recording: what is said between short pauses, with the words that a recogniser found in the whole of it.

A word alone tells a recogniser little, so words are found in long recordings and cut with them. A phrase is kept where its words
lie well inside two quiet stretches; it knows no recogniser.

Legend: S samples, T frames.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from echox.audio import SAMPLE_RATE
from echox.features.cuts import powers

FRAME = 320  # samples at 16 kHz, 20 ms
PAUSE = 12  # frames of quiet that end a phrase
QUIET_DB = 25  # below the loud parts
MARGIN = 0.2  # seconds of quiet kept at each side
SLIP = 0.25  # seconds by which the times of words may be wrong


@dataclass(frozen=True)
class Word:
    """A word as it is written, with the blank before it, when it is said (seconds), and how sure that is (0 to 1)."""

    text: str
    start: float
    end: float
    probability: float


def quiet_stretches(wave_S: np.ndarray) -> list[tuple[float, float]]:
    """Return where nothing is said for `PAUSE` frames and more, in seconds; the first and the last may be empty."""
    level_T = 10 * np.log10(powers(wave_S, FRAME).clip(1e-12))
    loud = np.flatnonzero(level_T > np.percentile(level_T, 95) - QUIET_DB)
    edges = [-1, *loud.tolist(), len(level_T)]
    seconds = FRAME / SAMPLE_RATE
    ends = (0, len(edges) - 2)  # before the first word, after the last
    pairs = enumerate(zip(edges, edges[1:], strict=False))
    return [((a + 1) * seconds, b * seconds) for n, (a, b) in pairs if n in ends or b - a > PAUSE]


def phrases_of(
    wave_S: np.ndarray, words: Sequence[Word], most_words: int, least_probability: float
) -> Iterator[tuple[slice, str]]:
    """Yield which samples at 16 kHz each phrase of at most `most_words` sure words takes, and its text."""
    quiet = quiet_stretches(wave_S)
    for (before, begins), (ends, after) in zip(quiet, quiet[1:], strict=False):
        own = [word for word in words if begins <= (word.start + word.end) / 2 <= ends]
        if not 0 < len(own) <= most_words or min(word.probability for word in own) < least_probability:
            continue
        if all(begins - SLIP <= word.start and word.end <= ends + SLIP for word in own):
            first, last = max(before, begins - MARGIN), min(after, ends + MARGIN)
            yield slice(int(first * SAMPLE_RATE), int(last * SAMPLE_RATE)), "".join(word.text for word in own).strip()
