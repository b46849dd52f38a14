"""One voice: what a function does is said in the imperative, and a message to the user ends as a sentence does."""

import ast
import re
from pathlib import Path

import pytest

from echox import errors

PACKAGE = Path(__file__).resolve().parents[2] / "echox"
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in MODULES]
ERRORS = {name for name, kind in vars(errors).items() if name[0].isupper() and name != "ModuleType"}
ERRORS |= {"BadParameter", "error"}
DESCRIBED = {"property", "cached_property", "abstractmethod"}  # named for what they are, not for what they do
THIRD_PERSON = re.compile(r"(?!Pass\b|Less\b|Across\b)[A-Z][a-z]+s\b,?")
PASSED_ON = {"error", "_explain"}  # a sentence of ours inside another


def indicative(tree: ast.Module) -> list[str]:
    """Which functions' docstrings begin with "Returns" or its kind, where the others say "Return"."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            marks = {mark.id for mark in node.decorator_list if isinstance(mark, ast.Name)}
            first = (ast.get_docstring(node) or "").partition(" ")[0]
            if THIRD_PERSON.fullmatch(first) and not marks & DESCRIBED:
                found.append(f"line {node.lineno}: {node.name} begins with {first!r}")
    return found


def unfinished(tree: ast.Module) -> list[str]:
    """Which errors are made with a text that does not end in a full stop."""
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Name | ast.Attribute)):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        text = node.args[0]
        last = text.values[-1] if isinstance(text, ast.JoinedStr) and text.values else text
        if name not in ERRORS or isinstance(text, ast.Name | ast.Call):
            continue
        if isinstance(last, ast.Constant):
            whole = isinstance(last.value, str) and last.value.endswith((".", "?", "!"))
        else:
            whole = isinstance(last, ast.FormattedValue) and ast.unparse(last.value).partition("(")[0] in PASSED_ON
        if not whole:
            found.append(f"line {node.lineno}: {ast.unparse(text)[-60:]}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_docstrings_are_imperative_and_messages_are_sentences(path):
    module = ast.parse(path.read_text(encoding="utf-8"))
    assert indicative(module) == [] and unfinished(module) == []


@pytest.mark.parametrize(
    "code",
    ['raise InputError(f"{path} is bad")', 'raise typer.BadParameter("no")', 'raise ModelError(f"{path}: {names}")'],
)
def test_the_walk_sees_what_does_not_end(code):
    assert unfinished(ast.parse(code)) and not unfinished(ast.parse('raise InputError(f"{path} is bad: mend it.")'))


def test_the_walk_sees_the_indicative():
    assert indicative(ast.parse('def f():\n    """Returns one."""')) == ["line 1: f begins with 'Returns'"]
    assert not indicative(ast.parse('def f():\n    """Return one."""'))
