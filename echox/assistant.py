"""Open this first: a recorded question in, a spoken answer out. The whole data flow is one class.

    read_question ─► hear ────────► think ──────► cut into segments ─► echo ─► unit words ─► units ─► vocoder ─► samples
    (audio.py)      (generate/     (LLM + LoRA,   (text/              (models/echo.py,      (units/   (models/
                     ears.py)       models/s2t.py) segmenter.py)       models/t2c.py)        ...)      vocoder.py)

The steps stand in generate/answer.py; how each part is trained stands in train/stage_<part>.py. No request leaves a trace on
the model: any number of `stream` iterators may be open at once.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from echox.audio import RECORDING_SECONDS, SAMPLE_RATE, Sound, read_question
from echox.errors import ConfigError
from echox.generate import answer
from echox.generate.checks import check_question, check_text, samples_of
from echox.generate.ears import Hearing, at_once
from echox.generate.engine import Ask
from echox.generate.fake import FakeAssistant
from echox.generate.listening import Listening
from echox.generate.parts import Parts, load_parts
from echox.generate.types import Piece, Question, Reply, as_list, collect
from echox.hub import resolve_model
from echox.models.decoding import Decoding, alone
from echox.models.device import pick_device, pick_dtype
from echox.models.io import read_config
from echox.models.llm import Place
from echox.text.prompt import Tool, Turn

TOGETHER = 8  # recordings that are written down at once


class SpeechAssistant:
    """A loaded model that answers spoken and typed questions aloud."""

    def __init__(
        self, parts: Parts, load_seconds: float = 0.0, decoding: Decoding = alone, hearing: Hearing = at_once
    ) -> None:
        self.parts, self.load_seconds, self.decoding, self.hearing = parts, load_seconds, decoding, hearing
        self.most_tokens: int | None = None  # of an answer, beside what the model says of itself
        self.sample_rate: int = parts.vocoder.config.sample_rate if parts.voice else SAMPLE_RATE

    @classmethod
    def load(
        cls,
        model: str | Path = "mini",
        device: str = "auto",
        dtype: str | None = None,
        llm: str | Path | None = None,
        encoder: str | Path | None = None,
        vocoder: str | Path | None = None,
        device_map: Any = None,
        quantize: str | None = None,
    ) -> "SpeechAssistant":
        """Load a shipped name, a local folder or a hub name, ours or released by the authors; ModelError says what is missing.

        `llm` is a local copy of the LLM that the model was trained with; by default it is fetched once and cached. `encoder` and
        `vocoder` are folders to take instead of the model's own. `device_map` and `quantize` (on a processor "int8" or
        "int4", on a GPU "int8" or "nf4") place the LLM.
        """
        started = time.perf_counter()
        folder, where = resolve_model(model), pick_device(device)
        if read_config(folder).get("model_type") in ("EchoX", "Soundwave"):  # the authors' layout
            from echox.released.open import DTYPES as THEIRS
            from echox.released.open import open_parts

            if llm is not None:
                raise ConfigError(f"{folder} carries its own text model: leave llm (--llm) out.")
            place = Place(where, pick_dtype(dtype, where, THEIRS[where.type]), device_map, quantize)
            parts = open_parts(folder, place, encoder, vocoder)
        else:
            place = Place(where, pick_dtype(dtype, where), device_map, quantize, packed=dtype is None)
            parts = load_parts(folder, llm, place, encoder, vocoder)
        return cls(parts, time.perf_counter() - started)

    @staticmethod
    def fake() -> FakeAssistant:
        """Return an assistant without weights: the same surface, deterministic words and tones, for tests."""
        return FakeAssistant()

    def stream(
        self,
        question: Sound | Question | None = None,
        typed: str | None = None,
        text_only: bool = False,
        max_seconds: float | None = None,
        sample_rate: int | None = None,
        seed: int = 0,
        history: Sequence[Turn] = (),
        instructions: str = "",
    ) -> Iterator[Piece]:
        """Yield text and audio of one answer as they are made; InputError when the question cannot be used.

        Give `typed` text or a recording: a path, a file's bytes, an open file, or mono samples (float in [-1, 1], or int16) at
        `sample_rate` (16 kHz if none is given). `history` holds earlier turns, `instructions` stand in place of the model's system
        text, `seed` settles what a model draws that samples.
        """
        limits = self._limits(max_seconds, seed, text_only)
        asked = yield from self._understood(Question.of(question, typed, sample_rate), history, instructions)
        yield Piece(heard=asked.heard)
        yield from answer.answer_stream(self.parts, asked, limits, not text_only, self.decoding)

    def ask(self, question: Sound | Question | None = None, typed: str | None = None, **options: Any) -> Reply:
        """Return the whole answer to one question; options as in `stream`."""
        pieces = self.stream(question, typed, **options)
        reply = collect(Question.of(question, typed).name, pieces, self.sample_rate, not options.get("text_only"))
        return replace(reply, text=reply.text.strip())

    def speak(self, text: str, max_seconds: float | None = None) -> Iterator[Piece]:
        """Yield `text` spoken by T2C and the vocoder alone, as it is made; InputError when there is nothing to say."""
        check_text(text, "the text to say")
        yield from answer.say_stream(self.parts, text, self._limits(max_seconds, text_only=False), self.decoding)

    def say(self, text: str, max_seconds: float | None = None) -> Reply:
        """Return `text` spoken, whole; as `speak`."""
        return collect(text, self.speak(text, max_seconds), self.sample_rate, with_audio=True)

    @overload
    def transcribe(self, sound: Sound, sample_rate: int | None = None) -> str: ...
    @overload
    def transcribe(self, sound: Sequence[Sound], sample_rate: int | None = None) -> list[str]: ...
    def transcribe(self, sound: Any, sample_rate: int | None = None) -> Any:
        """Return the words heard in a recording, or in each of a list; none where nothing was understood. Ten minutes at most."""
        sounds, many = as_list(sound)
        waves, found = [read_question(one, sample_rate, RECORDING_SECONDS) for one in sounds], list[str]()
        for first in range(0, len(waves), TOGETHER):
            found += [one.text.strip() for one in self.parts.ear.hear(waves[first : first + TOGETHER])]
        return found if many else found[0]

    def ask_many(
        self,
        questions: Sequence[Sound | Question],
        text_only: bool = False,
        max_seconds: float | None = None,
        sample_rate: int | None = None,
        seed: int = 0,
    ) -> list[Reply]:
        """Return the answers to many questions at once: recordings as in `stream`, `Question(typed=...)`; times are the batch's."""
        started, asked = time.perf_counter(), [Question.of(question, None, sample_rate) for question in questions]
        limits = self._limits(max_seconds, seed, text_only)
        replies = self._answers([[_user_turn(question)] for question in asked], limits, text_only, started)
        return [replace(reply, question=question.name) for question, reply in zip(asked, replies, strict=True)]

    def converse(
        self,
        conversations: Sequence[Sequence[Turn]],
        text_only: bool = False,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> list[Reply]:
        """Return the answers to many conversations at once, each ending with the user; times are the batch's."""
        started, limits = time.perf_counter(), self._limits(max_seconds, seed, text_only)
        read = [[_read_turn(turn) for turn in turns] for turns in conversations]
        return self._answers(read, limits, text_only, started)

    def _answers(self, read: list[list[Turn]], limits: answer.Limits, text_only: bool, started: float) -> list[Reply]:
        """Return the answers to conversations whose sounds are read."""
        if self.parts.dialect.tools:
            raise ConfigError("tools are called in one conversation at a time: use stream or ask.")
        if not read:
            return []
        asked = answer.understand(self.parts, read)
        answers = answer.answer_batch(self.parts, asked, limits, speak=not text_only)
        seconds = time.perf_counter() - started
        first = None if text_only else seconds
        return [
            Reply(
                turns[-1].text, a.text.strip(), a.audio, self.sample_rate, a.units, one.heard, seconds, first, a.finish
            )
            for turns, one, a in zip(read, asked, answers, strict=True)
        ]

    def listen(self, sample_rate: int | None = None, **options: Any) -> Listening:
        """Return a question to come: it is heard while it is asked, its answer is that of `stream` to the whole of it.

        Options are `text_only`, `history` as (role, text), and `instructions`.
        """
        from echox.generate.batched import Batched

        return Listening(Batched(self, keep=2), Ask(sample_rate=sample_rate, **options))

    def overhear(
        self, question: Sound, sample_rate: int | None = None, history: Sequence[Turn] = (), instructions: str = ""
    ) -> Iterator[Piece]:
        """Hear a question as far as it has come and begin its answer in silence, for an engine that keeps both; yield WAIT."""
        asked = yield from self._understood(Question.of(question, None, sample_rate), history, instructions)
        yield from answer.begin_stream(self.parts, asked, self.decoding)

    def with_settings(self, **changes: Any) -> "SpeechAssistant":
        """Return an assistant on the same weights whose parts differ in `changes` (generate/parts.py: `Parts.changed`)."""
        return self._but(parts=self.parts.changed(**changes))

    def at_most(self, tokens: int) -> "SpeechAssistant":
        """Return an assistant on the same weights whose answers end after so many tokens, all said aloud; ConfigError for none."""
        if tokens < 1:
            raise ConfigError(f"an answer of {tokens} tokens is none: give 1 or more.")
        return self._but(most_tokens=tokens)

    def decoding_by(self, decoding: Decoding, hearing: Hearing = at_once) -> "SpeechAssistant":
        """Return an assistant on the same parts whose streams decode and hear in another way (generate/batched.py)."""
        return self._but(decoding=decoding, hearing=hearing)

    def calling(self, tools: Sequence[Tool]) -> "SpeechAssistant":
        """Return an assistant on the same weights that may call `tools`; ConfigError when its model does not know how.

        A tool is {"type": "function", "function": {"name", "description", "parameters"}}, the last of them a JSON schema. What it
        returned is told as `history` that ends with Turn("call", JSON of name and arguments) and Turn("tool", text), without a
        question.
        """
        return self._but(parts=replace(self.parts, dialect=self.parts.dialect.calling(tools)))

    def _but(self, **changes: Any) -> "SpeechAssistant":
        """Return a copy that differs in these attributes."""
        other = copy(self)
        vars(other).update(changes)
        return other

    def _understood(
        self, question: Question, history: Sequence[Turn], instructions: str
    ) -> Generator[Piece, None, answer.Asked]:
        """Return the conversation as the LLM reads it; yield WAIT while its sounds wait to be heard."""
        turns = [*map(_read_turn, history)]
        if question.sound is not None or question.typed is not None or not turns or turns[-1].role != "tool":
            turns.append(_user_turn(question))
        return (yield from answer.understanding(self.parts, turns, instructions, self.hearing))

    def _limits(self, max_seconds: float | None, seed: int = 0, text_only: bool = True) -> answer.Limits:
        if not text_only:
            self.parts.speaking()
        config = self.parts.s2t.config
        samples = samples_of(max_seconds, self.sample_rate)
        enough = None if self.parts.dialect.tools else config.enough_tokens  # a call may hold a full stop
        most = min(config.max_new_tokens, self.most_tokens or config.max_new_tokens)
        return answer.Limits(most, samples, seed, enough)


def _user_turn(question: Question) -> Turn:
    """Return a question as a turn, its recording read; InputError when it cannot be used."""
    check_question(question)
    if question.sound is None:
        return Turn("user", question.typed or "")
    return Turn("user", sounds=(read_question(question.sound, question.sample_rate),))


def _read_turn(turn: Turn) -> Turn:
    """Return a turn whose sounds are waves at 16 kHz."""
    return replace(turn, sounds=tuple(read_question(sound) for sound in turn.sounds))
