"""`echox ask`: questions to answers, files and JSON lines.

Parses options, names files and prints; every answer is the assistant's. Nothing heavy is imported before a verb runs.
"""

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from echox.audio import QUESTION_SECONDS, check_output, load_audio, save_wav
from echox.commands import answers
from echox.commands import options as shared
from echox.commands.recordings import STANDARD, expanded, shown, sound_of, stem_of
from echox.commands.sound import play, record
from echox.errors import EchoxError
from echox.generate.checks import check_text

Encoder = Annotated[Path | None, typer.Option("--encoder", help="Whisper folder instead of the model's own.")]
Vocoder = Annotated[Path | None, typer.Option("--vocoder", help="Vocoder folder instead of the model's own.")]
Quantize = Annotated[
    str | None, typer.Option("--quantize", help="Text model in int8 or int4; on a GPU int8 or nf4 (extra `released`).")
]
Play = Annotated[bool, typer.Option("--play", help="Play the answer, too (needs the extra `audio`).")]


@dataclass(frozen=True)
class Question:
    """One thing to ask: what the user called it, whether it is typed, where the speech goes (None: nowhere), its recording."""

    name: str
    typed: bool
    output: Path | None
    sound: Any = None  # a file's name, the bytes of a pipe, or samples of the microphone


def ask(
    recordings: shared.Recordings = None,
    typed: Annotated[list[str] | None, typer.Option("--typed", help="A question in writing; may be repeated.")] = None,
    output: shared.Output = None,
    out_dir: Annotated[Path | None, typer.Option("--out-dir", help="Folder for several answers.")] = None,
    mic: Annotated[
        float, typer.Option(min=0, callback=shared.finite, help="Record so many seconds from the microphone, and ask.")
    ] = 0,
    play_it: Play = False,
    text_only: Annotated[bool, typer.Option("--text-only", help="Write no speech.")] = False,
    as_json: shared.Json = False,
    max_seconds: shared.MaxSeconds = None,
    seed: shared.Seed = 0,
    model: shared.Model = "mini",
    llm: shared.Llm = None,
    device: shared.Device = "auto",
    dtype: shared.Dtype = None,
    encoder: Encoder = None,
    vocoder: Vocoder = None,
    quantize: Quantize = None,
) -> None:
    """Answer questions aloud: recorded ones first, then typed ones, all by one loaded model.

    Exit status 1 when a question got no answer, also where nothing was understood in a recording.
    """
    if text_only and (play_it or max_seconds is not None):
        raise typer.BadParameter("--text-only makes no speech to play or limit: leave out --play and --max-seconds.")
    shared.check_standard(as_json, output)
    answer, show_error = (_answer_json, answers.json_error) if as_json else (_answer_plain, answers.plain_error)
    with answers.refused(show_error):
        sounds = expanded(recordings or []) + (["microphone"] if mic else [])
    questions = plan(sounds, typed or [], output, out_dir, text_only)
    options = {"text_only": text_only, "max_seconds": max_seconds, "seed": seed}
    fault = None if text_only or out_dir is None else answers.attempt(answers.make_folder, out_dir)
    try:
        questions = [_with_sound(question, mic) for question in questions]
        if play_it:
            play(None, 0)
    except EchoxError as error:
        fault = error
    problems = [fault or answers.attempt(_check, one) for one in questions]  # refused before the model is loaded
    places = {"encoder": encoder, "vocoder": vocoder, "quantize": quantize}
    answers.answer_each(
        [question.name for question in questions],
        problems,
        lambda: answers.load_assistant(model, llm, device, dtype, **places),
        lambda assistant, number: answer(assistant, questions[number], options, play_it),
        show_error,
    )


def plan(
    recordings: list[str], typed: list[str], output: Path | None, out_dir: Path | None, text_only: bool
) -> list[Question]:
    """Return the questions in order with the file each answer goes to; a usage error when that is not clear."""
    names = [(name, False) for name in recordings] + [(text, True) for text in typed]
    if not names:
        raise typer.BadParameter("give a recording, or a question with --typed.", param_hint="RECORDINGS")
    if text_only and (output or out_dir):
        raise typer.BadParameter("--text-only makes no speech: leave out -o and --out-dir.")
    if text_only:
        return [Question(name, is_typed, None) for name, is_typed in names]
    stems = [in_words(name) if is_typed else stem_of(name, "answer") for name, is_typed in names]
    places = answers.places_of(stems, recordings, output, out_dir, ("answer", "question"))
    return [Question(name, is_typed, place) for (name, is_typed), place in zip(names, places, strict=True)]


def in_words(text: str) -> str:
    """Return the file name, without ending, of the answer to a typed question: words of it."""
    return "-".join(re.findall(r"\w+", text.lower()))[:40].strip("-") or "typed"


def _answer_json(assistant: Any, question: Question, options: dict[str, Any], play_it: bool) -> None:
    reply = assistant.ask(**_asked(question), **options)
    answers.refuse_unheard(question.name, reply.finish)
    if question.output is not None:
        reply.save(question.output)
    typer.echo(answers.json_line(question.name, reply, question.output, assistant.load_seconds))
    if play_it and reply.audio is not None:
        play(reply.audio, reply.sample_rate)


def _answer_plain(assistant: Any, question: Question, options: dict[str, Any], play_it: bool) -> None:
    """Print what was heard and the answer as it is made, then write its speech."""
    to_pipe = question.output == Path(STANDARD)  # then words go to standard error
    typer.echo(f"question: {question.name}", err=to_pipe)
    waves, finish, begun = [np.zeros(0, np.float32)], "", False
    try:
        for piece in assistant.stream(**_asked(question), **options):
            if piece.heard:
                typer.echo(f"heard: {piece.heard}", err=to_pipe)
            finish = piece.finish or finish
            answers.refuse_unheard(question.name, finish)
            if not begun and (piece.text or piece.finish):
                typer.echo("answer: ", nl=False, err=to_pipe)
                begun = True
            typer.echo(piece.text, nl=False, err=to_pipe)
            sys.stdout.flush()
            if piece.audio is not None:
                waves.append(piece.audio)
    finally:
        if begun:
            typer.echo(" [cut at the limit]" if finish == "length" else "", err=to_pipe)
    wave = np.concatenate(waves)
    if to_pipe:
        answers.write_standard(wave, assistant.sample_rate)
    elif question.output is not None:
        save_wav(question.output, wave, assistant.sample_rate)
        seconds = len(wave) / assistant.sample_rate
        typer.echo(f"speech: {question.output} ({seconds:.1f} s)")
    if play_it:
        play(wave, assistant.sample_rate)


def _asked(question: Question) -> dict[str, Any]:
    return {"typed": question.name} if question.typed else {"question": question.sound}


def _with_sound(question: Question, mic: float) -> Question:
    """Return a spoken question with its recording; a pipe is read and the microphone recorded here."""
    if question.typed:
        return question
    sound = record(mic) if mic and question.name == "microphone" else sound_of(question.name)
    return replace(question, name=shown(question.name), sound=sound)


def _check(question: Question) -> None:
    if question.output is not None and str(question.output) != STANDARD:
        check_output(question.output)
    if question.typed:
        check_text(question.name, "the typed question")
    elif not isinstance(question.sound, np.ndarray):
        load_audio(question.sound, max_seconds=QUESTION_SECONDS)
