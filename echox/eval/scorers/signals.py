"""Checks of an answer's samples in plain numpy: pauses, rate, clipping, offsets."""

import re

import numpy as np

from echox.audio import SAMPLE_RATE
from echox.errors import InputError
from echox.features.cuts import powers

FRAME = 320  # samples: 20 ms at 16 kHz
SILENCE_DB = -40.0  # below the loudest frame
SILENCE_FLOOR = 1e-4  # linear: nothing under this counts as speech, so digital silence has none
PAUSE_FRAMES = 10  # 200 ms
CLIP = 0.999
CLIP_RUN = 3  # samples in a row at full scale: one alone may be a true peak
DC_LIMIT = 0.01


def signal_checks(wave: np.ndarray, sample_rate: int, text: str = "") -> dict[str, float]:
    """Return seconds, speech and pause seconds, words a second, peak, share of clipped samples and DC offset.

    `wave` is float [samples] in [-1, 1]; rates are per second of audio without its leading and trailing silence.
    Raises InputError when a sample is not a finite number.
    """
    wave = np.asarray(wave, dtype=np.float64)
    if not np.isfinite(wave).all():
        raise InputError("the audio holds samples that are not finite numbers: the vocoder has failed.")
    frame = FRAME * sample_rate // SAMPLE_RATE
    active = speech_frames(wave, frame)
    runs = _silent_runs(active)
    pauses = [length for length, edge in runs if not edge and length >= PAUSE_FRAMES]
    spoken = (len(active) - sum(length for length, edge in runs if edge)) * frame / sample_rate
    words = len(re.findall(r"\w+", text))
    return {
        "seconds": len(wave) / sample_rate,
        "speech_seconds": spoken,
        "words_per_second": words / spoken if spoken > 0 else 0.0,
        "pauses": float(len(pauses)),
        "pause_seconds": sum(pauses) * frame / sample_rate,
        "longest_pause": max(pauses, default=0) * frame / sample_rate,
        "peak": float(np.abs(wave).max()) if len(wave) else 0.0,
        "clipped": clipped_share(wave),
        "dc": float(wave.mean()) if len(wave) else 0.0,
    }


def speech_frames(wave: np.ndarray, frame: int = FRAME) -> np.ndarray:
    """Return bool [len(wave) // frame]: True where a frame's RMS is within 40 dB of the loudest frame's."""
    rms = np.sqrt(powers(wave, frame))
    return rms > max(rms.max(initial=0.0) * 10 ** (SILENCE_DB / 20), SILENCE_FLOOR)


def clipped_share(wave: np.ndarray) -> float:
    """Return the share of samples in runs of at least three at full scale (magnitude 0.999 or more)."""
    if not len(wave):
        return 0.0
    lengths = np.diff(_runs(np.abs(wave) >= CLIP))
    return float(lengths[lengths >= CLIP_RUN].sum() / len(wave))


def _silent_runs(active: np.ndarray) -> list[tuple[int, bool]]:
    """Return (length, at an edge?) of every run of silent frames."""
    return [(int(end - start), start == 0 or end == len(active)) for start, end in _runs(~active)]


def _runs(where: np.ndarray) -> np.ndarray:
    """Return (start, end) of every run of true values, int64 [runs, 2]."""
    padded = np.concatenate([[False], where, [False]])
    return np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2)
