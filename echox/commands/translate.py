"""`echox translate`: recordings to their translations, files and JSON lines.

Parses options, names files and prints; every translation is the translator's. Nothing heavy is imported before a verb runs.
"""

import json
import sys
from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from echox.audio import check_output, load_audio
from echox.commands import ask
from echox.errors import EchoxError

if TYPE_CHECKING:
    from echox.generate.translation import Translation

LONGEST_SECONDS = 600.0
Model = Annotated[str, typer.Option("--model", help="A model folder, or a hub name owner/model.")]
Beam = Annotated[int | None, typer.Option("--beam", min=1, max=100, help="Hypotheses in view; default: the model's.")]


def translate(
    recordings: Annotated[list[str], typer.Argument(help="Recordings (WAV, FLAC, OGG, MP3, M4A, WebM), or folders.")],
    model: Model,
    output: ask.Output = None,
    out_dir: Annotated[Path | None, typer.Option("--out-dir", help="Folder for several translations.")] = None,
    as_json: ask.Json = False,
    beam: Beam = None,
    max_seconds: ask.MaxSeconds = None,
    device: ask.Device = "auto",
    dtype: ask.Dtype = None,
) -> None:
    """Translate speech into speech; exit status 1 when a recording has no translation."""
    ask.check_seconds(max_seconds)
    if as_json and output == Path(ask.STANDARD):
        raise typer.BadParameter("--json and -o - both want standard output: give -o a file.")
    show_error = ask.json_error if as_json else ask.plain_error
    try:
        names = [name for given in recordings for name in ask.expanded(given)]
        places = plan(names, output, out_dir)
        if out_dir is not None:
            ask.make_folder(out_dir)
    except EchoxError as error:
        show_error("", error)
        raise typer.Exit(1) from error
    problems = [ask.attempt(_check, name, place) for name, place in zip(names, places, strict=True)]
    translator, unloaded = None, None
    if None in problems:
        try:
            translator = load_translator(model, device, dtype)
        except EchoxError as error:
            unloaded = error
    failed = False
    for name, place, refused in zip(names, places, problems, strict=True):
        options = {"beams": beam, "max_seconds": max_seconds}
        problem = refused or unloaded or ask.attempt(_answer, translator, name, place, options, as_json)
        if problem is not None:
            failed = True
            show_error(name, problem)
    if failed:
        raise typer.Exit(1)


def plan(names: list[str], output: Path | None, out_dir: Path | None) -> list[Path]:
    """Return the file that each translation goes to; a usage error when that is not clear."""
    if output and out_dir:
        raise typer.BadParameter("give -o for one translation or --out-dir for several, not both.")
    if len(names) > 1 and not out_dir:
        raise typer.BadParameter(f"there are {len(names)} recordings: give --out-dir.")
    if out_dir is None:
        place = output or Path("translation.wav")
        if realpath(place) in {realpath(name) for name in names}:
            raise typer.BadParameter(f"{place} is the recording itself: write the translation elsewhere with -o.")
        return [place]
    taken = {realpath(name).lower() for name in names}  # a translation never replaces a recording
    return [ask.free_name(out_dir, Path(name).stem or "translation", taken) for name in names]


def load_translator(model: str, device: str, dtype: str | None) -> Any:
    """Return the loaded translator; says on a terminal that this takes a while."""
    if sys.stderr.isatty():
        typer.echo(f"loading {model} ...", err=True)
    from echox.hub_llm import quiet_transformers
    from echox.translator import SpeechTranslator

    with quiet_transformers():
        return SpeechTranslator.load(model, device=device, dtype=dtype)


def _check(name: str, place: Path) -> None:
    if str(place) != ask.STANDARD:
        check_output(place)
    load_audio(name, max_seconds=LONGEST_SECONDS)


def _answer(translator: Any, name: str, place: Path, options: dict[str, Any], as_json: bool) -> None:
    found: Translation = translator.translate(name, **options)
    to_pipe = str(place) == ask.STANDARD
    if to_pipe:
        ask.write_standard(found.audio, found.sample_rate)
    else:
        found.save(place)
    if as_json:
        record = json.loads(ask.json_line(name, found, place, translator.load_seconds, unit_words=found.unit_words))
        typer.echo(json.dumps(record | {"text": found.text or None}, ensure_ascii=False))
        return
    cut = " [cut at the limit]" if found.finish == "length" else ""
    typer.echo(f"recording: {name}", err=to_pipe)
    typer.echo(f"speech: {place} ({found.audio_seconds:.1f} s){cut}", err=to_pipe)
