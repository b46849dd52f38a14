"""One door to the disk: only echox/files.py removes, renames or replaces anything, and what it writes appears whole."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "echox"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "files.py")
REMOVES = {
    "rmtree",
    "unlink",
    "rmdir",
    "removedirs",
    "rename",
    "renames",
    "move",
    "symlink_to",
    "hardlink_to",
    "truncate",
}
OF_OS = {"remove", "replace", "rename", "unlink", "rmdir", "removedirs", "link", "symlink", "truncate"}
OF_SHUTIL = {"rmtree", "move", "copyfile", "copy", "copy2", "copytree"}
DOORS = {"os": OF_OS, "shutil": OF_SHUTIL}


def doors(tree: ast.Module) -> list[str]:
    """What removes or replaces in a module: calls on os and shutil, their imports, and the methods of paths."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in DOORS:
            names = [alias.name for alias in node.names if alias.name in DOORS[node.module] | {"*"}]
            found += [f"line {node.lineno}: from {node.module} import {name}" for name in names]
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value.id if isinstance(node.value, ast.Name) else None
        if owner in DOORS and node.attr in DOORS[owner]:
            found.append(f"line {node.lineno}: {owner}.{node.attr}")
        elif node.attr in REMOVES and owner not in ("np", "torch"):
            found.append(f"line {node.lineno}: .{node.attr}")
    for node in ast.walk(tree):  # Path.replace takes one argument, str.replace two, dataclasses.replace is no method
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "replace":
            if len(node.args) + len(node.keywords) == 1:
                found.append(f"line {node.lineno}: .replace of a path")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_files_py_removes_or_replaces(path):
    assert doors(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import shutil\nshutil.rmtree(x)",
        "import os\nos.replace(a, b)",
        "from os import remove",
        "from shutil import rmtree as gone",
        "path.unlink(missing_ok=True)",
        "Path(a).replace(b)",
        "path.rename(b)",
        "f = shutil.rmtree",
    ],
)
def test_the_walk_sees_every_kind_of_door(code):
    assert doors(ast.parse(code))


def test_the_walk_knows_text_from_paths():
    assert not doors(ast.parse("text.replace('a', 'b')\nreplace(config, x=1)\nlist.remove"))
