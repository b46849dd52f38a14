"""The world every test runs in: no network, a clean environment, its own cache, pretrained weights only when named."""

import os
import socket
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch: one core a worker
WEIGHTS = os.environ.get("ECHOX_WEIGHTS")
LOCAL = ("127.0.0.1", "::1", "localhost")


def pytest_collection_modifyitems(items):
    if WEIGHTS and Path(WEIGHTS).is_dir():
        return
    skip = pytest.mark.skip(reason="set ECHOX_WEIGHTS to the folder of pretrained weights to run this")
    for item in items:
        if item.get_closest_marker("pretrained"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path_factory):
    """Settings of the person who runs the tests do not reach them, and nothing lands in that person's cache."""
    for name in list(os.environ):
        if name.startswith("ECHOX_") and name != "ECHOX_WEIGHTS":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A connection that leaves this machine fails at once, so that no test can come to need one."""
    connect = socket.socket.connect

    def local_only(self, address):
        if isinstance(address, tuple) and address[0] not in LOCAL:
            raise OSError(f"tests use no network: {address[0]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture
def weights():
    """Folder of pretrained weights, for tests marked `pretrained`."""
    return Path(WEIGHTS or "")
