"""docs/serving.md: its three clients are executed against a server, its deployment names what is here."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from echox.audio import load_audio

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
THREE = PAGE.partition("## Three clients")[2].partition("## What is spoken")[0]


def example(kind, server):
    """Return the page's example in a language, for a server of the test's own."""
    code = re.search(rf"^```{kind}\n(.*?)^```", THREE, re.M | re.S)[1]
    return (
        code.replace("http://127.0.0.1:8000", server.url)
        .replace("127.0.0.1:8000", server.url[7:])
        .replace("mini", "fake")
    )


def test_curl(server, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    code = f"set -e\n{example('bash', server)}"
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert '"text":"2.4 seconds"' in done.stdout
    assert len(load_audio((tmp_path / "morning.wav").read_bytes(), 24_000)) == 2 * 4800


def test_python(server, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    code = example("python", server)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "You asked about 2.4 seconds."
    assert len(load_audio((tmp_path / "answer.wav").read_bytes(), 24_000)) == 24_000


def test_browser(server, tmp_path):
    from test_page import CHROMIUM, browsing

    if CHROMIUM is None:
        pytest.skip("install Chromium to run this")
    with browsing(server.url, tmp_path, ROOT / "examples/question.wav") as page:
        page.run("window.said = []; console.log = (...words) => said.push(words.join(' ')); 0")
        page.call("Runtime.evaluate", expression=example("javascript", server))
        assert page.until("said[0]") == "You asked about What is the capital of France. 1.8 s"


def test_the_deployment_names_what_is_here():
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    recipe = (ROOT / services["echox"]["build"]["dockerfile"]).read_text()
    assert '"serve"' in recipe and "openechox-*.whl" in recipe and (ROOT / "constraints.txt").exists()
    variables = set(services["echox"]["environment"])
    source = (ROOT / "echox/commands/serve.py").read_text()
    assert all(f'"{name}"' in source for name in variables)
