"""What the gap benchmark reads from a model: the views there are, and who speaks the words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import load_audio
from echox.errors import InputError
from echox.eval.model_under_test import at_16k
from echox.eval.probes import States, can_turn_off, states_of
from echox.eval.questions import read_questions


def word_states(states: States) -> np.ndarray:
    """Return float64 [layers, H]: the mean over tokens of each layer; layers of unequal width give an object error."""
    return np.stack([as_numpy(layer).mean(axis=0) for layer in states])


@dataclass(frozen=True)
class Source:
    """Where a view comes from: a function from a reader and a word to [layers, H], and whether the adapters are on."""

    read: Callable[[Any, str], np.ndarray]
    adapters: bool = True


def available(model: Any, wave_of: Callable[[str], np.ndarray] | None) -> dict[str, Source]:
    """Return the views that a model has, by printed name.

    The text LLM is read with its adapters off, and once more with them on where there are any. `wave_of` gives a word's
    speech at 16 kHz; without it the S2T LLM is left out.
    """
    reader, views = states_of(model), {}
    if hasattr(reader, "typed_states"):
        off = can_turn_off(model)
        views["text LLM"] = Source(lambda reader, word: word_states(reader.typed_states(word)), adapters=not off)
        if off:
            views["text LLM, adapters on"] = replace(views["text LLM"], adapters=True)
    if hasattr(reader, "spoken_states") and wave_of is not None:
        views["S2T LLM"] = Source(lambda reader, word: word_states(reader.spoken_states(wave_of(word))))
    if hasattr(reader, "echo_states"):
        views["echo decoder"] = Source(lambda reader, word: word_states(reader.echo_states(word)))
    if hasattr(reader, "unit_states"):
        views["units"] = Source(lambda reader, word: word_states(reader.unit_states(word)))
    return views


def as_numpy(layer: Any) -> np.ndarray:
    """Return one layer's states as float64 [tokens, H], from numpy or torch."""
    if hasattr(layer, "detach"):
        layer = layer.detach().float().cpu().numpy()
    return np.atleast_2d(np.asarray(layer, dtype=np.float64))


def spoken_pairs(
    questions: Path | None, audio_dir: Path | None, limit: int | None
) -> list[tuple[str, np.ndarray, str | None]]:
    """Return (text, wave at 16 kHz, answer) of a questions file for typed against spoken; nothing without a file."""
    if questions is None:
        return []
    items = read_questions(questions, audio_dir, need_audio=True)[:limit]
    return [(item.question, load_audio(item.audio), item.answers[0]) for item in items if item.audio is not None]


def word_speaker(folder: Path | None, sets: Sequence[Any]) -> Callable[[Any], Callable[[str], np.ndarray] | None]:
    """Return a function from a model to what speaks its words: `<word>.wav` of a folder, or the model's own voice.

    Raises InputError when the folder lacks a word.
    """
    words = {word for item in sets for word in item.words()}
    if folder is not None:
        missing = sorted(word for word in words if not (folder / f"{word}.wav").is_file())
        if missing:
            raise InputError(
                f"{folder} lacks {', '.join(missing[:8])} ({len(missing)} of {len(words)} words) as .wav files."
            )
        return lambda model: lambda word: load_audio(folder / f"{word}.wav")

    def own_voice(model: Any) -> Callable[[str], np.ndarray] | None:
        if not hasattr(model, "say"):
            return None

        def speak(word: str) -> np.ndarray:
            reply = model.say(word)
            if reply.audio is None:
                raise InputError(f"the model has no voice to say {word!r}: give --wavs.")
            return at_16k(reply.audio, reply.sample_rate)

        return speak

    return own_voice


def voice_name(folder: Path | None) -> str:
    """Return whose voice spoke the words, for the table's note."""
    return "the model's own voice" if folder is None else f"the recordings in {folder.name}"
