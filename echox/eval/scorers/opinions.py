"""What networks make of a voice: opinion scores and speaker similarity.

Their weights come inside optional packages, so they run offline: DNSMOS (Reddy et al. 2022) through speechmos, DistillMOS (Stahl
and Gamper 2025) and Resemblyzer's GE2E (Wan et al. 2018). Numbers of different networks must never share a column.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

from echox.audio import SAMPLE_RATE
from echox.errors import require

Measure = Callable[[np.ndarray], dict[str, float]]
"""A wave at 16 kHz to scores by name; none for a wave that is too short."""


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
    """Let distillmos and xls-r-sqa be imported without torchaudio.

    Both import it at the top and use it only to read files, which we do ourselves; torchaudio has to match torch's
    build exactly and is the usual reason that a MOS package cannot be installed. If it is absent an empty module stands
    in for it while they are imported, and is taken away again.
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
