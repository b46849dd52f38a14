"""Asks a loop to save and end when the process is told to terminate, and puts the signals back afterwards; it knows no loop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event
from types import FrameType


@contextmanager
def stop_event() -> Iterator[Event]:
    """Yield an event that SIGTERM and Ctrl-C set; a second Ctrl-C interrupts at once."""
    event, before = Event(), {}

    def request(number: int, frame: FrameType | None) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    try:
        with suppress(ValueError):  # not the main thread: the caller owns the signals
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, request)
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
