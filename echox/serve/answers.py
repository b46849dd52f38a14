"""What routes do with an answer's pieces: wait for the first, collect the transcript, cancel when the client disconnects."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from starlette.requests import Request

from echox.generate.types import Piece
from echox.serve.refusals import Refusal, no_transcript

T = TypeVar("T")
STREAMED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # so that nothing in between holds a stream back


async def begun(answer: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    """Return the same answer once its first piece has arrived, so that an early failure fails the request, not the stream."""
    first = await anext(answer, None)

    async def whole() -> AsyncIterator[Piece]:
        if first is not None:
            yield first
        async for piece in answer:
            yield piece

    return whole()


async def before(answer: AsyncIterator[Piece], stops: Sequence[str]) -> AsyncIterator[Piece]:
    """Yield the same answer with its text cut before the first of `stops`; text that may begin a stop is held back."""
    held = ""
    async for piece in answer:
        text = held + piece.text
        found = [place for stop in stops if (place := text.find(stop)) >= 0]
        begins = [place for place in range(len(text)) if any(stop.startswith(text[place:]) for stop in stops)]
        end = min(found) if found else begins[0] if begins and not piece.finish else len(text)
        held = text[end:]
        yield replace(piece, text=text[:end])
        if found:
            return
    if held:
        yield Piece(held)


async def heard_in(answer: AsyncIterator[Piece]) -> str:
    """Return the transcript, empty where nothing was understood; Refusal when the model makes no transcripts."""
    text = None
    async for piece in answer:
        text = "" if piece.finish == "unheard" else piece.heard.strip() or text
    if text is None:
        raise no_transcript()
    return text


def event_line(value: dict[str, Any]) -> str:
    """Return one server-sent event."""
    return f"data: {json.dumps(value)}\n\n"


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`; when the client disconnects first, cancel it and raise a Refusal."""
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
