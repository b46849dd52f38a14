"""The rooms of echox/eval lie above each other: scorers know no tasks, tasks know no reports, and only the commands know all."""

import ast
from pathlib import Path

import pytest

EVAL = Path(__file__).resolve().parents[2] / "echox" / "eval"
BELOW = {
    "": set(),  # items, results, intervals, tables, models, judges
    "scorers": {""},
    "tasks": {"", "scorers"},
    "boards": {"", "scorers", "tasks"},
    "report": {"", "scorers", "tasks"},
}


def room_of(module: str) -> str:
    """Return the room of a dotted name below echox.eval, "" for what stands at its top."""
    first = module.split(".")[0]
    return first if first in BELOW else ""


def room_imports(path: Path) -> list[str]:
    """Return the rooms that a file imports from, wherever in the file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("echox.eval"):
            name = (node.module or "").removeprefix("echox.eval").lstrip(".")
            found += [room_of(name)] if name else [room_of(alias.name) for alias in node.names]
    return found


FILES = sorted(EVAL.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(EVAL)))
def test_rooms_import_only_what_lies_below(path):
    room = room_of(".".join(path.relative_to(EVAL).parts)) if path.parent != EVAL else ""
    assert set(room_imports(path)) <= BELOW[room] | {room}


def test_every_folder_is_a_room_and_imports_are_found():
    folders = {path.name for path in EVAL.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders | {""} == set(BELOW)
    assert "tasks" in room_imports(EVAL / "report" / "page.py")
