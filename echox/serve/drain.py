"""The end of a server: told to stop, it refuses what is new, finishes what is under way, and then lets go.

It stands in front of whatever handler the program had, so that it works under any ASGI server and in every worker process.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from echox.serve.house import House

log = logging.getLogger("echox.serve")


def drain_at_the_end(house: House) -> None:
    """Put draining before the handlers of SIGTERM and SIGINT; outside the main thread the caller ends the server himself."""
    loop = asyncio.get_running_loop()
    with suppress(ValueError):
        for number in (signal.SIGTERM, signal.SIGINT):
            end = signal.getsignal(number)
            if callable(end):
                signal.signal(number, _handler(house, loop, end))


def _handler(house: House, loop: asyncio.AbstractEventLoop, end: Any) -> Callable[[int, FrameType | None], None]:
    def begin(number: int, frame: FrameType | None) -> None:
        if house.draining:  # told twice
            end(number, frame)
            return
        house.draining = True
        asyncio.run_coroutine_threadsafe(_finish(house, lambda: end(number, frame)), loop)

    return begin


async def _finish(house: House, end: Callable[[], None]) -> None:
    """End once no answer is under way, or when that has taken too long."""
    latest = time.monotonic() + house.settings.limits.drain_seconds
    while house.under_way and time.monotonic() < latest:
        await asyncio.sleep(0.05)
    if house.under_way:
        log.warning("ended with %d answers under way after %g s", house.under_way, house.settings.limits.drain_seconds)
    end()
