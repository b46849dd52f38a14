"""Options that several verbs of `echox eval` share: what is asked, and which part of it."""

from pathlib import Path
from typing import Annotated

import typer

from echox.commands.options import LARGEST_SEED, checked_shard, positive

Questions = Annotated[Path | None, typer.Option(help="TSV file: id, question, answers, audio.")]
AudioDir = Annotated[Path | None, typer.Option(help="Folder of the spoken questions (<id>.wav).")]
Suite = Annotated[str, typer.Option(help="A named set instead: llama-questions, web-questions, trivia-qa, ...")]
Data = Annotated[Path | None, typer.Option(help="The suite's local copy; without it the hub is asked.")]
Format = Annotated[
    str, typer.Option("--format", help="voicebench, ultraeval, uro, openaudiobench, nq-open, webquestions or texts.")
]
Shard = Annotated[str, typer.Option(callback=checked_shard, help="I/N: only every N-th question, from the I-th.")]
Retention = Annotated[Path | None, typer.Option(help="A spoken set: what is kept of what the text model knows.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N questions.")]
Window = Annotated[int, typer.Option(min=1, max=30, help="Seconds of audio a Whisper judge pads to; 30 is its own.")]
Beam = Annotated[int, typer.Option(min=1, max=100, help="How many texts it keeps in view.")]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the choice, the voices and the noise.")]
Timeout = Annotated[float, typer.Option(callback=positive, help="Seconds an endpoint may take for one answer.")]
MaxSeconds = Annotated[float | None, typer.Option(callback=positive, help="Longest answer; a server is not told.")]
Live = Annotated[bool, typer.Option("--live", help="Say the questions in real time: they are heard meanwhile.")]
TypedFrom = Annotated[Path | None, typer.Option(help="results.jsonl of another condition, for its typed answers.")]
