"""Long recordings cut where they are quiet, so that each piece can be read at once; it knows samples, not models.

    wave   ---speech---..---speech----..-----speech--      `longest` samples a piece at most, cut where its last half is quietest

Legend: S samples.
"""

import numpy as np

WINDOW = 3200  # samples, 0.2 s at 16 kHz: a cut is in the middle of the quietest so long stretch
STEP = 160


def cut_at_pauses(wave_S: np.ndarray, longest: int) -> list[np.ndarray]:
    """Return the pieces of a wave, in order and none longer than `longest`; joined they are the wave."""
    pieces, rest_S = [], wave_S
    while len(rest_S) > longest:
        first = max(longest // 2, 1)
        power = np.square(rest_S[first:longest], dtype=np.float64)
        window = min(WINDOW, len(power))
        sums = np.r_[0.0, np.cumsum(power)]
        loudness = (sums[window:] - sums[:-window])[::STEP]
        cut = first + int(loudness.argmin()) * STEP + window // 2
        pieces.append(rest_S[:cut])
        rest_S = rest_S[cut:]
    return [*pieces, rest_S]
