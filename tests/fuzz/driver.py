"""Tries hostile input, each case in a process of its own with limits, and says what went wrong.

    python -m tests.fuzz.driver --cases 2000 --seed 0

Everything happens in a temporary home. A case fails when it ends in a traceback or a signal, takes more than 10 s or 2 GB, changes
or removes anything that was there before, leaves a half-written file, succeeds without its result or fails without a sentence.
Linux only: processes are forked from one that has imported everything, so that a case costs milliseconds, and the 10 s are of the
clock less what a case waited for a processor, so that other work on the machine changes no verdict.
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

SECONDS, MEMORY = 10, 2 << 30


def preload() -> None:
    """Import what the verbs import, once, for all forks."""
    import soxr  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama
    import transformers.models.whisper.modeling_whisper  # noqa: F401

    import echox.assistant
    import echox.commands.ask
    import echox.commands.convert
    import echox.commands.eval
    import echox.commands.serve
    import echox.commands.train
    import echox.commands.transcribe
    import echox.commands.translate
    import echox.commands.units
    import echox.eval.tasks.qa
    import echox.generate.batched
    import echox.models.normaliser
    import echox.prepare.encode
    import echox.released.convert
    import echox.released.fairseq_hubert
    import echox.released.fairseq_vocoder
    import echox.released.kmeans_bin
    import echox.serve.run
    import echox.train.pack
    import echox.translator
    import echox.units.tokenizer  # noqa: F401

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
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 29, 1 << 29))
        resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.argv = ["echox", *case.argv]
        import uvicorn

        from echox.cli import main

        uvicorn.run = lambda *_, **__: None  # a server that has loaded its models has started, and ends
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


def waited(process: int) -> float:
    """Return the seconds in which a process could have run and had no processor; 0 where the kernel does not tell."""
    try:
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def run(case: Case, root: Path, patience: float = SECONDS) -> tuple[int, list[str], float]:
    """Return the exit status of a case, what was wrong with it, and its seconds; it is ended when it has had too many."""
    before = state_of(root)
    process = os.fork()
    if process == 0:
        child(case, root)
    started, seconds = time.monotonic(), 0.0
    with os.fdopen(os.pidfd_open(process)) as its_end:
        while not select.select([its_end], [], [], 0.1)[0]:
            if seconds > patience:
                os.kill(process, signal.SIGKILL)
            seconds = time.monotonic() - started - waited(process)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    out, err = (
        case.folder.with_name(f"{case.folder.name}.{name}").read_text("utf-8", "replace")
        for name in ("stdout", "stderr")
    )
    return code, [*faults_of(case, code, out, err), *(["changed what was there"] if state_of(root) != before else []),
                  *(f"left {path}" for path in leftovers(root))], seconds  # fmt: skip


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
    if case.made is not None and (code == 0) != case.made.exists():
        found.append("failed and left its result" if code else "succeeded without its result")
    return found


def campaign(
    root: Path, seeds: range, tell: Callable[[str], None] = lambda text: None, patience: float = SECONDS
) -> tuple[Counter, list[str], float]:
    """Run the cases of `seeds`; return how many of each kind ended how, all findings, and the seconds of the longest case."""
    counts: Counter = Counter()
    longest = 0.0
    findings: list[str] = []
    (root / "cases").mkdir(exist_ok=True)
    (root / "tmp").mkdir(exist_ok=True)
    for seed in seeds:
        folder = root / "cases" / str(seed)
        folder.mkdir()
        case = make(root, folder, seed)
        code, wrong, seconds = run(case, root, patience)
        longest = max(longest, seconds)
        counts[case.name.split()[1], code] += 1
        if wrong:
            findings.append(f"{case.name} {case.notes} {case.argv}: {'; '.join(wrong)}")
            tell(findings[-1])
        shutil.rmtree(folder, ignore_errors=True)
    return counts, findings, longest


def main() -> None:
    """Run many cases and print the counts; exit 1 when anything was found."""
    parser = argparse.ArgumentParser(description="Try hostile input on echox.")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--patience", type=float, default=SECONDS, help="seconds a case may have, waiting left out")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    preload()
    with tempfile.TemporaryDirectory(prefix="echox-fuzz-") as place:
        root = write_world(Path(place))
        started = time.monotonic()
        seeds, tell = range(options.seed, options.seed + options.cases), partial(print, flush=True)
        counts, findings, longest = campaign(root, seeds, tell, options.patience)
    for (kind, code), count in sorted(counts.items()):
        print(f"{kind:10} exit {code:3}: {count}")
    print(
        f"{sum(counts.values())} cases, {len(findings)} findings, {time.monotonic() - started:.0f} s, the longest {longest:.1f} s"
    )
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
