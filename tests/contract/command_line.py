"""The command line as it parses today, its verbs doing nothing."""

from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from unittest.mock import patch

import click
from typer.main import get_command

from echox.cli import VERBS, VerbGroup, app


@cache
def verbs():
    """Return {"ask": command, "eval": group of commands, ...}."""
    root = get_command(app)
    found = {name: root.get_command(click.Context(root), name) for name in VERBS}
    for verb in found.values():
        for _, command in below_of(verb):
            command.callback = lambda **_: None
    return found


def options():
    """Return every (verb, option) that there is."""
    named = [(f"{name} {below}".strip(), one) for name, verb in verbs().items() for below, one in below_of(verb)]
    return [(name, one.opts[0]) for name, command in named for one in command.params if one.opts[0][0] == "-"]


def below_of(verb):
    """Return the (name, command) of each verb below, of a verb itself as ("", verb)."""
    return getattr(verb, "commands", {"": verb}).items()


def wrong_usage(arguments):
    """Return what is printed of wrong usage; nothing where the arguments are taken."""
    said = StringIO()
    doing_nothing = patch.object(VerbGroup, "get_command", lambda self, context, name: verbs().get(name))
    with doing_nothing, redirect_stderr(said), redirect_stdout(StringIO()):
        try:
            get_command(app).main(list(arguments), prog_name="echox")
        except SystemExit as ended:
            return said.getvalue() if ended.code == 2 else ""
    return ""
