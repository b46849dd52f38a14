"""Asks a loop to save and end when the process is told to terminate, and puts the signals back afterwards; it knows no loop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yield a list to which SIGTERM and Ctrl-C are added; a second Ctrl-C interrupts at once."""
    told, before = list[int](), {}

    def request(number: int, frame: FrameType | None) -> None:
        if told and number == signal.SIGINT:
            raise KeyboardInterrupt
        told.append(number)  # without a lock, for which a signal within this one would wait for ever

    try:
        with suppress(ValueError):  # not the main thread: the caller owns the signals
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, request)
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
