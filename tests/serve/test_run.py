"""`echox serve` as a user starts it: one process or several, told to end, killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from echox.errors import ConfigError
from echox.serve.run import load_workers
from echox.serve.settings import SETTINGS, Limits, Settings

ROOT = Path(__file__).resolve().parents[2]
HERE = os.environ | {"PYTHONPATH": str(ROOT)}
SAY = {"model": "fake", "voice": "any", "response_format": "pcm"}


@contextmanager
def served(*options):
    """Run the command on a free port until the block is left; yield it and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "echox.cli", "serve", "--model", "fake", "--port", str(port), *options]
    process = subprocess.Popen(command, env=HERE, stderr=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 60
        while not healthy(url):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        yield process, url
    finally:
        process.kill()
        process.wait()


def healthy(url):
    try:
        return urllib.request.urlopen(f"{url}/health", timeout=2).status == 200
    except OSError:
        return False


def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0, timeout=30)


def test_an_address_that_is_taken_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "echox.cli", "serve", "--model", "fake", "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, env=HERE, capture_output=True, text=True, timeout=60, check=False)
    assert (
        done.returncode == 1
        and done.stderr.count("\n") == 1
        and "cannot be listened at (Address already in use)" in done.stderr
    )


def test_told_to_end_it_finishes_what_is_under_way_and_refuses_what_is_new():
    with served() as (process, url):
        text = "Every word of it.\n" * 200  # more than socket buffers hold
        with client(url).audio.speech.with_streaming_response.create(input=text, **SAY) as answer:
            chunks = answer.iter_bytes()
            size = len(next(chunks))
            process.send_signal(signal.SIGTERM)
            end = time.monotonic() + 5
            while healthy(url) and time.monotonic() < end:
                time.sleep(0.02)
            with pytest.raises((openai.InternalServerError, openai.APIConnectionError)):
                client(url).models.list()
            size += sum(map(len, chunks))
        assert size == 800 * 0.2 * 48_000
        assert process.wait(20) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
        assert "Traceback" not in process.stderr.read()


def test_a_process_that_dies_is_replaced_and_the_others_count_with_it():
    with served("--workers", "2") as (process, url):
        for _ in range(6):
            assert client(url).audio.speech.create(input="one two", **SAY).content
        children = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "multiprocessing.spawn"], capture_output=True)
        workers = [int(one) for one in children.stdout.split()]
        assert len(workers) >= 2
        os.kill(workers[0], signal.SIGKILL)
        said, end = 0, time.monotonic() + 30
        while said < 6 and time.monotonic() < end:
            try:
                said += bool(client(url).audio.speech.create(input="one two", **SAY).content)
            except openai.APIConnectionError:  # the connection was the dead one's
                time.sleep(0.05)
        assert said == 6
        page = urllib.request.urlopen(f"{url}/metrics").read().decode()
        counted = [line for line in page.splitlines() if line.startswith('echox_answers_total{finish="stop"}')]
        assert sum(float(line.split()[-1]) for line in counted) >= 12


def test_settings_survive_their_way_to_a_process():
    settings = Settings(("a", "b"), keys=("k",), origins=("https://x",), limits=Limits(slots=2))
    assert SETTINGS.validate_json(SETTINGS.dump_json(settings)) == settings and json.loads(SETTINGS.dump_json(settings))
    with pytest.raises(ConfigError, match="slots is 0"):
        Limits(slots=0)


def test_workers_are_called_by_their_models(tmp_path):
    workers = load_workers(Settings(models=("fake",)))
    assert list(workers) == ["fake"] and workers["fake"].alive()
    workers["fake"].close()
    with pytest.raises(ConfigError, match="two models are called fake"):
        load_workers(Settings(models=("fake", "fake")))
