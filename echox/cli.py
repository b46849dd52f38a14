"""The command line: a table of verbs, each imported when it is used; it knows no model.

`--help` imports nothing heavy. What a user can put right arrives here as an EchoxError, is printed as one sentence on
standard error and ends with 1; wrong usage ends with 2.
"""

import io
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command

from echox.commands.startup import choose_threads
from echox.errors import EchoxError


class Verb(NamedTuple):
    """Where a verb stands (`module:attribute`, a function or a typer app) and what `--help` says about it."""

    target: str
    summary: str


VERBS = {
    "ask": Verb("echox.commands.ask:ask", "Answer recorded or typed questions aloud."),
    "say": Verb("echox.commands.say:say", "Speak a text."),
    "translate": Verb("echox.commands.translate:translate", "Translate recorded speech, or text."),
    "transcribe": Verb("echox.commands.transcribe:transcribe", "Write down what is said in recordings."),
    "serve": Verb("echox.commands.serve:serve", "Answer over the network, and on a page to talk to."),
    "talk": Verb("echox.commands.talk:talk", "Talk with a model: this machine's microphone and loudspeaker."),
    "train": Verb("echox.commands.train:train", "Run one training stage from its recipe."),
    "units": Verb("echox.commands.units:app", "Speech to units, and units to speech."),
    "prepare": Verb("echox.commands.prepare:app", "Make training corpora of public text, or of your own recordings."),
    "eval": Verb("echox.commands.eval:app", "Measure how well a model answers, sounds and keeps up."),
    "convert": Verb(
        "echox.commands.convert:convert", "Turn other people's checkpoints into folders of ours, and back."
    ),
}


class VerbGroup(TyperGroup):
    """A group that reads the table and imports a verb's module only when the verb is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs in the table's order."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the verb's command, or None when there is no such verb."""
        if cmd_name not in VERBS:
            return None
        choose_threads(cmd_name)
        module, _, attribute = VERBS[cmd_name].target.partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, typer.Typer):
            single = typer.Typer(add_completion=False)
            single.command(cmd_name)(command)
            command = single
        return get_command(command)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table's summaries, without importing any verb."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.summary) for name, verb in VERBS.items()])


app = typer.Typer(
    cls=VerbGroup,
    add_completion=False,
    rich_markup_mode=None,  # the plain help page asks no command for its own help
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from echox import __version__

        typer.echo(f"echox {__version__}")
        raise typer.Exit


@app.callback(no_args_is_help=True, invoke_without_command=False)
def echox(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Print it.")] = False,
) -> None:
    """echox: a recorded question in, a spoken answer out; and every step of training such a model."""


def end_tidily() -> None:
    """Let SIGTERM and a closed terminal end the program as an exception does, so that what is half-written is cleared away."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        with suppress(ValueError):  # not the main thread: the caller owns the signals
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup's stays as it is
                signal.signal(number, lambda number, _: sys.exit(128 + number))


def open_outputs() -> None:
    """Open the standard outputs that the caller closed at nothing, so that no print fails and no file takes their numbers."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, os.fdopen(number, "w"))


def main() -> None:
    """Run the command line and exit: 0, 1 after a sentence about what to put right, 2 for wrong usage, 128 + n on signal n."""
    end_tidily()
    open_outputs()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be text
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app(prog_name="echox")
        finally:
            sys.stdout.flush()
    except EchoxError as error:
        typer.echo(f"echox: {error}", err=True)
        sys.exit(1)
    except OSError as error:  # a full disk, a place that may not be entered
        name, reason = error.filename or "standard output", error.strerror or error
        typer.echo(f"echox: {name} cannot be used ({reason}): free some space or choose another place.", err=True)
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # standard output: what waits there would fail again
        sys.exit(1)


if __name__ == "__main__":
    main()
