"""`echox transcribe`: what a model hears in recordings, as text or JSON lines.

Parses options and prints; hearing is the model's. Nothing heavy is imported before a verb runs.
"""

import json
from functools import partial
from typing import Annotated, Any

import typer

from echox.audio import RECORDING_SECONDS, load_audio
from echox.commands import answers
from echox.commands.options import SOUNDS, Device, Dtype, Json, Llm, Model
from echox.commands.recordings import expanded, shown, sound_of
from echox.errors import ConfigError

Beam = Annotated[int, typer.Option("--beam", min=1, max=100, help="Texts in view, for translators, which hear by CTC.")]


def transcribe(
    recordings: Annotated[list[str], typer.Argument(help=SOUNDS)],
    model: Model = "mini",
    as_json: Json = False,
    beam: Beam = 1,
    llm: Llm = None,
    device: Device = "auto",
    dtype: Dtype = None,
) -> None:
    """Write down what is said; exit status 1 when a recording cannot be heard, also where nothing was understood in it."""
    show_error = answers.json_fault("recording", "text") if as_json else answers.plain_error
    with answers.refused(show_error):
        names = expanded(recordings)
        sounds = [sound_of(name) for name in names]
    names = [shown(name) for name in names]
    answers.answer_each(
        names,
        [answers.attempt(partial(load_audio, sound, max_seconds=RECORDING_SECONDS)) for sound in sounds],
        lambda: load_hearing(model, device, dtype, llm, beam),
        lambda hear, number: _answer(hear, names[number], sounds[number], as_json),
        show_error,
    )


def load_hearing(model: str, device: str, dtype: str | None, llm: str | None, beam: int) -> Any:
    """Return what writes down a recording: a translator's or an assistant's `transcribe`; ConfigError for what it has not."""
    with answers.loading(model):
        from echox.assistant import SpeechAssistant
        from echox.hub import resolve_model
        from echox.translator import SpeechTranslator, is_translator

        if is_translator(resolve_model(model)):
            if llm is not None:
                raise ConfigError(f"{model} translates, without a chat model: leave --llm out.")
            translator = SpeechTranslator.load(model, device=device, dtype=dtype)
            return lambda sound: translator.transcribe(sound, beam=beam)
        if beam > 1:
            raise ConfigError(f"{model} answers questions and hears with one text in view: leave --beam out.")
        return SpeechAssistant.load(model, device=device, dtype=dtype, llm=llm).transcribe


def _answer(hear: Any, name: str, sound: str | bytes, as_json: bool) -> None:
    text = hear(sound)
    answers.refuse_unheard(name, "" if text else "unheard")
    typer.echo(json.dumps({"recording": name, "text": text, "error": None}, ensure_ascii=False) if as_json else text)
