"""How an answer sounds: pauses, rate, clipping and offsets of its samples, and what networks make of the voice.

The networks' weights come inside optional packages, so they run offline: DNSMOS (Reddy et al. 2022) through speechmos, DistillMOS
(Stahl and Gamper 2025) and Resemblyzer's GE2E (Wan et al. 2018). Numbers of different networks must never share a column.
"""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

from echox.audio import SAMPLE_RATE
from echox.errors import InputError, require
from echox.features.cuts import powers

FRAME = 320  # samples: 20 ms at 16 kHz
SILENCE_DB = -40.0  # below the loudest frame
SILENCE_FLOOR = 1e-4  # linear: nothing under this counts as speech, so digital silence has none
PAUSE_FRAMES = 10  # 200 ms
CLIP = 0.999
CLIP_RUN = 3  # samples in a row at full scale: one alone may be a true peak
DC_LIMIT = 0.01
Measure = Callable[[np.ndarray], dict[str, float]]  # a wave at 16 kHz to scores by name; none where it is too short


def dnsmos() -> Measure:
    """Return a function from a wave at 16 kHz to DNSMOS's P.835 and P.808 scores (1 to 5, higher is better)."""
    network = require("speechmos.dnsmos", "eval")

    def score(wave: np.ndarray) -> dict[str, float]:
        if len(wave) < SAMPLE_RATE // 10:
            return {}
        found = network.run(np.clip(np.asarray(wave, dtype=np.float32), -1, 1), SAMPLE_RATE)
        names = {"ovrl_mos": "dnsmos", "sig_mos": "dnsmos_sig", "bak_mos": "dnsmos_bak", "p808_mos": "dnsmos_p808"}
        return {ours: float(found[theirs]) for theirs, ours in names.items()}

    return score


def distillmos() -> Measure:
    """Return a function from a wave at 16 kHz to its DistillMOS score (1 to 5, higher is better)."""
    import torch

    with _torchaudio_in_name_only():
        network = _alone("distillmos", "distillmos xls-r-sqa").ConvTransformerSQAModel().eval()

    def score(wave: np.ndarray) -> dict[str, float]:
        if len(wave) < SAMPLE_RATE // 2:
            return {}
        with torch.inference_mode():
            return {"distillmos": float(network(torch.from_numpy(np.asarray(wave, dtype=np.float32))[None])[0])}

    return score


def speaker_similarity(reference: np.ndarray) -> Measure:
    """Return a function from a wave at 16 kHz to the cosine of its speaker with that of `reference` (GE2E)."""
    resemblyzer = _alone("resemblyzer", "resemblyzer webrtcvad-wheels")
    encoder = resemblyzer.VoiceEncoder("cpu", verbose=False)
    wanted = encoder.embed_utterance(resemblyzer.preprocess_wav(np.asarray(reference, dtype=np.float32), SAMPLE_RATE))

    def score(wave: np.ndarray) -> dict[str, float]:
        ready = resemblyzer.preprocess_wav(np.asarray(wave, dtype=np.float32), SAMPLE_RATE)
        if len(ready) < SAMPLE_RATE // 2:
            return {}
        return {"speaker_similarity": float(wanted @ encoder.embed_utterance(ready))}

    return score


def _alone(module: str, packages: str) -> Any:
    """Import a package that is in no extra, because what it asks for (torchaudio, a compiler) it does not need here.

    Raises MissingDependency with the line that installs it without its dependencies; `eval` has the real ones.
    """
    own = tuple(name.replace("-", "_") for name in (*packages.split(), "webrtcvad", "xls_r_sqa"))
    return require(module, install=f'pip install --no-deps {packages}, after pip install "openechox[eval]"', own=own)


@contextmanager
def _torchaudio_in_name_only() -> Iterator[None]:
    """Let distillmos and xls-r-sqa be imported without torchaudio, which has to match torch's build exactly.

    Both import it at the top and use it only to read files, which we do ourselves: an empty module stands in for it meanwhile.
    """
    absent = "torchaudio" not in sys.modules
    if absent:
        empty: Any = ModuleType("torchaudio")
        empty.__spec__ = ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = empty
    try:
        yield
    finally:
        if absent:
            sys.modules.pop("torchaudio", None)


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
    first, last = (np.flatnonzero(active)[[0, -1]] + (0, 1)) if active.any() else (0, 0)
    silences = np.diff(_runs(~active[first:last]))
    pauses = silences[silences >= PAUSE_FRAMES]
    spoken = int(last - first) * frame / sample_rate
    words = len(re.findall(r"\w+", text))
    return {
        "seconds": len(wave) / sample_rate,
        "speech_seconds": spoken,
        "words_per_second": words / spoken if spoken > 0 else 0.0,
        "pauses": float(len(pauses)),
        "pause_seconds": int(pauses.sum()) * frame / sample_rate,
        "longest_pause": int(pauses.max(initial=0)) * frame / sample_rate,
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


def _runs(where: np.ndarray) -> np.ndarray:
    """Return (start, end) of every run of true values, int64 [runs, 2]."""
    padded = np.concatenate([[False], where, [False]])
    return np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2)
