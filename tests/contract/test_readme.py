"""What the documents say exists: paths, verbs, options, make targets, the tree; offline examples are executed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import wrong_usage

from echox.train.stages import load_recipe

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^(<!-- offline -->\n)?```(\w+)\n(.*?)^```", re.M | re.S)
TREE = README.partition("<!-- tree: begin -->")[2].partition("<!-- tree: end -->")[0]
MADE_LATER = {"LOG.md"} if not (ROOT / "LOG.md").exists() else set()


def commands(page: Path) -> list[str]:
    """Return every shell line of a page's examples, continued lines joined."""
    text = page.read_text(encoding="utf-8")
    shell = "".join(code for _, kind, code in BLOCK.findall(text) if kind in ("bash", "sh", "console"))
    lines = shell.replace("\\\n", " ").splitlines()
    return [line.partition("  #")[0].removeprefix("$ ").strip() for line in lines if line.strip()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not re.match(r"\w+:", target):
            assert (page.parent / target).exists() or target in MADE_LATER, f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.-])((?:echox|recipes|runs|tests|docs|benchmarks|examples)/[\w./*-]+)", text)
    for path in named:
        clean = path.rstrip("./")
        found = list(ROOT.glob(clean)) if "*" in clean else (ROOT / clean).exists()
        assert found or clean == "echox/mini", f"{page.name} names {path}"


def programs(line: str) -> list[list[str]]:
    """Return the programs of a shell line, each with its arguments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        found[-1].append(word)
        if not word.strip("|&;"):
            found[-1].pop()
            found.append([])
    return [words for words in found if words]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    for words in (words for line in commands(page) for words in programs(line)):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), words
        if words[0].startswith(("runs/", ".ci/")):
            assert os.access(ROOT / words[0], os.X_OK), f"{words[0]} cannot be run"
        if words[0] not in ("echox", "torchrun"):
            continue
        given = words[words.index("echox") + 1 :]
        assert wrong_usage(given) == "", f"{page.name}: {words}"
        if given[0] == "train":
            load_recipe(ROOT / given[1], [word for word in given[2:] if "=" in word])


def test_the_walk_sees_what_does_not_parse():
    assert programs("arecord -d 5 | echox ask 'a b' || test $? = 1") == [
        ["arecord", "-d", "5"],
        ["echox", "ask", "a b"],
        ["test", "$?", "=", "1"],
    ]
    for line in ("ask a.wav --loud", "eval listen", "say a b", "eval qa --limit 0", "translate a.wav --beam"):
        assert wrong_usage(line.split())


def test_the_tree_names_what_is_there_and_nothing_else():
    entries, inside = set(), False
    for line in TREE.splitlines():
        found = re.match(r"( *)([\w.]+/?) ", line + " ")
        if found and line.strip("` "):
            inside = bool(found[1])
            entries.add(f"echox/{found[2]}" if inside else found[2])
    assert all((ROOT / entry).exists() for entry in entries), entries
    assert all((ROOT / entry).is_dir() == entry.endswith("/") for entry in entries)
    hidden = {
        "echox/__init__.py",
        "echox/py.typed",
        "echox/__pycache__/",
        "echox/mini/",
        "echox/mini-st/",
        "echox/mini-es-en/",
    }
    here = {f"echox/{path.name}{'/' * path.is_dir()}" for path in (ROOT / "echox").iterdir()} - hidden
    assert {entry for entry in entries if entry.startswith("echox/") and entry != "echox/"} == here


OFFLINE = [(kind, code) for offline, kind, code in BLOCK.findall(README) if offline]


@pytest.mark.parametrize(
    ("kind", "code"), OFFLINE, ids=[f"{number}-{kind}" for number, (kind, _) in enumerate(OFFLINE)]
)
def test_offline_examples_run(kind, code, tmp_path):
    if kind == "bash":
        code = f'echox() {{ "{sys.executable}" -m echox.cli "$@"; }}\nset -e\n{code}'
    program = [sys.executable, "-c", code] if kind == "python" else ["bash", "-c", code]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr


def test_the_typed_programs_run_and_say_how_they_are_called():
    live, usage = (
        subprocess.run([sys.executable, f"examples/{name}.py"], capture_output=True, text=True, cwd=ROOT)
        for name in ("live", "answer")
    )
    assert live.stdout == "1.0 seconds\nYou asked about 1.0 seconds.\n1.0 s of speech\n"
    assert usage.returncode == 1 and usage.stderr.strip().endswith("python examples/answer.py question.wav")


def test_there_are_offline_examples_and_the_first_screen_holds_the_two_commands():
    assert {kind for kind, _ in OFFLINE} == {"python", "bash"}
    first_screen = "\n".join(README.splitlines()[:24])
    assert "make ask" in first_screen and "make test" in first_screen and (ROOT / "examples/question.wav").exists()
