"""Every toy stage is killed, told to end, run out of disk, its checkpoints broken in every way; then it must end as if undisturbed.

    python tests/hard/try_stages.py FOLDER [stage ...]      minutes on one core; prints a table, exits 1 when anything differs

One process loads the libraries and forks a child for every run, so that a run takes about a second. A full disk is a limit on the
size of files (RLIMIT_FSIZE): a write beyond it fails as on a full disk.
"""

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from echox import cli
from echox.train.debug import make_missing
from echox.train.stages import run_recipe
from echox.train.toy import write_world

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "debug"
TRAINED = (
    "vocoder",
    "voice",
    "align",
    "listen",
    "s2t",
    "t2c",
    "echo",
    "normalise",
    "textless",
    "translate_text",
    "translate",
)
MADE = ("encode", "units", "answers", "teacher", "triples", "text_pairs", "vocabulary")
PACKED = ("pack", "translator", "pack_joint")  # recipes of the stages pack, pack_translator and pack_joint
LONGER = ["train.steps=12", "train.save_every=3", "train.log_every=1"]
SMALL = 8192  # bytes that a file may have where the disk is full
SMALLER = {"units": 1000, "answers": 1000, "text_pairs": 1000}  # whose files are small


def flipped(content: bytes, at: int) -> bytes:
    """Return the content with one bit of one byte changed."""
    return content[:at] + bytes([content[at] ^ 8]) + content[at + 1 :]


BROKEN: dict[str, Callable[[bytes, bytes], bytes]] = {  # the newest checkpoint, of itself and the one before it
    "cut checkpoint": lambda newest, before: newest[:-64],
    "empty checkpoint": lambda newest, before: b"",
    "flipped bit": lambda newest, before: flipped(newest, len(newest) // 6),
    "older checkpoint": lambda newest, before: before,
}


def start(stage: str, out: Path, limit: int | None = None) -> int:
    """Fork a child that runs `echox train` on a toy recipe into `out`; return its process id. What it says goes to out.log."""
    child = os.fork()
    if child:
        return child
    log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    sys.argv = ["echox", "train", str(RECIPES / f"{stage}.yaml"), f"out={out}", *(LONGER if stage in TRAINED else [])]
    code = 1
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def finish(child: int) -> int:
    """Wait for a child; return its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def signal_when(child: int, ready: Callable[[], bool], number: int) -> int:
    """Send a signal as soon as `ready`, and return the exit status."""
    for _ in range(60_000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if ready():
            os.kill(child, number)
            return finish(child)
        time.sleep(0.002)
    raise TimeoutError("the run did not come so far")


def underway(stage: str, out: Path) -> Callable[[], bool]:
    """Return whether a run has taken four steps, or a run of files has written something."""
    if stage in TRAINED:
        metrics = out / "metrics.jsonl"
        return lambda: metrics.exists() and metrics.read_bytes().count(b"\n") >= 4
    return lambda: any(
        path.is_file() for place in (out, *out.parent.glob(f".{out.name}.*.part")) for path in place.rglob("*")
    )


def result(stage: str, out: Path) -> dict[str, np.ndarray]:
    """Return every number that a run made, by name."""
    found: dict[str, np.ndarray] = {}
    root = out / "final" if stage in TRAINED else out
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".safetensors":
            found |= {f"{name}:{key}": value.float().numpy() for key, value in load_file(path).items()}
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found |= {f"{name}:{key}": arrays[key] for key in arrays}
        elif path.suffix in (".jsonl", ".model", ".npy") or path.name == "config.json":
            found[name] = np.frombuffer(path.read_bytes(), np.uint8)
    return found


def same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    """Say whether two runs made the very same."""
    return bool(one) and one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def damage(out: Path, kind: str) -> None:
    """Break the newest checkpoint."""
    before, newest = sorted(out.glob("step-*/state.pt"), key=lambda path: int(path.parent.name.removeprefix("step-")))
    newest.write_bytes(BROKEN[kind](newest.read_bytes(), before.read_bytes()))


def disturb(stage: str, kind: str, out: Path) -> str:
    """Let one thing go wrong with a run in `out`; return what is wrong with how it went, '' when nothing."""
    if kind == "kill -9":
        status = signal_when(start(stage, out), underway(stage, out), signal.SIGKILL)
        expected = status == -signal.SIGKILL
    elif kind == "SIGTERM":
        status = signal_when(start(stage, out), underway(stage, out), signal.SIGTERM)
        expected = status == 1 if stage in TRAINED else status in (143, -signal.SIGTERM)
    elif kind == "full disk":
        status = finish(start(stage, out, SMALLER.get(stage, SMALL)))
        expected = status == 1
    else:
        status = finish(start(stage, out))
        expected = status == 0
    said = out.with_suffix(".log").read_text(errors="replace")
    if not expected:
        return f"exit status {status}: {said.strip()[-200:]}"
    if "Traceback" in said:
        return f"a traceback: {said[said.index('Traceback') :][-300:]}"
    if kind in ("SIGTERM", "full disk") and stage in TRAINED and (out / "final").exists():
        return "a result is there"
    if kind in BROKEN:
        damage(out, kind)
    return ""


def attempt(stage: str, kind: str, out: Path, wanted: dict[str, np.ndarray]) -> str:
    """Disturb a run, let it go on, and return what is wrong; '' when it ends as if undisturbed."""
    wrong = disturb(stage, kind, out)
    if wrong:
        return wrong
    status = finish(start(stage, out))
    if status:
        return f"did not go on: {out.with_suffix('.log').read_text(errors='replace').strip()[-300:]}"
    if not same(wanted, result(stage, out)):
        return "ends with other numbers"
    left = [path.name for path in out.parent.rglob(".*.part") if out.name in str(path)]
    if left and kind != "kill -9":
        return f"left {left[0]} behind"
    if stage in TRAINED:
        steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
        if steps != list(range(1, 13)):
            return f"logged steps {steps}"
    return ""


def main(root: Path, stages: list[str]) -> int:
    """Try every stage in every way; return how many attempts went wrong."""
    torch.set_num_threads(1)
    root.mkdir(parents=True, exist_ok=True)
    os.chdir(root)
    if not Path("out/debug/llm").exists():
        write_world(Path("out/debug"))
    for stage in (*MADE, *TRAINED, *PACKED):  # what later stages read
        make_missing(RECIPES / f"{stage}.yaml", (), lambda text: None)
        if not Path(f"out/debug/{stage}").exists():
            run_recipe(RECIPES / f"{stage}.yaml")
    failed, tried, started = 0, 0, time.monotonic()
    place = Path("tried").absolute() / str(os.getpid())
    place.mkdir(parents=True)
    for stage in stages or (*MADE, *TRAINED, *PACKED):
        undisturbed = place / f"{stage}-undisturbed"
        if finish(start(stage, undisturbed)):
            print(f"{stage:8} does not run: {undisturbed.with_suffix('.log').read_text()[-500:]}")
            failed += 1
            continue
        wanted = result(stage, undisturbed)
        for kind in ("kill -9", "SIGTERM", "full disk", *(BROKEN if stage in TRAINED else ())):
            wrong = attempt(stage, kind, place / f"{stage}-{kind.replace(' ', '-')}", wanted)
            print(f"{stage:8} {kind:18} {wrong or 'ends as if undisturbed'}", flush=True)
            failed, tried = failed + bool(wrong), tried + 1
    print(f"{tried} attempts, {failed} went wrong, {time.monotonic() - started:.0f} s")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]), sys.argv[2:])))
