"""A client's end of `/v1/realtime`: a conversation is opened, and its events read; it knows the wire, and nothing of servers."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from echox.errors import EndpointError, clipped, require

RATE = 24_000  # samples a second of the wire, 16 bit
ENDS = ("session_expired", "turn_detection_unavailable", "model_stopped")  # after these there is no more to talk about


def address_of(endpoint: str, model: str) -> str:
    """Return the address of the socket of a server, `http://host` or `http://host/v1`."""
    host = endpoint.rstrip("/").removesuffix("/v1").replace("http", "ws", 1)
    return f"{host}/v1/realtime?model={model}"


@asynccontextmanager
async def conversation(address: str, key: str, listening: dict[str, Any]) -> AsyncIterator[Any]:
    """Yield the socket of a conversation, its input set so; EndpointError when it breaks, OSError without a server."""
    client: Any = require("websockets", extra="serve")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with client.connect(address, additional_headers=headers, max_size=None) as socket:
            event_of(await socket.recv())
            session = {"type": "realtime", "audio": {"input": listening}}
            await socket.send(json.dumps({"type": "session.update", "session": session}))
            yield socket
    except client.WebSocketException as error:
        raise EndpointError(f"{address}: {error}.") from error


def event_of(text: str | bytes, harmless: Callable[[str], object] | None = None) -> dict[str, Any]:
    """Return an event of the server; EndpointError when it says that something is wrong, or says nothing of this protocol.

    What is wrong and does not end the conversation is told to `harmless`, where it is given.
    """
    try:
        event: dict[str, Any] = json.loads(text)
        kind = event["type"]
    except (ValueError, TypeError, KeyError) as error:
        raise EndpointError(
            f"the server sent {clipped(repr(text), 60)}, which is no event: is it a realtime server?"
        ) from error
    if kind == "error":
        code, error = event["error"].get("code"), event["error"]["message"]
        if harmless is None or code in ENDS:
            raise EndpointError(f"the server says: {error}")
        harmless(f"the server says: {error}")
    return event
