"""`echox ask`: questions to answers, files and JSON lines.

Parses options, names files and prints; every answer is the assistant's. Nothing heavy is imported before a verb runs.
"""

import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os.path import realpath  # unlike those of Path, no loop of links or long name ends them
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import numpy as np
import typer

from echox.audio import QUESTION_SECONDS, check_output, load_audio, save_wav, to_pcm16, wav_header
from echox.commands.recordings import STANDARD, expanded, is_pipe, shown, sound_of
from echox.commands.sound import play, record
from echox.errors import EchoxError, InputError, OutputError
from echox.generate.checks import check_text

if TYPE_CHECKING:
    from echox.generate.types import Reply

Model = Annotated[str, typer.Option("--model", help="mini, a model folder, or a hub name owner/model.")]
Llm = Annotated[
    Path | None,
    typer.Option(
        "--llm",
        help="Copy of the text model (folder, GGUF, wheel), or another chat model: a folder, a GGUF file, owner/name on the hub.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, mps or auto.")]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="float32, bfloat16 or float16; by default what is fast here.")
]
Encoder = Annotated[Path | None, typer.Option("--encoder", help="Whisper folder instead of the model's own.")]
Vocoder = Annotated[Path | None, typer.Option("--vocoder", help="Vocoder folder instead of the model's own.")]
Quantize = Annotated[
    str | None,
    typer.Option("--quantize", help="Hold the text model in int8 or int4; on a GPU in int8 or nf4 (extra `released`)."),
]
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
Play = Annotated[bool, typer.Option("--play", help="Play the answer, too (needs the extra `audio`).")]
SOUNDS = "Recordings (WAV, FLAC, OGG, MP3, M4A, WebM), folders of them, or - for a pipe."
Recordings = Annotated[list[str] | None, typer.Argument(help=SOUNDS)]
Show = Callable[[str, EchoxError], None]


@dataclass(frozen=True)
class Question:
    """One thing to ask: what the user called it, whether it is typed, and where the speech goes (None: nowhere).

    `sound` holds what came through a pipe or the microphone instead of a file.
    """

    name: str
    typed: bool
    output: Path | None
    sound: bytes | np.ndarray | None = None


def ask(
    recordings: Recordings = None,
    typed: Annotated[list[str] | None, typer.Option("--typed", help="A question in writing; may be repeated.")] = None,
    output: Output = None,
    out_dir: Annotated[Path | None, typer.Option("--out-dir", help="Folder for several answers.")] = None,
    mic: Annotated[
        float, typer.Option("--mic", min=0, help="Record so many seconds from the microphone and ask that.")
    ] = 0,
    play_it: Play = False,
    text_only: Annotated[bool, typer.Option("--text-only", help="Write no speech.")] = False,
    as_json: Json = False,
    max_seconds: MaxSeconds = None,
    seed: Seed = 0,
    model: Model = "mini",
    llm: Llm = None,
    device: Device = "auto",
    dtype: Dtype = None,
    encoder: Encoder = None,
    vocoder: Vocoder = None,
    quantize: Quantize = None,
) -> None:
    """Answer questions aloud: recorded ones first, then typed ones, all by one loaded model.

    Exit status 1 when a question got no answer, also where nothing was understood in a recording.
    """
    check_seconds(max_seconds)
    if text_only and max_seconds is not None:
        raise typer.BadParameter("--text-only makes no speech to limit: leave out --max-seconds.")
    check_standard(as_json, output)
    answer, show_error = (_answer_json, json_error) if as_json else (_answer_plain, plain_error)
    with refused(show_error):
        sounds = expanded(recordings or []) + (["microphone"] if mic else [])
    questions = plan(sounds, typed or [], output, out_dir, text_only)
    options = {"text_only": text_only, "max_seconds": max_seconds, "seed": seed}
    place = None if text_only or out_dir is None else attempt(make_folder, out_dir)
    try:
        questions = [_with_sound(question, mic) for question in questions]
        if play_it:
            play(None, 0)
    except EchoxError as error:
        place = error
    problems = [place or attempt(_check, question) for question in questions]  # refused before the model is loaded
    places = {"encoder": encoder, "vocoder": vocoder, "quantize": quantize}
    answer_each(
        [question.name for question in questions],
        problems,
        lambda: load_assistant(model, llm, device, dtype, **places),
        lambda assistant, number: answer(assistant, questions[number], options, play_it),
        show_error,
    )


def answer_each(
    names: Sequence[str],
    problems: Sequence[EchoxError | None],
    load: Callable[[], Any],
    answer: Callable[[Any, int], None],
    show_error: Show,
) -> None:
    """Answer, by their numbers, all that have no problem yet, with what `load` returns; it is not called where there are none.

    What cannot be answered is shown by its name, and the exit status is then 1.
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


def check_standard(as_json: bool, output: Path | None) -> None:
    """Raise a usage error where both JSON and speech would go to standard output."""
    if as_json and output == Path(STANDARD):
        raise typer.BadParameter("--json and -o - both want standard output: give -o a file.")


def plan(
    recordings: list[str], typed: list[str], output: Path | None, out_dir: Path | None, text_only: bool
) -> list[Question]:
    """Return the questions in order with the file each answer goes to; a usage error when that is not clear."""
    names = [(name, False) for name in recordings] + [(text, True) for text in typed]
    if not names:
        raise typer.BadParameter("give a recording, or a question with --typed.", param_hint="RECORDINGS")
    if text_only and (output or out_dir):
        raise typer.BadParameter("--text-only makes no speech: leave out -o and --out-dir.")
    if output and out_dir:
        raise typer.BadParameter("give -o for one answer or --out-dir for several, not both.")
    if len(names) > 1 and output:
        raise typer.BadParameter(f"-o takes one answer and there are {len(names)} questions: give --out-dir.")
    if len(names) > 1 and not out_dir and not text_only:
        raise typer.BadParameter(f"there are {len(names)} questions: give --out-dir, or --text-only.")
    if text_only:
        return [Question(name, is_typed, None) for name, is_typed in names]
    stems = [stem_of(name, is_typed) for name, is_typed in names]
    places = places_of(stems, recordings, output, out_dir, ("answer", "question"))
    return [Question(name, is_typed, place) for (name, is_typed), place in zip(names, places, strict=True)]


def places_of(
    stems: Sequence[str], recordings: Sequence[str], output: Path | None, out_dir: Path | None, words: tuple[str, str]
) -> list[Path]:
    """Return where the speech made of each thing goes, never over a recording; `words` are what is made, and of what."""
    made, source = words
    if out_dir is None:
        place = output or Path(f"{made}.wav")
        if str(place) != STANDARD and realpath(place) in {realpath(name) for name in recordings}:
            raise typer.BadParameter(f"{place} is the {source} itself: write the {made} elsewhere with -o.")
        return [place]
    taken = {realpath(name).lower() for name in recordings}
    return [free_name(out_dir, stem, taken) for stem in stems]


def stem_of(name: str, typed: bool) -> str:
    """Return the file name, without ending, of the answer to a question: the recording's own, or words of the text."""
    if not typed:
        return "answer" if is_pipe(name) else Path(name).stem or "answer"
    return "-".join(re.findall(r"\w+", name.lower()))[:40].strip("-") or "typed"


def free_name(folder: Path, stem: str, taken: set[str]) -> Path:
    """Return `folder/stem.wav`, or stem-2, stem-3, ... and remember it; case does not tell files apart everywhere."""
    number, place = 1, folder / f"{stem}.wav"
    while realpath(place).lower() in taken:
        number += 1
        place = folder / f"{stem}-{number}.wav"
    taken.add(realpath(place).lower())
    return place


def check_seconds(max_seconds: float | None) -> None:
    """Raise a usage error unless a limit, where given, is a positive number of seconds."""
    if max_seconds is not None and not 0 < max_seconds < float("inf"):
        raise typer.BadParameter(f"{max_seconds:g} is not a positive number of seconds.", param_hint="--max-seconds")


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Say on a terminal that loading takes a while, and keep transformers quiet meanwhile."""
    if sys.stderr.isatty():
        typer.echo(f"loading {model} ...", err=True)
    from echox.hub_llm import quiet_transformers

    with quiet_transformers():
        yield


def load_assistant(model: str, llm: Path | None, device: str, dtype: str | None, **places: Any) -> Any:
    """Return the loaded assistant, `places` as in `SpeechAssistant.load`."""
    with loading(model):
        from echox import SpeechAssistant

        return SpeechAssistant.load(model, device=device, dtype=dtype, llm=llm, **places)


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


def _answer_json(assistant: Any, question: Question, options: dict[str, Any], play_it: bool) -> None:
    reply = assistant.ask(**_asked(question), **options)
    refuse_unheard(question.name, reply.finish)
    if question.output is not None:
        reply.save(question.output)
    typer.echo(json_line(question.name, reply, question.output, assistant.load_seconds))
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
            refuse_unheard(question.name, finish)
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
        write_standard(wave, assistant.sample_rate)
    elif question.output is not None:
        save_wav(question.output, wave, assistant.sample_rate)
        seconds = len(wave) / assistant.sample_rate
        typer.echo(f"speech: {question.output} ({seconds:.1f} s)")
    if play_it:
        play(wave, assistant.sample_rate)


def refuse_unheard(name: str, finish: str) -> None:
    """Raise InputError where nothing was understood in the recording `name`."""
    if finish == "unheard":
        raise InputError(f"nothing was understood in {name}: speak closer to the microphone, in the model's language.")


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


def _asked(question: Question) -> dict[str, Any]:
    if question.typed:
        return {"typed": question.name}
    return {"question": question.name if question.sound is None else question.sound}


def _with_sound(question: Question, mic: float) -> Question:
    """Return the question with what a pipe or the microphone gives, where it is one of these."""
    if question.typed:
        return question
    if question.name == "microphone" and mic:
        return replace(question, sound=record(mic))
    sound = sound_of(question.name)
    return replace(question, name=shown(question.name), sound=sound) if isinstance(sound, bytes) else question


def _check(question: Question) -> None:
    if question.output is not None and str(question.output) != STANDARD:
        check_output(question.output)
    if question.typed:
        check_text(question.name, "the typed question")
    elif not isinstance(question.sound, np.ndarray):
        load_audio(question.name if question.sound is None else question.sound, max_seconds=QUESTION_SECONDS)


def attempt(work: Callable[..., Any], *arguments: Any) -> EchoxError | None:
    """Run `work` and return the error that a user can put right, so that other questions still run."""
    try:
        work(*arguments)
    except EchoxError as error:
        return error
    return None


def make_folder(folder: Path) -> None:
    """Make a folder for answers; OutputError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror}): choose another.") from error


def plain_error(name: str, error: EchoxError) -> None:
    """Print a sentence to standard error."""
    typer.echo(f"echox: {error}", err=True)


def json_error(name: str, error: EchoxError) -> None:
    """Print a question's error as its line of JSON."""
    names = "heard text audio audio_seconds wall_seconds first_audio_seconds units finish load_seconds"
    typer.echo(json.dumps({"question": name, **dict.fromkeys(names.split()), "error": str(error)}, ensure_ascii=False))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(float(seconds), 4)
