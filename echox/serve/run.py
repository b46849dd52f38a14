"""Starts a server: loads models into workers, then serves from one process, several behind one port, or a thread."""

import gc
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from echox.errors import ConfigError, EndpointError
from echox.generate.engine import Ask, Engine, InTurn, made_by
from echox.generate.fake import FakeAssistant
from echox.serve.app import make_app
from echox.serve.metrics import MULTIPROCESS
from echox.serve.settings import SETTINGS, VARIABLE, Settings
from echox.serve.worker import Worker

FRAME_BYTES = 24 << 20  # of one websocket message: 15 MiB of sound as base64, and its JSON
OPTIONS: dict[str, Any] = {
    "access_log": False,
    "log_level": "warning",
    "ws": "websockets-sansio",
    "ws_max_size": FRAME_BYTES,
    "ws_per_message_deflate": False,
    "timeout_graceful_shutdown": 5,
}
FAKE = "fake"  # the assistant without weights, for clients' own tests


def load_workers(settings: Settings) -> dict[str, Worker]:
    """Return a running worker for each model, by the name that clients use; ModelError as in `SpeechAssistant.load`."""
    workers: dict[str, Worker] = {}
    for model in settings.models:
        name = os.path.basename(os.path.realpath(model)) if os.path.isdir(model) else model
        if name in workers:
            raise ConfigError(f"two models are called {name}: rename one of the folders.")
        workers[name] = Worker(_engine(model, settings), settings.limits.slots, settings.limits.waiting)
    return workers


def _engine(model: str, settings: Settings) -> Engine:
    if model == FAKE:
        return InTurn(FakeAssistant())
    from echox.assistant import SpeechAssistant
    from echox.generate.batched import Batched

    assistant = SpeechAssistant.load(model, settings.device, settings.dtype, settings.llm)
    engine = Batched(assistant, settings.limits.slots)
    if assistant.parts.voice is not None:
        assistant.parts.t2c.said("1")  # what reads numbers loads its grammar, where the voice reads them so
    warm(engine, speaks=assistant.parts.voice is not None)
    gc.freeze()  # what is loaded stays: no garbage is looked for in it (commands/answers.py)
    return engine


def warm(engine: Engine, speaks: bool) -> None:
    """Run the start of an answer and drop it: pays one-time costs and fills the cache of the system prompt."""
    pieces = made_by(engine, Ask(typed="Hello.", text_only=not speaks))
    next((piece for piece in pieces if piece.finish or (piece.audio is not None if speaks else piece.text)), None)


def app_of_environment() -> FastAPI:
    """Return the application of one of several processes, by the settings in its environment."""
    settings = SETTINGS.validate_json(os.environ[VARIABLE])
    return make_app(load_workers(settings), settings)


def check_address(host: str, port: int) -> None:
    """Raise ConfigError, before models are loaded, when the address cannot be bound."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if os.name == "posix":  # as asyncio listens: a port that was left a moment ago may be taken
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            message = f"{host}:{port} cannot be listened at ({error.strerror}): choose another --port or --host."
            raise ConfigError(message) from error


def serve(settings: Settings, host: str, port: int, processes: int, tell: Callable[[], None]) -> None:
    """Serve until a signal ends it; each process loads its own models, and a session stays in the process that accepted it.

    `tell` is called when the models are loaded, or at once where several processes load them.
    """
    shared = {"host": host, "port": port, **OPTIONS}
    if processes == 1:
        app = make_app(load_workers(settings), settings)
        tell()
        uvicorn.run(app, **shared)
        return
    tell()
    with tempfile.TemporaryDirectory(prefix="echox-serve-") as folder:  # to count in together
        os.environ |= {VARIABLE: SETTINGS.dump_json(settings).decode(), MULTIPROCESS: folder}
        uvicorn.run("echox.serve.run:app_of_environment", factory=True, workers=processes, **shared)


@contextmanager
def served_here(settings: Settings) -> Iterator[str]:
    """Serve in this process, on a free port of this machine, until the block is left; yield the address. ModelError as above."""
    server = uvicorn.Server(uvicorn.Config(make_app(load_workers(settings), settings), port=0, **OPTIONS))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise EndpointError("the server did not start: its log says why.")
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
