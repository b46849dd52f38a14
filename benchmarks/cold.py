"""Seconds from starting a process to the first sound of its answer: what `echox ask` costs who asks once.

    python benchmarks/cold.py                     # five processes, one after the other, as the machine is now
    python benchmarks/cold.py --busy 4            # beside four processes that do nothing but keep cores busy
    python benchmarks/cold.py --imports 25        # and the 25 modules whose import takes longest

Prints one JSON object: medians of wall and processor seconds until the model is loaded and until the first sound. The text model
must be in the cache. Files are in the page cache from the second process on.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

QUESTION = Path(__file__).resolve().parents[1] / "examples" / "question.wav"
PROGRAM = """
import sys
from echox import cli
from echox.commands.startup import choose_threads
choose_threads("ask")
from echox.commands.answers import load_assistant
assistant = load_assistant(sys.argv[1], None, "auto", None)
print("loaded", flush=True)
for piece in assistant.stream(sys.argv[2]):
    if piece.audio is not None and len(piece.audio):
        print("sound", flush=True)
        break
"""


def ask_once(model: str, question: Path) -> dict[str, float]:
    """Return wall seconds to the loaded model and to the first sound, and the processor seconds of the whole process."""
    before, started, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), {}
    command = [sys.executable, "-c", PROGRAM, model, str(question)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or []:
            seconds[line.strip()] = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(process.returncode)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds | {"processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def slowest_imports(model: str, question: Path, count: int) -> dict[str, float]:
    """Return the modules whose own code takes longest to import, in seconds."""
    command = [sys.executable, "-X", "importtime", "-c", PROGRAM, model, str(question)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    own: dict[str, float] = {}
    for line in done.stderr.splitlines():
        columns = line.removeprefix("import time:").split("|")
        if len(columns) == 3 and columns[0].strip().isdigit():
            own[columns[2].strip()] = int(columns[0]) / 1e6
    return dict(sorted(own.items(), key=lambda one: -one[1])[:count])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--question", type=Path, default=QUESTION)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--busy", type=int, default=0, help="processes that keep cores busy meanwhile")
    parser.add_argument("--imports", type=int, default=0, help="also the so many slowest imports")
    options = parser.parse_args()
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.busy)]
    try:
        load = os.getloadavg()[0]
        runs = [ask_once(options.model, options.question) for _ in range(options.runs)]
    finally:
        for process in others:
            process.kill()
            process.wait()
    found: dict[str, object] = {"runs": options.runs, "busy": options.busy, "load_average_before": round(load, 1)}
    found |= {f"{name}_seconds": round(statistics.median(run[name] for run in runs), 2) for name in runs[0]}
    if options.imports:
        found["imports"] = slowest_imports(options.model, options.question, options.imports)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
