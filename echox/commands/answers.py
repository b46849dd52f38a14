"""Shared by several verbs: loading a model, answering each input, naming files, printing results and errors; it knows no verb.

Nothing heavy is imported before something is loaded.
"""

import gc
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os.path import realpath  # unlike those of Path, no loop of links or long name ends them
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import typer

from echox.audio import to_pcm16, wav_header
from echox.commands.recordings import STANDARD
from echox.errors import EchoxError, InputError, OutputError

if TYPE_CHECKING:
    from echox.generate.types import Reply

Show = Callable[[str, EchoxError], None]


def answer_each(
    names: Sequence[str],
    problems: Sequence[EchoxError | None],
    load: Callable[[], Any],
    answer: Callable[[Any, int], None],
    show_error: Show,
) -> None:
    """Call `answer` with what `load` returns and the number of each input without a problem; nothing is loaded for none.

    Every problem is shown under its input's name, and the exit status is then 1.
    """
    loaded, unloaded = None, None
    if None in problems:
        try:
            loaded = load()
        except EchoxError as error:
            unloaded = error
    failed = False
    for number, (name, refused) in enumerate(zip(names, problems, strict=True)):
        problem = refused or unloaded or attempt(answer, loaded, number)
        if problem is not None:
            failed = True
            show_error(name, problem)
    if failed:
        raise typer.Exit(1)


@contextmanager
def refused(show_error: Show, name: str = "") -> Iterator[None]:
    """Show an error that a user can put right, and end with exit status 1."""
    try:
        yield
    except EchoxError as error:
        show_error(name, error)
        raise typer.Exit(1) from error


def refuse_unheard(name: str, finish: str) -> None:
    """Raise InputError where nothing was understood in the recording `name`."""
    if finish == "unheard":
        raise InputError(f"nothing was understood in {name}: speak closer to the microphone, in the model's language.")


def attempt(work: Callable[..., Any], *arguments: Any) -> EchoxError | None:
    """Run `work` and return the error that a user can put right, so that other questions still run."""
    try:
        work(*arguments)
    except EchoxError as error:
        return error
    return None


def plain_error(name: str, error: EchoxError) -> None:
    """Print an error to standard error."""
    typer.echo(f"echox: {error}", err=True)


def json_fault(key: str, *names: str) -> Show:
    """Return a function that prints an error as a line of JSON: the input under `key`, and null for all other `names`."""

    def show(name: str, error: EchoxError) -> None:
        typer.echo(json.dumps({key: name, **dict.fromkeys(names), "error": str(error)}, ensure_ascii=False))

    return show


FACTS = "heard text audio audio_seconds wall_seconds first_audio_seconds units finish load_seconds".split()
json_error = json_fault("question", *FACTS)


def json_line(name: str, reply: "Reply", place: Path | None, load_seconds: float, **more: object) -> str:
    """Return the answer as one line of JSON: times in seconds since the question was put to the loaded model."""
    return json.dumps(
        {
            "question": name,
            "heard": reply.heard,
            "text": reply.text,
            "audio": None if place is None else str(place),
            "audio_seconds": _rounded(reply.audio_seconds),
            "wall_seconds": _rounded(reply.wall_seconds),
            "first_audio_seconds": _rounded(reply.first_audio_seconds),
            "units": None if place is None else [int(unit) for unit in reply.units],
            "finish": reply.finish,
            "load_seconds": _rounded(load_seconds),
            "error": None,
            **more,
        },
        ensure_ascii=False,
    )


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Announce loading on a terminal, keep transformers quiet, and exclude what is loaded from garbage collection."""
    if sys.stderr.isatty():
        typer.echo(f"loading {model} ...", err=True)
    collects = gc.isenabled()
    gc.disable()  # what is imported and loaded stays: looking through it again and again takes a fifth of `import torch`
    try:
        from echox.hub_llm import quiet_transformers

        with quiet_transformers():
            yield
        gc.freeze()  # else reading a number, which makes many small objects, takes half as long again (LOG.md)
    finally:
        if collects:
            gc.enable()


def load_assistant(model: str, llm: str | None, device: str, dtype: str | None, **places: Any) -> Any:
    """Return the loaded assistant, `places` as in `SpeechAssistant.load`."""
    with loading(model):
        from echox import SpeechAssistant

        return SpeechAssistant.load(model, device=device, dtype=dtype, llm=llm, **places)


def make_folder(folder: Path) -> None:
    """Make a folder for answers; OutputError when that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror}): choose another.") from error


def places_of(
    stems: Sequence[str], recordings: Sequence[str], output: Path | None, out_dir: Path | None, words: tuple[str, str]
) -> list[Path]:
    """Return the output file of each input, never one of the recordings; usage error where -o or --out-dir does not fit.

    `words` name the output and the input in messages, such as answer and question.
    """
    made, source = words
    if output and out_dir:
        raise typer.BadParameter(f"give -o for one {made} or --out-dir for several, not both.")
    if len(stems) > 1 and not out_dir:
        raise typer.BadParameter(f"there are {len(stems)} {source}s: give --out-dir.")
    if out_dir is None:
        place = output or Path(f"{made}.wav")
        if str(place) != STANDARD and realpath(place) in {realpath(name) for name in recordings}:
            raise typer.BadParameter(f"{place} is the {source} itself: write the {made} elsewhere with -o.")
        return [place]
    taken = {realpath(name).lower() for name in recordings}
    return [free_name(out_dir, stem, taken) for stem in stems]


def free_name(folder: Path, stem: str, taken: set[str]) -> Path:
    """Return `folder/stem.wav`, or stem-2, stem-3, ... and remember it; case does not tell files apart everywhere."""
    number, place = 1, folder / f"{stem}.wav"
    while realpath(place).lower() in taken:
        number += 1
        place = folder / f"{stem}-{number}.wav"
    taken.add(realpath(place).lower())
    return place


@contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """Yield standard output for bytes; OutputError when that is a terminal, closed or full."""
    if sys.stdout.isatty():
        raise OutputError("standard output is a terminal: send the speech into a pipe or a file (-o FILE).")
    try:
        if isinstance(sys.stdout.buffer, io.RawIOBase):  # PYTHONUNBUFFERED: it may write a part and raise nothing
            with open(sys.stdout.fileno(), "wb", closefd=False) as out:
                yield out
        else:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
    except OSError as error:
        raise OutputError(f"standard output cannot be written ({error.strerror}).") from error


def write_standard(wave: np.ndarray, sample_rate: int) -> None:
    """Write a WAV file to standard output; OutputError as `standard_output`."""
    pcm = to_pcm16(wave)
    with standard_output() as out:
        out.write(wav_header(sample_rate, len(pcm)) + pcm)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(float(seconds), 4)
