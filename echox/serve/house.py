"""What all routes of a server share: workers and their answers, settings, metrics, authentication and rate limits."""

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np
from starlette.requests import HTTPConnection

from echox.audio import read_question
from echox.errors import EchoxError
from echox.generate.engine import Ask
from echox.generate.types import Piece
from echox.serve.metrics import Metrics
from echox.serve.refusals import Refusal, draining, refusal_of
from echox.serve.settings import Settings
from echox.serve.worker import Worker

log = logging.getLogger("echox.serve")
MOST_CALLERS = 10_000  # of whom the rate limit keeps count


@dataclass
class House:
    """The shared state of one application."""

    workers: dict[str, Worker]
    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    draining: bool = False  # told to end: what is new is refused
    sessions: int = 0  # open realtime connections
    under_way: int = 0  # answers being made or waiting
    calls: dict[str, tuple[float, float]] = field(default_factory=dict)  # caller: (calls left, at this time)

    def worker(self, model: str) -> Worker:
        """Return the worker of a model; Refusal 404 that lists the models."""
        if model not in self.workers:
            known = ", ".join(self.workers)
            raise Refusal(404, f"the model {model[:60]!r} is not here: choose {known}.", "model_not_found", "model")
        return self.workers[model]

    async def wave_of(self, data: bytes) -> np.ndarray:
        """Return the samples of a recording, float32 [S] at 16 kHz; InputError when it cannot be read or is too long."""
        return await asyncio.to_thread(read_question, data, None, self.settings.limits.question_seconds)

    async def answer(self, model: str, ask: Ask) -> AsyncIterator[Piece]:
        """Yield the pieces of one answer; Refusal when it fails, TimeoutError after `answer_seconds` without a piece.

        Leaving the loop early, or being cancelled in it, cancels the answer.
        """
        worker, patience = self.worker(model), self.settings.limits.answer_seconds
        loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Piece | Exception | None]()

        def deliver(piece: Piece | Exception | None) -> None:
            if not loop.is_closed():  # one that has ended needs none
                loop.call_soon_threadsafe(arrived.put_nowait, piece)

        with self.metrics.answer(worker.sample_rate) as measured:
            job = worker.submit(ask, deliver)
            self.under_way += 1
            try:
                while True:
                    # `wait_for` of Python 3.11 may lose a cancellation to a piece
                    async with asyncio.timeout(patience):
                        piece = await arrived.get()
                    if piece is None:
                        return
                    if isinstance(piece, Exception):
                        if not isinstance(piece, (EchoxError, Refusal)):
                            log.error("an answer failed.", exc_info=piece)
                        raise refusal_of(piece) from piece
                    job.taken()
                    measured(piece)
                    yield piece
            finally:
                self.under_way -= 1
                job.cancel()

    def admit(self, caller: HTTPConnection, offered: str | None = None) -> None:
        """Raise the Refusal of a caller without a valid key, beyond its rate, or while the server is shutting down."""
        key = offered or caller.headers.get("authorization", "").removeprefix("Bearer ").strip()
        keys = self.settings.keys
        if keys and not any(hmac.compare_digest(key.encode(), one.encode()) for one in keys):
            raise Refusal(401, "this API key is missing or wrong.", "invalid_api_key")
        if self.draining:
            raise draining()
        self._count(key if keys else caller.client.host if caller.client else "")

    def _count(self, caller: str) -> None:
        """Rate-limit a caller by a token bucket that refills within a minute; Refusal 429 when it is empty."""
        most = self.settings.limits.requests_a_minute
        if not most:
            return
        now = time.monotonic()
        left, at = self.calls.pop(caller, (float(most), now))
        left = min(most, left + (now - at) * most / 60)
        if len(self.calls) >= MOST_CALLERS:
            self.calls.pop(next(iter(self.calls)))
        self.calls[caller] = (left - 1 if left >= 1 else left, now)
        if left < 1:
            message = f"more than {most} requests a minute: slow down."
            raise Refusal(429, message, "rate_limit_exceeded", kind="rate_limit_error")
