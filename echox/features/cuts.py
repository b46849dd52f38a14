"""Recordings cut where they are quiet, so that each piece can be read at once; it knows samples, not models.

    cut_at_pauses   ---speech---..---speech----..-----speech--      `longest` samples a piece, cut where its last half is quietest
    phrases         ---sentence---....---sentence---                at every pause; of a long one a second is kept at each side

Legend: S samples, T frames.
"""

import numpy as np

WINDOW = 3200  # samples, 0.2 s at 16 kHz: a cut is in the middle of the quietest so long stretch
STEP = 160
FRAME = 320  # samples, 20 ms
PAUSE, SHORTEST, KEPT = 20, 50, 50  # frames: a pause between sentences, the shortest phrase, silence kept around one
LOUDEST = 25  # frames that give the level of speech, however little of a recording it is
RANGE = 60  # dB from speech down to the room's noise, at most
SHARE = 0.2  # of the way from the room up to speech: below it is quiet


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


def powers(wave_S: np.ndarray, frame: int) -> np.ndarray:
    """Return the mean power of every whole frame of a wave, float64 [T]."""
    frames = len(wave_S) // frame
    return np.square(wave_S[: frames * frame], dtype=np.float64).reshape(frames, frame).mean(1)


def phrases(wave_S: np.ndarray, longest: int) -> list[np.ndarray]:
    """Return what is said between pauses of 0.4 s and more, in order, no piece longer than `longest`."""
    level_T = 10 * np.log10(powers(wave_S, FRAME).clip(1e-12))
    frames = len(level_T)
    if not frames:
        return [wave_S]
    speech = np.sort(level_T)[-LOUDEST:][0]
    room = max(np.percentile(level_T, 5), speech - RANGE)
    loud = np.flatnonzero(level_T >= room + SHARE * (speech - room))
    cuts = [0]
    for before, after in zip(loud, loud[1:], strict=False):
        cut = int(before + after) // 2
        if after - before > PAUSE and min(cut - cuts[-1], frames - cut) >= SHORTEST:
            cuts.append(cut)
    pieces: list[np.ndarray] = []
    for first, end in zip(cuts, [*cuts[1:], frames], strict=True):
        own = loud[(loud >= first) & (loud < end)]
        begins, ends = max(first, own[0] - KEPT), min(end, own[-1] + 1 + KEPT)
        last = len(wave_S) if ends == frames else ends * FRAME
        pieces += cut_at_pauses(wave_S[begins * FRAME : last], longest)
    return pieces
