"""The one thread that owns an engine: questions come in, pieces of answers go out; it knows no socket and no asyncio.

    submit ─► waiting (bounded, first come) ─► a slot ─► next(piece) of the one that is due first ─► deliver
                                                 '──── all who could go on wait: a step of the engine ────'

Scheduling is earliest deadline first: the deadline of an answer is when its listener runs out of sound. While any deadline is less
than a second away, answers with more to spare are paused. An answer that needs a token waits; once all that run wait, the engine
makes one token for each in a single step. An unfinished question is processed only while the engine is idle.

After some time without a question, free memory is returned to the system: inputs of many lengths leave holes in glibc's heap.
Resident memory is measured instead of asking glibc, whose `mallinfo2` goes on counting pages that were returned.
"""

import ctypes
import logging
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from echox.generate.engine import Ask, Engine
from echox.generate.types import WAIT, Piece
from echox.serve.refusals import busy, stopped

log = logging.getLogger("echox.serve")
UNREAD = 64  # pieces that may lie unread before an answer waits for its reader
SPARE_SECONDS = 1.0  # of sound in hand, with which an answer gives way to those that have less
READ_SECONDS = 0.2  # in which a reader reads one piece of text
REST_SECONDS = 2.0  # without a question, after which memory is given back
GROWTH = 128 << 20  # bytes by which memory may grow: what answers work with, which a next one need not ask for again
BUSY_GROWTH = 2 * GROWTH  # while answers follow each other
Deliver = Callable[["Piece | Exception | None"], None]  # None: the answer is over


class Job:
    """An answer under way: `taken` and `cancel` are for its reader, the rest for the worker."""

    def __init__(self, ask: Ask, deliver: Deliver, worker: "Worker") -> None:
        self.ask, self.deliver, self.worker = ask, deliver, worker
        self.pieces: Iterator[Piece] | None = None
        self.since, self.ahead = worker.clock(), 0.0  # when its listener began, seconds given since
        self.unread, self.cancelled, self.sounding = 0, False, False
        self.waits = False  # for a step of the engine

    def taken(self) -> None:
        """Say that one delivered piece was read."""
        with self.worker.changed:
            self.unread -= 1
            self.worker.changed.notify()

    def cancel(self) -> None:
        """Cancel the answer; nothing is delivered after the piece that is being made."""
        with self.worker.changed:
            self.cancelled = True
            self.worker.changed.notify()

    def due(self) -> float:
        """Return when its listener will have run out of sound or text."""
        return math.inf if self.ask.so_far else self.since + self.ahead

    def count(self, piece: Piece) -> None:
        """Add the playing or reading time of a piece."""
        if piece.audio is not None and len(piece.audio):
            if not self.sounding:
                self.sounding, self.since = True, self.worker.clock()
            self.ahead += len(piece.audio) / self.worker.sample_rate
        elif piece.text and self.ask.text_only:
            self.ahead += READ_SECONDS


class Worker:
    """Runs one engine on a thread of its own: `slots` answers at once, `waiting` more in the queue."""

    def __init__(
        self, engine: Engine, slots: int = 8, waiting: int = 32, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.engine, self.slots, self.queue_length, self.clock = engine, slots, waiting, clock
        self.sample_rate, self.calls = engine.sample_rate, engine.calls
        self.changed = threading.Condition()
        self.waiting: deque[Job] = deque()
        self.active: list[Job] = []
        self.closed = self.stirred = False  # stirred: something was done since the last rest
        self.resident = 0  # bytes in memory after some were given back
        self.thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.thread.start()

    def submit(self, ask: Ask, deliver: Deliver) -> Job:
        """Queue a question; `deliver` gets its pieces, then None or the error, from another thread; Refusal when full or closed."""
        with self.changed:
            if len(self.waiting) + self._answers() >= self.slots + self.queue_length or self.closed:
                raise stopped() if self.closed else busy(len(self.waiting))
            job = Job(ask, deliver, self)
            self.waiting.append(job)
            self.changed.notify()
        return job

    def overhear(self, ask: Ask) -> Job | None:
        """Hear an unfinished question while the engine is idle; None while others are answered."""
        with self.changed:
            if self.closed or self._answers() or self.waiting:
                return None
            job = Job(ask, lambda _: None, self)  # nobody reads its pieces
            self.active.append(job)
            self.changed.notify()
        return job

    def load(self) -> tuple[int, int]:
        """Return how many answers are being made and how many wait."""
        with self.changed:
            return self._answers(), len(self.waiting)

    def _answers(self) -> int:
        return sum(not job.ask.so_far for job in self.active)

    def alive(self) -> bool:
        """Say whether questions are still being answered."""
        return self.thread.is_alive()

    def close(self) -> None:
        """Give up what is under way and end the thread."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join(timeout=5)

    def _run(self) -> None:
        """Answer until closed; a failure outside a single answer stops the model, and every waiting job gets a Refusal."""
        try:
            while not self.closed:
                self._turn()
        except Exception:  # nobody else would hear of it
            log.exception("a model has stopped.")
        with self.changed:
            self.closed, left = True, [*self.active, *self.waiting]
            self.active, self.waiting = [], deque()
        for job in left:
            if not job.cancelled:
                job.deliver(stopped())
        for job in left:
            _end(job)

    def _turn(self) -> None:
        if self._rests():
            self.stirred, self.resident = False, give_back(self.resident)
        job = self._next()
        if job is not None:
            self._advance(job)
        elif not self.closed:
            self.engine.step()

    def _rests(self) -> bool:
        """Wait REST_SECONDS for a question if there is none, and say whether none came."""

        def called() -> bool:
            return bool(self.active or self.waiting or self.closed)

        with self.changed:
            return self.stirred and not called() and not self.changed.wait_for(called, REST_SECONDS)

    def _next(self) -> Job | None:
        """Return the answer to advance, earliest due first; None when all wait for an engine step, or once closed."""
        with self.changed:
            while not self.closed:
                self._settle()
                going = [job for job in self.active if job.unread < UNREAD]
                soon = self.clock() + SPARE_SECONDS
                going = [job for job in going if job.due() < soon] or going
                if ready := [job for job in going if not job.waits]:
                    return min(ready, key=Job.due)
                if going:
                    for job in going:
                        job.waits = False
                    return None
                self.changed.wait()
        return None

    def _settle(self) -> None:
        """Drop cancelled answers, and fill free slots from the queue."""
        for job in [job for job in self.active if job.cancelled]:
            self.active.remove(job)
            _end(job)
        self.waiting = deque(job for job in self.waiting if not job.cancelled)
        while self.waiting and self._answers() < self.slots:
            self.active.append(self.waiting.popleft())

    def _advance(self, job: Job) -> None:
        """Make one piece of an answer and deliver it; an answer that fails ends alone."""
        self.stirred = True
        try:
            if job.pieces is None:
                job.pieces = self.engine.open(job.ask)
            piece: Piece | Exception | None = next(job.pieces, None)
        except Exception as error:  # the thread serves others
            log.debug("an answer failed", exc_info=True)
            piece = error
        if piece is WAIT:
            job.waits = True
            return
        over = not isinstance(piece, Piece) or (job.ask.hear_only and bool(piece.heard or piece.text or piece.finish))
        with self.changed:
            if isinstance(piece, Piece):
                job.unread += 1
                job.count(piece)
            if over:
                self.active.remove(job)
        if not job.cancelled:
            job.deliver(piece)
            if over and isinstance(piece, Piece):
                job.deliver(None)
        if over:
            _end(job)
            self.resident = give_back(self.resident, BUSY_GROWTH)


def _end(job: Job) -> None:
    """Close the iterator of an answer, which frees what the model holds for it."""
    close = getattr(job.pieces, "close", None)
    job.pieces = None
    if close is not None:
        close()


def resident() -> int:
    """Return the resident memory of this process without mapped files, in bytes; 0 where the system does not say."""
    try:
        _, pages, of_files, *_ = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return (int(pages) - int(of_files)) * os.sysconf("SC_PAGE_SIZE")


def give_back(before: int, growth: int = GROWTH) -> int:
    """Return free heap pages to the system if memory grew by over `growth` bytes; return the size to compare with next."""
    trim = heap_trim()
    if trim is None or resident() <= before + growth:
        return before
    trim(0)
    return resident()


def heap_trim() -> Any:
    """Return glibc's `malloc_trim`, or None where the C library is another."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
