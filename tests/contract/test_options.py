"""Every `--option` that a page or a message names is one of the command line's, and one of the verb's that it is named for."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from command_line import commands

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted((ROOT / "echox").rglob("*.py"))
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9]*(?:-[a-z0-9]+)*(?![\w-])")  # no arrow of a diagram
COMMAND = re.compile(r"`(?:python -m )?echox ([a-z][^`]*)`")
OF_OTHERS = {  # programs that pages and modules call: pip, uv, git, espeak; our own scripts have theirs beside them
    *"--extra-index-url --torch-backend --no-deps --only-binary --retries --quiet --dest --depth --setf --help".split(),
    *"--disable-pip-version-check --ipa --stdin".split(),
    *"--nproc-per-node --nnodes --standalone --master-port".split(),  # torchrun's
    "--resume",  # UltraEval-Audio's
}
SCRIPTS = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tests" / "fuzz").glob("*.py")]


@cache
def options_of_verbs() -> dict[str, set[str]]:
    """{"ask": options, "eval qa": options, ...} of the whole command line."""
    found = {}
    for name, command in commands().items():
        options = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        found[name] = {option for option in options if option.startswith("--")} | {"--help"}
    return found


def test_every_option_says_something_and_none_is_typers_own():
    for name, command in commands().items():
        for one in command.params:
            assert one.help and "completion" not in one.name, f"{name} {one.name}"


def test_every_verb_finds_its_device_unless_it_is_named():
    found = {
        name: one.default for name, command in commands().items() for one in command.params if "--device" in one.opts
    }
    assert "eval translation" in found and {default for name, default in found.items()} == {"auto"}


def every_option() -> set[str]:
    scripts = {name for path in SCRIPTS for name in re.findall(r'add_argument\(\s*"(--[\w-]+)"', path.read_text())}
    return set.union(*options_of_verbs().values()) | scripts | OF_OTHERS


def messages(path: Path) -> list[str]:
    """Every text of a module but its first docstring, which may hold arrows."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    head = ast.get_docstring(tree, clean=False)
    return [text for text in texts if text != head]


def wrong_commands(text: str) -> list[str]:
    """Commands in code spans whose verb does not exist or lacks an option that is given."""
    verbs, wrong = options_of_verbs(), []
    for line in COMMAND.findall(text):
        words = line.split()
        name = " ".join(words[:2]) if " ".join(words[:2]) in verbs else words[0]
        group = any(verb.startswith(f"{name} ") for verb in verbs)
        if set(OPTION.findall(line)) - verbs.get(name, set()) or not (name in verbs or group):
            wrong.append(line)
    return wrong


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_name_options_that_exist(path):
    text = path.read_text(encoding="utf-8")
    if path.name not in ("LOG.md", "CHANGELOG.md"):  # these tell of days when there were others
        assert set(OPTION.findall(text)) <= every_option() and wrong_commands(text) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_messages_name_options_that_exist(path):
    room, verb = path.parent.name, path.stem.replace("_", "-")
    names = {"commands": [verb], "tasks": [f"eval {verb}", "eval qa"]}.get(
        room, []
    )  # qa also reads what the others wrote
    verbs = options_of_verbs()
    known = set().union(*(verbs[name] for name in names)) if names and names[0] in verbs else every_option()
    known |= OF_OTHERS
    for text in messages(path):
        assert set(OPTION.findall(text)) <= known, text[:200]
        assert wrong_commands(text) == []


def test_the_walk_sees_what_is_wrong():
    assert {"ask", "eval qa", "units speak"} <= set(options_of_verbs())
    assert wrong_commands("run `echox eval qa --arms x` or `echox eval qa --kokoro`") == ["eval qa --kokoro"]
    assert wrong_commands("run `echox listen a.wav`") == ["listen a.wav"]
    assert OPTION.findall("mel --conv--> x, give --judge") == ["--judge"]
