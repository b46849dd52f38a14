"""A question that is heard while it is asked: samples come in as they are recorded, then the answer is streamed.

    push   0.4 s ──► heard so far ──► the answer begun, a token a push ... 0.4 s more ──► heard again ...
    answer ───────► the whole heard, words and answer checked against what was found before ──► pieces

Between two pushes nothing runs: a push does at most one piece of work, so that the next one is not kept waiting. The answer is that
to the whole question (generate/batched.py).
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np

from echox.audio import SAMPLE_RATE
from echox.errors import InputError
from echox.generate.engine import Ask, Engine, made_by
from echox.generate.types import WAIT, Piece

EVERY_SECONDS = 0.4  # of new sound after which what was understood is looked at again
EVERY_SHARE = 0.1  # of what has been said, for long questions: hearing takes longer the more there is


class Listening:
    """One question after the other, put as samples at the rate of `ask`; everything else of `ask` holds for each of them."""

    def __init__(self, engine: Engine, ask: Ask) -> None:
        self.engine, self.ask, self.rate = engine, ask, ask.sample_rate or SAMPLE_RATE
        self._begin()

    def _begin(self) -> None:
        self.pieces: list[np.ndarray] = []
        self.count = self.heard = 0  # samples that came, and those of them that were listened to
        self.ahead: Iterator[Piece] = iter(())

    def push(self, samples: np.ndarray) -> None:
        """Take samples, float in [-1, 1] or int16, of one kind throughout, and go on listening or thinking by one piece of work."""
        self.pieces.append(np.asarray(samples))
        self.count += len(samples)
        if is_due(self.count / self.rate, self.heard / self.rate):
            self._hush()
            self.heard = self.count
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


def is_due(seconds: float, heard: float) -> bool:
    """Say whether so much has been said since it was last listened to that it is worth listening again."""
    return seconds - heard >= max(EVERY_SECONDS, EVERY_SHARE * seconds)
