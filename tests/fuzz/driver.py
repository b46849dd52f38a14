"""Tries hostile input, each case in a process of its own with limits, and says what went wrong.

    python -m tests.fuzz.driver --cases 2000 --seed 0

Everything happens in a temporary home. A case fails when it ends in a traceback or a signal, takes more than 10 s or 2 GB, changes
or removes anything that was there before, leaves a half-written file, succeeds without its result or fails without a sentence.
Linux only: processes are forked from one that has imported everything, so that a case costs milliseconds.
"""

import argparse
import io
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import soundfile

from tests.fuzz.cases import Case, make
from tests.fuzz.world import leftovers, state_of, write_world

CPU_SECONDS, WALL_SECONDS, MEMORY = 10, 60, 2 << 30  # a loaded machine makes 10 s of work longer on the clock


def preload() -> None:
    """Import what the verbs import, once, for all forks."""
    import soxr  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama
    import transformers.models.whisper.modeling_whisper  # noqa: F401

    import echox.assistant
    import echox.commands.ask
    import echox.commands.eval
    import echox.commands.train
    import echox.eval.tasks.qa
    import echox.train.pack  # noqa: F401

    with suppress(ImportError):  # the first import looks at every font of the machine
        import matplotlib.pyplot  # noqa: F401
    torch.set_num_threads(1)


def child(case: Case, root: Path) -> None:
    """Call the command line as the case says; never returns."""
    code = 70
    try:
        for number, name in enumerate(("/dev/null", "stdout", "stderr")):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT
            os.dup2(
                os.open(name if number == 0 else case.folder.with_name(f"{case.folder.name}.{name}"), flags, 0o600),
                number,
            )
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
        os.environ |= {"HOME": str(root / "home"), "XDG_CACHE_HOME": str(root / "cache"), "HF_HUB_OFFLINE": "1"}
        os.environ |= {
            "HF_HOME": str(root / "cache" / "hf"),
            "TMPDIR": str(root / "tmp"),
            "MPLCONFIGDIR": str(root / "tmp"),
        }
        os.chdir(case.folder)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 29, 1 << 29))
        resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.argv = ["echox", *case.argv]
        from echox.cli import main

        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, it is the finding
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def data_bytes() -> int:
    """Return the private memory that this process has mapped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData")) * 1024


def run(case: Case, root: Path, patience: float = WALL_SECONDS) -> tuple[int, list[str]]:
    """Return the exit status of a case and what was wrong with it; it is ended after `patience` seconds on the clock."""
    before = state_of(root)
    process = os.fork()
    if process == 0:
        child(case, root)
    with os.fdopen(os.pidfd_open(process)) as its_end:
        if not select.select([its_end], [], [], patience)[0]:
            os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    out, err = (
        case.folder.with_name(f"{case.folder.name}.{name}").read_text("utf-8", "replace")
        for name in ("stdout", "stderr")
    )
    return code, [*faults_of(case, code, out, err), *(["changed what was there"] if state_of(root) != before else []),
                  *(f"left {path}" for path in leftovers(root))]  # fmt: skip


def faults_of(case: Case, code: int, out: str, err: str) -> list[str]:
    """Return what is wrong with how a case ended."""
    found = []
    if code < 0:
        found.append(f"ended by {signal.Signals(-code).name}")
    if "Traceback" in out + err or code not in (0, 1, 2):
        found.append((err + out).strip().splitlines()[-1][:200] if (err + out).strip() else f"status {code}")
    if code in (1, 2) and not ("echox: " in err or "rror" in out + err):
        found.append(f"failed without a sentence: {(out + err)[-200:]!r}")
    if case.output is not None:
        try:
            there = case.output.is_file()
            length = len(soundfile.read(io.BytesIO(case.output.read_bytes()))[0]) if there else 0
        except (OSError, RuntimeError) as error:
            there, length = False, 0
            found += [f"wrote a broken file: {error}"] if code == 0 else []
        if code == 0 and not length:
            found.append("succeeded without speech")
        if code != 0 and there and not case.output.is_symlink():
            found.append("failed and left an answer")
    if case.name.endswith("table") and code == 0 and not (case.folder / "out" / "results.jsonl").is_file():
        found.append("succeeded without results")
    return found


def campaign(
    root: Path, seeds: range, tell: Callable[[str], None] = lambda text: None, patience: float = WALL_SECONDS
) -> tuple[Counter, list[str]]:
    """Run the cases of `seeds`; return how many of each kind ended how, and all findings."""
    counts: Counter = Counter()
    findings: list[str] = []
    (root / "cases").mkdir(exist_ok=True)
    (root / "tmp").mkdir(exist_ok=True)
    for seed in seeds:
        folder = root / "cases" / str(seed)
        folder.mkdir()
        case = make(root, folder, seed)
        code, wrong = run(case, root, patience)
        counts[case.name.split()[1], code] += 1
        if wrong:
            findings.append(f"{case.name} {case.notes} {case.argv}: {'; '.join(wrong)}")
            tell(findings[-1])
        shutil.rmtree(folder, ignore_errors=True)
    return counts, findings


def main() -> None:
    """Run many cases and print the counts; exit 1 when anything was found."""
    parser = argparse.ArgumentParser(description="Try hostile input on echox.")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--patience", type=float, default=WALL_SECONDS, help="seconds on the clock a case may take")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    preload()
    with tempfile.TemporaryDirectory(prefix="echox-fuzz-") as place:
        root = write_world(Path(place))
        started = time.monotonic()
        seeds, tell = range(options.seed, options.seed + options.cases), partial(print, flush=True)
        counts, findings = campaign(root, seeds, tell, options.patience)
    for (kind, code), count in sorted(counts.items()):
        print(f"{kind:10} exit {code:3}: {count}")
    print(f"{sum(counts.values())} cases, {len(findings)} findings, {time.monotonic() - started:.0f} s")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
