"""How a command starts: threads are chosen on what is free, a user's own choice stays; Ctrl-C is no error from the first."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from echox import __version__
from echox.commands import startup

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """What is chosen here is chosen for nobody else."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.mark.parametrize(("load", "threads"), [(0.1, 4), (0.9, 3), (2.6, 1), (40.0, 1)])
def test_one_thread_a_free_core(monkeypatch, load, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    startup.choose_threads("ask")
    assert os.environ["OMP_NUM_THREADS"] == str(threads) and os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.environ["GOMP_SPINCOUNT"] == startup.SPINS


def test_what_the_user_chose_stays_and_training_takes_all(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    startup.choose_threads("say")
    assert "GOMP_SPINCOUNT" not in os.environ
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("7", "ACTIVE")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    startup.choose_threads("train")
    assert "OMP_NUM_THREADS" not in os.environ and os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    startup.choose_threads("ask")
    assert "ONEDNN_PRIMITIVE_CACHE_CAPACITY" not in os.environ
    startup.choose_threads("train")
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == startup.KERNELS


@pytest.mark.parametrize(("terminal", "bars"), [(True, None), (False, "1")])
def test_a_log_holds_no_bars(monkeypatch, terminal, bars):
    monkeypatch.setenv("TQDM_DISABLE", "")
    monkeypatch.delenv("TQDM_DISABLE")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    startup.choose_threads("units")
    assert os.environ.get("TQDM_DISABLE") == bars


def test_importing_the_package_chooses_nothing():
    code = "import os, echox, echox.cli; print('OMP_NUM_THREADS' in os.environ, 'OMP_WAIT_POLICY' in os.environ)"
    free = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    done = subprocess.run([sys.executable, "-c", code], env=free, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_an_interrupt_during_the_first_imports_leaves_no_traceback(tmp_path):
    heeded = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # also where the tests run in the background
    (tmp_path / "typer.py").write_text(f"import os, signal\n{heeded}\nos.kill(os.getpid(), signal.SIGINT)\n")
    places = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-m", "echox", "--version"], env=os.environ | places, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_python_m_echox_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "echox", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, f"echox {__version__}\n")


@pytest.mark.skipif(os.name != "posix", reason="a shell closes them")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_outputs_that_the_caller_closed_are_nothing(closed):
    command = f"exec {shlex.quote(sys.executable)} -m echox --version {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
