"""The one thread that owns a model: questions come in, pieces of answers go out; it knows no socket and no asyncio.

    submit ─► waiting (bounded, first come) ─► active ─► next(piece) of the one that is due first ─► deliver

Answers take turns piece by piece. The one whose listener would run out of sound first goes next, so that nobody's speech breaks
off for somebody else's, and an answer that has not begun goes before one that has sound to spare. Another engine (one that
batches) may stand here instead: `Engine` is all that the server uses.
"""

import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from echox.generate.types import Assistant, Piece
from echox.serve.refusals import busy
from echox.text.prompt import Turn
from echox.text.speakable import read_line, said_lines, sentences

log = logging.getLogger("echox.serve")
UNREAD = 64  # pieces that may lie unread before an answer waits for its reader
READ_SECONDS = 0.2  # in which a reader reads one piece of text
Deliver = Callable[["Piece | Exception | None"], None]  # None: the answer is over


@dataclass(frozen=True)
class Ask:
    """One thing to answer, or to say aloud: exactly one of `question`, `typed` and `say`."""

    question: np.ndarray | bytes | None = None  # mono samples at `sample_rate`, or a file's bytes
    sample_rate: int | None = None
    typed: str | None = None
    say: str | None = None
    text_only: bool = False
    hear_only: bool = False  # the answer ends with what was heard
    history: tuple[tuple[str, str], ...] = ()  # (user or assistant, text) of earlier turns, oldest first
    instructions: str = ""


class Job(Protocol):
    """An answer on its way, as its reader holds it."""

    def taken(self) -> None:
        """Say that one delivered piece was read."""
        ...

    def cancel(self) -> None:
        """Give the answer up; nothing is delivered after the piece that is being made."""
        ...


class Engine(Protocol):
    """What the server needs of whatever runs a model."""

    sample_rate: int

    def submit(self, ask: Ask, deliver: Deliver) -> Job:
        """Queue a question; `deliver` gets its pieces, then None or the error, from another thread; Refusal when full."""
        ...

    def load(self) -> tuple[int, int]:
        """Return how many answers are being made and how many wait."""
        ...

    def alive(self) -> bool:
        """Say whether questions are still being answered."""
        ...

    def close(self) -> None:
        """Give everything up and let the model go."""
        ...


class _Job:
    """An answer as the worker holds it."""

    def __init__(self, ask: Ask, deliver: Deliver, worker: "Worker") -> None:
        self.ask, self.deliver, self.worker = ask, deliver, worker
        self.pieces: Iterator[Piece] | None = None
        self.since, self.ahead = worker.clock(), 0.0  # when its listener began, seconds given since
        self.unread, self.cancelled, self.sounding = 0, False, False

    def due(self) -> float:
        """Return when its listener has nothing more to hear or read."""
        return self.since + self.ahead

    def count(self, piece: Piece) -> None:
        """Note what a piece gives to its listener."""
        if piece.audio is not None and len(piece.audio):
            if not self.sounding:
                self.sounding, self.since = True, self.worker.clock()
            self.ahead += len(piece.audio) / self.worker.sample_rate
        elif piece.text and self.ask.text_only:
            self.ahead += READ_SECONDS

    def taken(self) -> None:
        """Let the worker go on with this answer once few enough pieces lie unread."""
        with self.worker.changed:
            self.unread -= 1
            self.worker.changed.notify()

    def cancel(self) -> None:
        """Give the answer up."""
        with self.worker.changed:
            self.cancelled = True
            self.worker.changed.notify()


class Worker:
    """Runs one assistant on a thread of its own, any number of answers in turn."""

    def __init__(
        self, assistant: Assistant, active: int = 4, waiting: int = 32, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.assistant, self.places, self.queue_length, self.clock = assistant, active, waiting, clock
        self.sample_rate = assistant.sample_rate
        self.takes = set(inspect.signature(assistant.stream).parameters)  # what this model can be told
        self.changed = threading.Condition()
        self.waiting: deque[_Job] = deque()
        self.active: list[_Job] = []
        self.closed = False
        self.thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.thread.start()

    def submit(self, ask: Ask, deliver: Deliver) -> Job:
        """Queue a question; Refusal when too many wait."""
        with self.changed:
            if len(self.waiting) + len(self.active) >= self.places + self.queue_length or self.closed:
                raise busy(len(self.waiting))
            job = _Job(ask, deliver, self)
            self.waiting.append(job)
            self.changed.notify()
        return job

    def load(self) -> tuple[int, int]:
        """Return how many answers are being made and how many wait."""
        with self.changed:
            return len(self.active), len(self.waiting)

    def alive(self) -> bool:
        """Say whether the thread runs."""
        return self.thread.is_alive()

    def close(self) -> None:
        """Give up what is under way and end the thread."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join(timeout=5)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            self._advance(job)

    def _next(self) -> _Job | None:
        """Wait for an answer that can go on and return the one due first; None once closed."""
        with self.changed:
            while not self.closed:
                self._settle()
                ready = [job for job in self.active if job.unread < UNREAD]
                if ready:
                    return min(ready, key=_Job.due)
                self.changed.wait()
        for job in [*self.active, *self.waiting]:
            _end(job)
        return None

    def _settle(self) -> None:
        """Drop what was given up, and fill free places from the queue."""
        for job in [job for job in self.active if job.cancelled]:
            self.active.remove(job)
            _end(job)
        self.waiting = deque(job for job in self.waiting if not job.cancelled)
        while self.waiting and len(self.active) < self.places:
            self.active.append(self.waiting.popleft())

    def _advance(self, job: _Job) -> None:
        """Make one piece of an answer and deliver it; an answer that fails ends alone."""
        try:
            if job.pieces is None:
                job.pieces = self._pieces(job.ask)
            piece: Piece | Exception | None = next(job.pieces, None)
        except Exception as error:  # the thread serves others
            log.debug("an answer failed", exc_info=True)
            piece = error
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

    def _pieces(self, ask: Ask) -> Iterator[Piece]:
        """Return the pieces of one answer, with what this model can be told beyond the question."""
        if ask.say is not None:
            return _said(self.assistant, ask.say)
        history = tuple(Turn(role, text) for role, text in ask.history)
        more: dict[str, Any] = {"history": history, "instructions": ask.instructions}
        more = {name: value for name, value in more.items() if value and name in self.takes}
        return iter(
            self.assistant.stream(ask.question, ask.typed, text_only=ask.text_only, sample_rate=ask.sample_rate, **more)
        )


def _said(assistant: Assistant, text: str) -> Iterator[Piece]:
    """Yield the speech of a text, a few words at a time."""
    for line in said_lines(text):
        for part in sentences(line):  # the reader's time grows with the square of what it is given
            for sentence in sentences(read_line(part).text):
                reply = assistant.say(sentence)
                yield Piece(sentence, reply.audio, tuple(reply.units))
    yield Piece(finish="stop")


def _end(job: _Job) -> None:
    """Close the iterator of an answer, which frees what the model holds for it."""
    close = getattr(job.pieces, "close", None)
    job.pieces = None
    if close is not None:
        close()
