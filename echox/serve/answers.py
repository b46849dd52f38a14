"""An answer as a coroutine reads it: pieces of a worker's thread, with a time limit, given up when its reader goes."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from echox.errors import EchoxError
from echox.generate.engine import Ask
from echox.generate.types import Piece
from echox.serve.metrics import Metrics
from echox.serve.refusals import Refusal, no_transcript, refusal_of
from echox.serve.worker import Worker

log = logging.getLogger("echox.serve")
T = TypeVar("T")
STREAMED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # so that nothing in between holds a stream back


async def pieces(worker: Worker, ask: Ask, metrics: Metrics, patience: float) -> AsyncIterator[Piece]:
    """Yield the pieces of one answer; Refusal when it cannot be had, TimeoutError after `patience` seconds without one.

    Leaving the loop early, or being cancelled in it, gives the answer up.
    """
    loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Piece | Exception | None]()
    with metrics.answer(worker.sample_rate) as measured:
        job = worker.submit(ask, lambda piece: _deliver(loop, arrived, piece))
        try:
            while True:
                async with asyncio.timeout(patience):  # `wait_for` of Python 3.11 may lose a cancellation to a piece
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
            job.cancel()


async def begun(answer: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    """Return the same answer once its first piece is there: what fails before that fails as a request, not as a stream."""
    first = await anext(answer, None)

    async def whole() -> AsyncIterator[Piece]:
        if first is not None:
            yield first
        async for piece in answer:
            yield piece

    return whole()


async def heard_in(answer: AsyncIterator[Piece]) -> str:
    """Return what was understood, empty where nothing was; Refusal when the model does not write down what it hears."""
    text = None
    async for piece in answer:
        text = "" if piece.finish == "unheard" else piece.heard.strip() or text
    if text is None:
        raise no_transcript()
    return text


def event_line(value: dict[str, Any]) -> str:
    """Return one server-sent event."""
    return f"data: {json.dumps(value)}\n\n"


def _deliver(loop: asyncio.AbstractEventLoop, arrived: "asyncio.Queue[Any]", piece: Piece | Exception | None) -> None:
    """Put a piece into a coroutine's queue from another thread; a loop that has ended needs none."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(arrived.put_nowait, piece)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns, or give it up with a Refusal when the client hangs up first."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Refusal(499, "the client hung up.", code="client_closed_request")
    finally:
        gone.cancel()
        working.cancel()
        await asyncio.wait({working})


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
