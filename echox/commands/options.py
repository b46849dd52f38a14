"""Options that several verbs have, and what is wrong usage of them."""

from pathlib import Path
from typing import Annotated

import typer

from echox.commands.recordings import STANDARD

Model = Annotated[str, typer.Option("--model", help="mini, a model folder, or a hub name owner/model.")]
Llm = Annotated[
    str | None,
    typer.Option(
        "--llm",
        help="Copy of the text model (folder, GGUF, wheel), or another chat model: a folder, a GGUF file, owner/name on the hub.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, mps or auto.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16 or float16; else what is fast here.")]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**63 - 1, help="For sampling; greedy decoding does not use it.")
]
MaxSeconds = Annotated[float | None, typer.Option("--max-seconds", help="Longest answer, in seconds of speech.")]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object a line on standard output, and nothing else there.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="WAV file to write, - for standard output; default answer.wav.")
]
SOUNDS = "Recordings (WAV, FLAC, OGG, MP3, M4A, WebM), folders of them, or - for a pipe."
Recordings = Annotated[list[str] | None, typer.Argument(help=SOUNDS)]


def check_seconds(max_seconds: float | None) -> None:
    """Raise a usage error unless a limit, where given, is a positive number of seconds."""
    if max_seconds is not None and not 0 < max_seconds < float("inf"):
        raise typer.BadParameter(f"{max_seconds:g} is not a positive number of seconds.", param_hint="--max-seconds")


def check_standard(as_json: bool, output: Path | None) -> None:
    """Raise a usage error where both JSON and speech would go to standard output."""
    if as_json and output == Path(STANDARD):
        raise typer.BadParameter("--json and -o - both want standard output: give -o a file.")
