"""Options that several verbs of `echox eval` share: what is asked, and which part of it."""

from pathlib import Path
from typing import Annotated

import typer

Questions = Annotated[Path | None, typer.Option(help="TSV file: id, question, answers, audio.")]
AudioDir = Annotated[Path | None, typer.Option(help="Folder of the spoken questions (<id>.wav).")]
Suite = Annotated[str, typer.Option(help="A named set instead: llama-questions, web-questions, trivia-qa, ...")]
Data = Annotated[Path | None, typer.Option(help="The suite's local copy; without it the hub is asked.")]
Format = Annotated[
    str,
    typer.Option(
        "--format", help="Items are voicebench, ultraeval, uro, openaudiobench, nq-open, webquestions or texts."
    ),
]
Shard = Annotated[str, typer.Option(help="i/n: every n-th question from the i-th; run n of them at once.")]
Retention = Annotated[
    Path | None, typer.Option(help="A spoken set instead: what is kept of what the text model knows.")
]
Live = Annotated[bool, typer.Option("--live", help="Say the questions in real time: they are heard meanwhile.")]
TypedFrom = Annotated[
    Path | None, typer.Option(help="results.jsonl that has the typed answers already, of another condition.")
]
