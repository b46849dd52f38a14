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
from echox.errors import EchoxError, ModelError

if TYPE_CHECKING:
    from echox.generate.translation import Translation

LONGEST_SECONDS = 600.0
Model = Annotated[str, typer.Option("--model", help="A model folder, or a hub name owner/model.")]
Beam = Annotated[int | None, typer.Option("--beam", min=1, max=100, help="Hypotheses in view; default: the model's.")]


def translate(
    recordings: Annotated[
        list[str] | None, typer.Argument(help="Recordings (WAV, FLAC, OGG, MP3, M4A, WebM), or folders.")
    ] = None,
    model: Model = "",
    typed: Annotated[list[str] | None, typer.Option("--typed", help="Text to translate instead; repeat it.")] = None,
    to: Annotated[str, typer.Option("--to", help="speech, or text for models that write.")] = "speech",
    output: ask.Output = None,
    out_dir: Annotated[Path | None, typer.Option("--out-dir", help="Folder for several translations.")] = None,
    as_json: ask.Json = False,
    beam: Beam = None,
    max_seconds: ask.MaxSeconds = None,
    device: ask.Device = "auto",
    dtype: ask.Dtype = None,
) -> None:
    """Translate speech into speech, or speech and typed text into text; exit status 1 where there is no translation."""
    ask.check_seconds(max_seconds)
    _check_usage(bool(recordings), bool(typed), to, model)
    if as_json and output == Path(ask.STANDARD):
        raise typer.BadParameter("--json and -o - both want standard output: give -o a file.")
    if to == "text" and (output or out_dir):
        raise typer.BadParameter("--to text prints: leave -o and --out-dir out.")
    show_error = ask.json_error if as_json else ask.plain_error
    try:
        names = [name for given in recordings or [] for name in ask.expanded(given)] + list(typed or [])
        places = plan(names, output, out_dir) if to == "speech" else [None] * len(names)
        if out_dir is not None:
            ask.make_folder(out_dir)
    except EchoxError as error:
        show_error("", error)
        raise typer.Exit(1) from error
    check = _check_typed if typed else _check
    problems = [ask.attempt(check, name, place) for name, place in zip(names, places, strict=True)]
    options = {"beams": beam, "max_seconds": max_seconds}

    def answer(translator: Any, number: int) -> None:
        name, place = names[number], places[number]
        if place is None:
            _answer_text(translator, {"typed": name} if typed else {"sound": name}, options, as_json)
        else:
            _answer(translator, name, place, options, as_json)

    ask.answer_each(names, problems, lambda: load_translator(model, device, dtype, to), answer, show_error)


def _check_usage(spoken: bool, typed: bool, to: str, model: str) -> None:
    """Raise a usage error for what cannot be meant."""
    if spoken == typed:
        raise typer.BadParameter("give recordings, or --typed text.")
    if to not in ("speech", "text"):
        raise typer.BadParameter(f"--to {to} is unknown: choose speech or text.")
    if typed and to != "text":
        raise typer.BadParameter("typed text becomes text: add --to text.")
    if not model:
        raise typer.BadParameter("name a translator with --model.")


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


def load_translator(model: str, device: str, dtype: str | None, to: str = "speech") -> Any:
    """Return the loaded translator; says on a terminal that this takes a while."""
    if sys.stderr.isatty():
        typer.echo(f"loading {model} ...", err=True)
    from echox.hub_llm import quiet_transformers
    from echox.translator import SpeechTranslator

    with quiet_transformers():
        translator = SpeechTranslator.load(model, device=device, dtype=dtype)
    if translator.writes != (to == "text"):
        other = "writes text: add --to text" if translator.writes else "speaks and writes no text: leave --to out"
        raise ModelError(f"{model} {other}.")
    return translator


def _check(name: str, place: Path | None) -> None:
    if place is not None and str(place) != ask.STANDARD:
        check_output(place)
    load_audio(name, max_seconds=LONGEST_SECONDS)


def _check_typed(text: str, place: Path | None) -> None:
    from echox.generate.checks import check_text

    check_text(text, "the text to translate")


def _answer_text(translator: Any, given: dict[str, str], options: dict[str, Any], as_json: bool) -> None:
    found: Translation = translator.translate(**given, **options)
    if as_json:
        source = {"recording": given["sound"], "heard": found.heard} if "sound" in given else given
        typer.echo(json.dumps(source | {"text": found.text, "finish": found.finish}, ensure_ascii=False))
    else:
        typer.echo(found.text)


def _answer(translator: Any, name: str, place: Path, options: dict[str, Any], as_json: bool) -> None:
    found: Translation = translator.translate(name, **options)
    to_pipe = str(place) == ask.STANDARD
    if to_pipe and found.audio is not None:
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
