"""Turns SIGTERM and Ctrl-C into a request to save and stop, and restores the handlers afterwards; it knows no loop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yield a list of the signals received; a second Ctrl-C interrupts at once."""
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
