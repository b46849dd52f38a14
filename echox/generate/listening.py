"""A question that is heard while it is asked: samples come in as they are recorded, then the answer is streamed.

    push   0.4 s, or a pause ──► heard so far ──► the answer begun, a token a push ... 0.4 s more ──► heard again ...
    answer ──────────────────► the whole heard, words and answer checked against what was found before ──► pieces

Between two pushes nothing runs: a push does at most one piece of work, so that the next one is not kept waiting. The answer is that
to the whole question (generate/batched.py).
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from echox.audio import SAMPLE_RATE
from echox.errors import InputError
from echox.generate.engine import Ask, Engine, made_by
from echox.generate.types import WAIT, Piece

EVERY_SECONDS = 0.4  # of new sound after which what was understood is looked at again
EVERY_SHARE = 0.1  # of what has been said, for long questions: hearing takes longer the more there is
PAUSE_SECONDS, PAUSE_SHARE = 0.15, 0.1  # a pause is so long, and so quiet beside the loudest that was said


@dataclass
class Pace:
    """When a growing sound is worth hearing again: after a while, and at once where somebody has spoken and pauses."""

    fresh: float = 0.0  # seconds that came since it was last listened to
    quiet: float = 0.0  # seconds of pause at its end
    loudest: float = 0.0
    spoken: bool = False  # since it was last listened to

    def push(self, samples: np.ndarray, rate: int) -> None:
        """Take note of more of the sound; what comes together counts as one, loud or quiet."""
        seconds, peak = len(samples) / rate, float(np.abs(np.asarray(samples, np.float32)).max(initial=0.0))
        self.loudest = max(self.loudest, peak)
        loud = peak >= PAUSE_SHARE * self.loudest
        self.fresh += seconds
        self.quiet = 0.0 if loud else self.quiet + seconds
        self.spoken |= loud

    def is_due(self, seconds: float) -> bool:
        """Say whether a sound of `seconds` is worth hearing again, and count it as heard if so."""
        paused = self.spoken and self.quiet >= PAUSE_SECONDS and seconds >= EVERY_SECONDS
        if not paused and min(self.fresh, seconds) < max(EVERY_SECONDS, EVERY_SHARE * seconds):
            return False
        self.fresh, self.spoken = 0.0, False
        return True


class Listening:
    """One question after the other, put as samples at the rate of `ask`; everything else of `ask` holds for each of them."""

    def __init__(self, engine: Engine, ask: Ask) -> None:
        self.engine, self.ask, self.rate = engine, ask, ask.sample_rate or SAMPLE_RATE
        self._begin()

    def _begin(self) -> None:
        self.pieces: list[np.ndarray] = []
        self.pace = Pace()
        self.ahead: Iterator[Piece] = iter(())

    def push(self, samples: np.ndarray) -> None:
        """Take samples, float in [-1, 1] or int16, of one kind throughout, and go on listening or thinking by one piece of work."""
        self.pieces.append(np.asarray(samples))
        self.pace.push(samples, self.rate)
        if self.pace.is_due(sum(map(len, self.pieces)) / self.rate):
            self._hush()
            self.ahead = self.engine.open(self._ask(so_far=True))
        with suppress(InputError):  # what cannot be heard yet, a quiet beginning
            if next(self.ahead, None) is WAIT:
                self.engine.step()

    def answer(self, last: np.ndarray | None = None) -> Iterator[Piece]:
        """Return the pieces of the answer to all that was pushed, and to the `last` samples if some are left.

        Errors are those of `stream`. The next sample begins the next question.
        """
        self.pieces += [] if last is None else [np.asarray(last)]
        self._hush()
        ask = self._ask()
        self._begin()
        return made_by(self.engine, ask)

    def _ask(self, so_far: bool = False) -> Ask:
        wave = np.concatenate(self.pieces) if self.pieces else np.zeros(0, np.float32)
        return replace(self.ask, question=wave, so_far=so_far)

    def _hush(self) -> None:
        close = getattr(self.ahead, "close", None)
        if close is not None:
            close()
