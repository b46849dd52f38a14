"""`echox translate`: recordings to their translations, files and JSON lines.

Parses options, names files and prints; every translation is the translator's. Nothing heavy is imported before a verb runs.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from echox.audio import RECORDING_SECONDS, check_output, load_audio
from echox.commands import answers
from echox.commands.options import Device, Dtype, Json, MaxSeconds, Recordings, check_standard
from echox.commands.recordings import STANDARD, expanded, shown, sound_of, stem_of
from echox.errors import LONGEST_REASON, InputError, ModelError, clipped
from echox.generate.checks import check_text

if TYPE_CHECKING:
    from echox.generate.translation import Translation

SPEAKER, WRITER = "mini-es-en", "mini-st"  # the first says Spanish in English, the second writes English in Spanish
Model = Annotated[
    str, typer.Option("--model", help=f"A model folder, or a hub name; default {SPEAKER}, with --to text {WRITER}.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="WAV file, - for standard output; default translation.wav.")
]
Beam = Annotated[int | None, typer.Option("--beam", min=1, max=100, help="Hypotheses in view; default: the model's.")]


def translate(
    recordings: Recordings = None,
    model: Model = "",
    typed: Annotated[list[str] | None, typer.Option("--typed", help="Text to translate instead; repeat it.")] = None,
    to: Annotated[str, typer.Option("--to", help="speech, or text for models that write.")] = "speech",
    output: Output = None,
    out_dir: Annotated[Path | None, typer.Option("--out-dir", help="Folder for several translations.")] = None,
    as_json: Json = False,
    beam: Beam = None,
    max_seconds: MaxSeconds = None,
    device: Device = "auto",
    dtype: Dtype = None,
) -> None:
    """Translate speech into speech, or speech and typed text into text; exit status 1 where there is no translation."""
    model = model or (WRITER if to == "text" else SPEAKER)
    if bool(recordings) == bool(typed):
        raise typer.BadParameter("give recordings, or --typed text.")
    if to not in ("speech", "text"):
        raise typer.BadParameter(f"--to {to} is unknown: choose speech or text.")
    if typed and to != "text":
        raise typer.BadParameter("typed text becomes text: add --to text.")
    check_standard(as_json, output)
    if to == "text" and (output or out_dir or max_seconds is not None):
        raise typer.BadParameter("--to text prints: leave -o, --out-dir and --max-seconds out.")
    source = ("typed",) if typed else ("recording", "heard")
    keys = (*source, "text", "finish") if to == "text" else ("question", *answers.FACTS, "unit_words")
    show_error = answers.json_fault(*keys) if as_json else answers.plain_error
    with answers.refused(show_error):
        names = expanded(recordings or []) + list(typed or [])
        places: list[Path | None] = [None] * len(names)
        if to == "speech":
            stems = [stem_of(name, "translation") for name in names]
            places = [*answers.places_of(stems, names, output, out_dir, ("translation", "recording"))]
        given = names if typed else [sound_of(name) for name in names]
        if out_dir is not None:
            answers.make_folder(out_dir)
    problems = [answers.attempt(_check, *one, bool(typed)) for one in zip(given, places, strict=True)]
    names = names if typed else [shown(name) for name in names]
    options = {"beams": beam, "max_seconds": max_seconds}

    def answer(translator: Any, number: int) -> None:
        name, place = names[number], places[number]
        found = translator.translate(**{"typed" if typed else "sound": given[number]}, **options)
        answers.refuse_unheard(name, found.finish)
        if found.finish == "empty":
            given_name = clipped(name, LONGEST_REASON)
            raise InputError(f"the model says nothing for {given_name}: speak or write it in other words.")
        if place is None:
            _show_text(found, {"typed": name} if typed else {"recording": name, "heard": found.heard}, as_json)
        else:
            _show_speech(found, name, place, translator.load_seconds, as_json)

    answers.answer_each(names, problems, lambda: load_translator(model, device, dtype, to), answer, show_error)


def load_translator(model: str, device: str, dtype: str | None, to: str = "speech") -> Any:
    """Return the loaded translator."""
    with answers.loading(model):
        from echox.translator import SpeechTranslator

        translator = SpeechTranslator.load(model, device=device, dtype=dtype)
    if translator.writes and to != "text":
        raise ModelError(f"{model} writes text: add --to text.")
    if to == "text" and not translator.writes:
        raise ModelError(f"{model} translates speech to speech and writes no text: give it a recording, without --to.")
    return translator


def _check(given: str | bytes, place: Path | None, typed: bool) -> None:
    if typed:
        check_text(str(given), "the text to translate")
        return
    if place is not None and str(place) != STANDARD:
        check_output(place)
    load_audio(given, max_seconds=RECORDING_SECONDS)


def _show_text(found: "Translation", source: dict[str, str], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(source | {"text": found.text, "finish": found.finish, "error": None}, ensure_ascii=False))
        return
    typer.echo(found.text)
    if found.finish == "length":
        typer.echo("[cut at the limit]", err=True)


def _show_speech(found: "Translation", name: str, place: Path, load_seconds: float, as_json: bool) -> None:
    to_pipe = str(place) == STANDARD
    if to_pipe and found.audio is not None:
        answers.write_standard(found.audio, found.sample_rate)
    else:
        found.save(place)
    if as_json:
        more = {"text": found.text or None, "unit_words": found.unit_words}
        typer.echo(answers.json_line(name, found, place, load_seconds, **more))
        return
    cut = " [cut at the limit]" if found.finish == "length" else ""
    typer.echo(f"recording: {name}", err=to_pipe)
    typer.echo(f"speech: {place} ({found.audio_seconds:.1f} s){cut}", err=to_pipe)
