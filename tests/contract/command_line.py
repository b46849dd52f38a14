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
    return {name: root.get_command(click.Context(root), name) for name in VERBS}


@cache
def commands():
    """Return {"ask": command, "eval qa": command, ...} of the whole command line, which itself is ""."""
    found = {"": get_command(app)}
    for name, verb in verbs().items():
        for below, command in getattr(verb, "commands", {"": verb}).items():
            found[f"{name} {below}".strip()] = command
            command.callback = lambda **_: None
    return found


def wrong_usage(arguments):
    """Return what is printed of wrong usage; nothing where the arguments are taken."""
    said = StringIO()
    doing_nothing = patch.object(VerbGroup, "get_command", lambda self, context, name: verbs().get(name))
    commands()
    with doing_nothing, redirect_stderr(said), redirect_stdout(StringIO()):
        try:
            get_command(app).main(list(arguments), prog_name="echox")
        except SystemExit as ended:
            return said.getvalue() if ended.code == 2 else ""
    return ""
