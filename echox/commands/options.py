"""Options that several verbs share, and their checks."""

import math
from pathlib import Path
from typing import Annotated

import typer

from echox.commands.recordings import STANDARD


def finite(number: float | None) -> float | None:
    """Return an option's number; a usage error unless it is finite, which an option's range does not check."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number:g} is not a finite number.")
    return number


def positive(number: float | None) -> float | None:
    """Return an option's number; a usage error unless it is positive and finite."""
    if number is not None and not 0 < number < math.inf:
        raise typer.BadParameter(f"{number:g} is not a positive number.")
    return number


def checked_shard(shard: str) -> str:
    """Return a shard; a usage error unless it is I/N with 0 <= I < N, or empty."""
    from echox.config.shard import shard_of
    from echox.errors import ConfigError

    try:
        shard_of(shard or "0/1")
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    return shard


Model = Annotated[str, typer.Option("--model", help="mini, a model folder, or a hub name owner/model.")]
Llm = Annotated[
    str | None, typer.Option("--llm", help="Another chat model, or a copy of mini's: folder, GGUF, wheel or hub name.")
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, mps or auto.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16 or float16; else what is fast here.")]
LARGEST_SEED = 2**63 - 1
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="For sampling; greedy decoding does not use it.")]
MaxSeconds = Annotated[float | None, typer.Option(callback=positive, help="Longest answer, in seconds of speech.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line, and nothing else.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="WAV file to write, - for standard output; default answer.wav.")
]
SOUNDS = "Recordings (WAV, FLAC, OGG, MP3, M4A, WebM), folders of them, or - for a pipe."
Recordings = Annotated[list[str] | None, typer.Argument(help=SOUNDS)]


def check_standard(as_json: bool, output: Path | None) -> None:
    """Raise a usage error where both JSON and speech would go to standard output."""
    if as_json and output == Path(STANDARD):
        raise typer.BadParameter("--json and -o - both want standard output: give -o a file.")
