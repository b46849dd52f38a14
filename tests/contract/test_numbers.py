"""Every number and every shard that the command line takes has its bounds: outside them it is wrong usage, in one sentence."""

from functools import cache

import click
import pytest
from typer.main import get_command

from echox.cli import VERBS, VerbGroup, app

ZERO = {  # of these there may be none, or it is the first
    *"--seed --mic --waiting --requests-a-minute --turns --nothing --joins --warmup --retries --rate --think".split(),
    *"--held-out --layer --speaker --max-error --min-log-probability".split(),
}
NEGATIVE = {"--min-log-probability"}
SHARDS = ("3/2", "2/2", "0/0", "-1/2", "1", "x/y", "0/2/3")


@cache
def tree():
    """Return the command line, its verbs doing nothing, and every option that takes a value as (verb, option)."""
    root, options = get_command(app), []
    verbs = {name: root.get_command(click.Context(root), name) for name in VERBS}
    for name, verb in verbs.items():
        for below, command in getattr(verb, "commands", {"": verb}).items():
            command.callback = lambda **_: None
            options += [(f"{name} {below}".strip(), one.opts[0]) for one in command.params if one.opts[0][0] == "-"]
    return root, verbs, options


@pytest.fixture
def refused(monkeypatch, capsys):
    """What is printed of wrong usage; nothing where an option is taken, though others may be missing."""
    root, verbs, _ = tree()
    monkeypatch.setattr(VerbGroup, "get_command", lambda self, context, name: verbs[name])

    def run(verb, option, value):
        with pytest.raises(SystemExit) as ended:
            root.main([*verb.split(), option, value], prog_name="echox")
        said = capsys.readouterr().err
        return said if ended.value.code == 2 and f"Invalid value for '{option}'" in said else ""

    return run


def test_numbers_outside_their_bounds_are_wrong_usage(refused):
    taken, numbers = [], 0
    for verb, option in tree()[2]:
        said = refused(verb, option, "x")
        whole = "valid int" in said
        if not (whole or "valid float" in said):
            continue
        numbers += 1
        values = [
            "nan",
            "inf",
            "-inf",
            *(["-1"] if option not in NEGATIVE else []),
            *(["0"] if option not in ZERO else []),
        ]
        taken += [f"{verb} {option} {value}" for value in values if not refused(verb, option, value)]
    assert taken == [] and numbers > 40


def test_shards_that_are_none_are_wrong_usage(refused):
    found = [(verb, option) for verb, option in tree()[2] if option == "--shard"]
    taken = [f"{verb} {value}" for verb, option in found for value in SHARDS if not refused(verb, option, value)]
    assert taken == [] and len(found) > 4 and not refused(*found[0], "1/2")


@pytest.mark.parametrize("verb", ["translate", "transcribe", "eval translation"])
def test_a_beam_of_thousands_is_wrong_usage(refused, verb):
    assert refused(verb, "--beam", "10000") and not refused(verb, "--beam", "100")
