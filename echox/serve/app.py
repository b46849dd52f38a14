"""The application: routes, errors in the protocol's shape, limits; it is handed workers and loads no model.

GET  /                          a page to talk to              GET /health    GET /metrics
GET  /v1/models                 POST /v1/chat/completions      POST /v1/audio/speech
POST /v1/audio/transcriptions   WS   /v1/realtime

On SIGTERM or SIGINT it refuses new requests, finishes the answers under way and then calls the handler that was there before, so
that it drains under any ASGI server and in every worker process.
"""

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from echox.errors import EchoxError
from echox.serve import chat, realtime, speech
from echox.serve.house import House
from echox.serve.refusals import Refusal, invalid, refusal_of
from echox.serve.settings import MOST_VALUES, Settings
from echox.serve.turns import Detectors
from echox.serve.worker import Worker

log = logging.getLogger("echox.serve")
MANY = f"the JSON holds more than {MOST_VALUES} brackets and commas: send less"
SPEAKS = "/v1"  # what begins so needs a key, where there are keys
PAGE = Path(__file__).parent / "web" / "index.html"
CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
NO_TEXT = "There was an error parsing the body"  # FastAPI, where bytes are not UTF-8
SPOKEN = "/v1/chat/completions, /v1/audio/speech, /v1/audio/transcriptions, /v1/realtime (a websocket) or /v1/models"
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; worker-src blob:; style-src 'unsafe-inline'; "
    "connect-src 'self' ws: wss:; img-src data:; media-src blob:; base-uri 'none'; frame-ancestors 'none'"
)


def make_app(
    workers: Mapping[str, Worker], settings: Settings | None = None, detectors: Detectors | None = None
) -> FastAPI:
    """Return the application that answers with `workers`, by model name; closing it closes them."""
    house = House(dict(workers), settings or Settings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        drain_at_the_end(house)
        yield
        for worker in house.workers.values():
            await asyncio.to_thread(worker.close)

    app = FastAPI(title="echox", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.house = house
    app.include_router(_open_routes(house))
    talks = realtime.routes(house, detectors or Detectors())
    for routes in (_models(house), chat.routes(house), speech.routes(house), talks):
        app.include_router(routes, prefix=SPEAKS)
    app.add_middleware(Gate, house=house)
    every, origins = ["*"], house.settings.origins
    app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=every, allow_headers=every, max_age=600)
    for kind in (Refusal, EchoxError, TimeoutError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _refuse)
    return app


async def _refuse(request: Request, error: Any) -> Response:
    """Return any error in the protocol's shape, counted by its code."""
    if isinstance(error, RequestValidationError):
        refusal, first = invalid(error.errors()), error.errors()[0]
        if first["type"] == "json_invalid":  # what stands as its name counts characters
            refusal = Refusal(400, "the body is no JSON.", "invalid_json")
        elif first["loc"] == ("body",):
            message = "the body is no JSON object: send one, and the header Content-Type: application/json."
            refusal = Refusal(400, message, "invalid_json")
    elif isinstance(error, HTTPException) and error.detail == NO_TEXT:
        refusal = Refusal(400, "the body is no JSON.", "invalid_json")
    elif isinstance(error, HTTPException):
        code, detail = CODES.get(error.status_code, "invalid_value"), error.detail.rstrip(".")
        why = f"nothing answers here; what does is {SPOKEN}" if error.status_code == 404 else detail
        refusal = Refusal(error.status_code, f"{request.url.path}: {why}.", code)
    else:
        refusal = refusal_of(error)
    request.app.state.house.metrics.refused.labels(refusal.code or "none").inc()
    headers = error.headers if isinstance(error, HTTPException) else refusal.headers()
    return JSONResponse(refusal.body(), refusal.status, headers)


def _open_routes(house: House) -> APIRouter:
    """Return the routes that need no key: the page, health and metrics."""
    router = APIRouter()

    @router.get("/", response_class=HTMLResponse)
    async def page() -> Response:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": PAGE_POLICY})

    @router.api_route("/health", methods=["GET", "HEAD"], include_in_schema=False)
    async def health() -> Response:
        loads = {name: dict(zip(("active", "waiting"), one.load(), strict=True)) for name, one in house.workers.items()}
        well = all(worker.alive() for worker in house.workers.values())
        status = "draining" if house.draining else "ok" if well else "a model has stopped"
        body = {"status": status, "models": loads, "sessions": house.sessions}
        return JSONResponse(body, 200 if status == "ok" else 503)

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(house.metrics.page(), media_type=CONTENT_TYPE_LATEST)

    return router


def _models(house: House) -> APIRouter:
    router, created = APIRouter(), int(time.time())

    def shown(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": created, "owned_by": "echox"}

    @router.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [shown(name) for name in house.workers]}

    @router.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        house.worker(name)
        return shown(name)

    return router


class Gate:
    """Refuses who may not ask before anything is read, and a body beyond the limit: by its Content-Length, or while it is read."""

    def __init__(self, app: ASGIApp, house: House) -> None:
        self.app, self.house, self.most = app, house, house.settings.limits.body_bytes
        self.long = f"the body is longer than {self.most >> 20} MiB: send less"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting its bytes and, of JSON, its values; a websocket admits its own callers."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = Request(scope)
        kind = request.headers.get("content-type", "").partition(";")[0].lower()
        length, is_json = request.headers.get("content-length", "0"), "json" in kind
        path = scope["path"].removeprefix(
            scope.get("root_path", "")
        )  # as the router reads it, wherever this is mounted
        try:
            if path.startswith(f"{SPEAKS}/"):
                self.house.admit(request)
            if not length.isdecimal():
                raise Refusal(400, "Content-Length is no number of bytes.", "invalid_value")
            if int(length) > self.most:
                raise Refusal(413, f"{self.long}.", CODES[413])
        except Refusal as refusal:
            return await (await _refuse(request, refusal))(scope, receive, send)
        left, values = self.most, 0

        async def counted() -> Message:
            nonlocal left, values
            message = await receive()
            body = message.get("body", b"")
            left, values = left - len(body), values + is_json * sum(map(body.count, (b"{", b"[", b",")))
            if left < 0 or values > MOST_VALUES:  # the one error that routes which read a body let through
                raise HTTPException(413, self.long if left < 0 else MANY)
            return message

        await self.app(scope, counted, send)


def drain_at_the_end(house: House) -> None:
    """Let SIGTERM and SIGINT drain the server before their own handlers run; only the main thread has signals."""
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
    """End the server once no answer is under way, or after `drain_seconds`."""
    latest = time.monotonic() + house.settings.limits.drain_seconds
    while house.under_way and time.monotonic() < latest:
        await asyncio.sleep(0.05)
    if house.under_way:
        log.warning("ended with %d answers under way after %g s", house.under_way, house.settings.limits.drain_seconds)
    end()
