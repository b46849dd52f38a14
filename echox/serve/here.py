"""A server inside this process, on a free port of this machine: for `echox talk`, and for programs that want one for a while."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from echox.errors import EndpointError
from echox.serve.app import make_app
from echox.serve.run import OPTIONS, load_workers
from echox.serve.settings import Settings


@contextmanager
def served_here(settings: Settings) -> Iterator[str]:
    """Load the models, serve them until the block is left, and yield the address; ModelError as in `load_workers`."""
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
