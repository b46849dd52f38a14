"""`echox say`: a text of any length, from an argument, a file or a pipe, to speech that is written while it is made.

    text --read_line--> words --sentences--> assistant.say --> samples --> WAV file, or standard output

Parses options and writes; every voice is the assistant's.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from tqdm import tqdm

from echox.audio import check_output, to_pcm16, wav_header, wav_writer
from echox.commands import answers
from echox.commands.options import Device, Dtype, Json, Llm, MaxSeconds, Model, check_standard
from echox.commands.recordings import STANDARD, read_pipe
from echox.commands.sound import play
from echox.errors import InputError
from echox.files import read_text

if TYPE_CHECKING:
    from echox.generate.types import Reply

TEXT_BYTES = 16 << 20  # a library of novels; what is longer was not meant
Output = Annotated[Path, typer.Option("--output", "-o", help="WAV file, - for standard output; default speech.wav.")]
Write = Callable[[np.ndarray], None]


def say(
    text: Annotated[str | None, typer.Argument(help="What to say, or - to read it from a pipe.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Say what this UTF-8 text file holds.")] = None,
    output: Output = Path("speech.wav"),
    play_it: Annotated[bool, typer.Option("--play", help="Play it, too (needs the extra `audio`).")] = False,
    as_json: Json = False,
    max_seconds: MaxSeconds = None,
    model: Model = "mini",
    llm: Llm = None,
    device: Device = "auto",
    dtype: Dtype = None,
) -> None:
    """Speak a text of any length with the codec decoder and the vocoder alone: numbers, dates, units and money as words."""
    if (text is None) == (file is None):
        raise typer.BadParameter("give a text, - or --file.", param_hint="TEXT")
    if file == Path(STANDARD):
        text, file = STANDARD, None
    check_standard(as_json, output)
    name = text if text not in (None, STANDARD) else str(file or "standard input")
    with answers.refused(answers.json_error if as_json else answers.plain_error, name):
        lines = _lines(text, file)
        if output != Path(STANDARD):
            check_output(output)
        if play_it:
            play(None, 0)
        assistant = answers.load_assistant(model, llm, device, dtype)
        reply, seconds, left_out = _speak(assistant, lines, output, max_seconds, play_it)
    if left_out and not as_json:
        typer.echo(f"echox: left out, since this voice cannot say it: {left_out}", err=True)
    cut = " [cut at the limit]" if reply.finish == "length" else ""
    if as_json:
        more = {"audio_seconds": round(seconds, 4), "left_out": left_out}
        typer.echo(answers.json_line(name, reply, output, assistant.load_seconds, **more))
    elif output != Path(STANDARD):
        typer.echo(f"speech: {output} ({seconds:.1f} s){cut}")


def _lines(text: str | None, file: Path | None) -> list[str]:
    """Return the lines to say; InputError when there is nothing in them that can be said."""
    from echox.text.speakable import said_lines

    if file is not None:
        text = read_text(file, TEXT_BYTES)
    elif text == STANDARD:
        try:
            text = read_pipe(STANDARD, TEXT_BYTES, "text").decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError("standard input is not UTF-8 text: send it as UTF-8.") from error
    if not (text or "").strip():
        raise InputError("the text to say is empty: write a few words.")
    return said_lines(text or "")


def _speak(
    assistant: Any, lines: list[str], output: Path, limit: float | None, play_it: bool
) -> tuple["Reply", float, str]:
    """Write the speech of `lines` as it is made; return the reply without samples, its seconds, and the characters left out."""
    from echox.generate.types import Reply

    rate, samples, said = assistant.sample_rate, 0, []
    whole = Reply("", "", None, rate)
    began = time.perf_counter()
    left_out: dict[str, None] = {}
    with _standard_writer(rate) if output == Path(STANDARD) else wav_writer(output, rate) as write:
        for piece in _pieces(lines, left_out):
            left = None if limit is None else limit - samples / rate
            if left is not None and left * rate < 1:
                whole.finish = "length"
                break
            reply = assistant.say(piece, max_seconds=left)
            write(reply.audio)
            if play_it:
                play(reply.audio, rate)
            said.append(piece)
            samples += len(reply.audio)
            whole.units += reply.units
            whole.finish = reply.finish
            if whole.first_audio_seconds is None and samples:
                whole.first_audio_seconds = time.perf_counter() - began
            if reply.finish == "length":
                break
    whole.text, whole.wall_seconds = " ".join(said), time.perf_counter() - began
    return whole, samples / rate, "".join(left_out)


def _pieces(lines: list[str], left_out: dict[str, None]) -> Iterator[str]:
    """Yield the lines as words, a few sentences at a time; what cannot be said goes into `left_out`."""
    from echox.text.speakable import read_line, sentences

    for line in tqdm(lines, "saying", disable=None, leave=False):
        read = read_line(line)
        left_out.update(dict.fromkeys(read.left_out))
        yield from sentences(read.text)


@contextmanager
def _standard_writer(rate: int) -> Iterator[Write]:
    """Yield a function that appends float [samples] to a WAV on standard output; OutputError when that cannot be written.

    A pipe's header gives an unknown length, as is usual; in a file it is corrected at the end.
    """
    written = 0

    def write(samples: np.ndarray) -> None:
        nonlocal written
        pcm = to_pcm16(samples)
        written += len(pcm)
        out.write(pcm)
        out.flush()

    with answers.standard_output() as out:
        start = out.tell() if out.seekable() else None
        out.write(wav_header(rate))
        yield write
        if start is not None:
            out.seek(start)
            out.write(wav_header(rate, written))
            out.seek(0, 2)
