"""A real server on a free port of this machine, the fake assistant behind it, the official client in front."""

import threading
import time

import pytest

pytest.importorskip("fastapi", reason='pip install "openechox[serve]" to run this')
openai = pytest.importorskip("openai", reason="pip install openai[realtime] to run this")

import uvicorn  # noqa: E402

from echox.generate.engine import InTurn  # noqa: E402
from echox.generate.fake import FakeAssistant  # noqa: E402
from echox.serve.app import make_app  # noqa: E402
from echox.serve.run import OPTIONS  # noqa: E402
from echox.serve.settings import Limits, Settings  # noqa: E402
from echox.serve.worker import Worker  # noqa: E402


class Running:
    """A server in a thread."""

    def __init__(self, workers, settings, detectors=None):
        self.workers, self.settings = workers, settings
        self.app = make_app(workers, settings, detectors)
        self.house = self.app.state.house
        self.uvicorn = uvicorn.Server(uvicorn.Config(self.app, host="127.0.0.1", port=0, **OPTIONS))
        self.thread = threading.Thread(target=self.uvicorn.run, daemon=True)
        self.thread.start()
        while not self.uvicorn.started:
            assert self.thread.is_alive()
            time.sleep(0.005)
        self.port = self.uvicorn.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.ws = f"ws://127.0.0.1:{self.port}/v1/realtime?model=fake"

    def client(self, key="k", **options):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=20, **options)

    def async_client(self, key="k"):
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=20)

    def settled(self, seconds=5.0):
        """Wait until no answer is under way, and say whether that came to be."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.house.under_way and all(worker.load() == (0, 0) for worker in self.workers.values()):
                return True
            time.sleep(0.01)
        return False

    def stop(self):
        self.uvicorn.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def start():
    """Return a function that starts a server with settings and an assistant of the test's own."""
    running = []

    def started(assistant=None, limits=None, detectors=None, engine=None, **settings):
        limits = limits or Limits()
        worker = Worker(engine or InTurn(assistant or FakeAssistant()), limits.slots, limits.waiting)
        running.append(Running({"fake": worker}, Settings(models=("fake",), limits=limits, **settings), detectors))
        return running[-1]

    yield started
    for server in running:
        server.stop()


@pytest.fixture(scope="module")
def server():
    """One server for the tests that change nothing about it."""
    running = Running({"fake": Worker(InTurn(FakeAssistant()))}, Settings(models=("fake",)))
    yield running
    running.stop()
