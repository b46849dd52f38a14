"""Do the tests of the harness notice when it breaks? Breaks one line at a time in a copy and runs the tests on it.

    python tests/eval/mutations.py              every mutation, as the table of docs/evaluation.md; a minute or three
    python tests/eval/mutations.py player gap   those of some areas

The mutations stand in mutations.tsv. Not a test itself: pytest does not collect it.
Ends with 1 when a mutation goes unnoticed or its line is not there.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutation:
    """One line of `file` turned into another; `tests` (test_<tests>.py) should notice."""

    area: str
    what: str
    file: str
    tests: str
    old: str
    new: str


def read_mutations() -> list[Mutation]:
    """Returns the mutations of the table beside this file, in which `\\n` stands for the end of a line."""
    lines = Path(__file__).with_suffix(".tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [Mutation(*(cell.replace("\\n", "\n") for cell in line.split("\t"))) for line in lines]


def first_failure(mutation: Mutation) -> str:
    """Returns the first test that fails on the broken copy, or why none did."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        leave = shutil.ignore_patterns("__pycache__", "mini", "*.safetensors")
        shutil.copytree(ROOT / "echox", copy / "echox", ignore=leave)
        shutil.copytree(ROOT / "tests", copy / "tests", ignore=leave)
        shutil.copytree(ROOT / "recipes", copy / "recipes")
        shutil.copy(ROOT / "pyproject.toml", copy)
        broken = copy / "echox" / mutation.file
        text = broken.read_text(encoding="utf-8")
        if mutation.old not in text:
            return "THE LINE IS NOT THERE"
        broken.write_text(text.replace(mutation.old, mutation.new, 1), encoding="utf-8")
        (found,) = (copy / "tests" / "eval").rglob(f"test_{mutation.tests}.py")
        test = str(found.relative_to(copy))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--durations=0", test]
        environment = os.environ | {"PYTHONPATH": str(copy)}
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    failed = re.search(r"^(?:FAILED|ERROR) \S+?::(\w+)", done.stdout, re.MULTILINE)
    if failed:
        return f"`{failed.group(1)}`"
    return "UNNOTICED" if done.returncode == 0 else f"THE TESTS DID NOT RUN: {done.stdout[-200:]}"


def main() -> int:
    """Prints the table and returns how many mutations were not noticed."""
    chosen = [each for each in read_mutations() if len(sys.argv) == 1 or each.area in sys.argv[1:]]
    print("| in | what was broken | failed |\n|---|---|---|")
    missed = 0
    for mutation in chosen:
        found = first_failure(mutation)
        missed += not found.startswith("`")
        print(f"| {mutation.area} | {mutation.what} | {found} |", flush=True)
    print(f"\n{len(chosen) - missed} of {len(chosen)} noticed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
