"""Open this first: a recorded question in, a spoken answer out. The whole data flow is one class.

    load_audio ─► hear ──────► think ────────► cut into segments ─► echo ─► unit words ─► units ─► vocoder ─► samples
    (audio.py)   (encoder +    (LLM + LoRA,    (generate/           (models/echo.py,      (units/   (models/
                  adapter)      models/s2t.py)  segmenter.py)        models/t2c.py)        ...)      vocoder.py)

The steps stand in generate/engine.py; how each part is trained stands in train/stage_<part>.py. No request leaves a trace on
the model: any number of `stream` iterators may be open at once.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from echox.audio import Sound, read_question
from echox.errors import ConfigError
from echox.generate import engine
from echox.generate.checks import check_question, check_text, samples_of
from echox.generate.ears import Heard
from echox.generate.fake import FakeAssistant
from echox.generate.parts import Parts, load_parts
from echox.generate.types import Assistant, Piece, Question, Reply, collect
from echox.hub import resolve_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class SpeechAssistant:
    """A loaded model that answers spoken and typed questions aloud."""

    def __init__(self, parts: Parts, load_seconds: float = 0.0) -> None:
        self.parts, self.load_seconds = parts, load_seconds
        self.sample_rate: int = parts.vocoder.config.sample_rate

    @classmethod
    def load(
        cls, model: str = "mini", device: str = "auto", dtype: str | None = None, llm: str | Path | None = None
    ) -> Assistant:
        """Load a shipped name, a local folder or a hub name; ModelError says what is missing.

        `llm` is a local copy of the LLM that the model was trained with; by default it is fetched once and cached.
        """
        started = time.perf_counter()
        folder, where = resolve_model(model), pick_device(device)
        if is_released(folder):
            from echox.released.assistant import ReleasedAssistant

            return ReleasedAssistant.load(folder, device=device, dtype=dtype)
        parts = load_parts(folder, llm, where, pick_dtype(dtype, where))
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
    ) -> Iterator[Piece]:
        """Yield text and audio of one answer as they are made; InputError when the question cannot be used.

        Give `typed` text or a recording: a path, a file's bytes, an open file, or mono samples (float in [-1, 1], or int16) at
        `sample_rate` (16 kHz if none is given). Decoding is greedy: `seed` changes nothing until sampling is asked for.
        """
        limits = self._limits(max_seconds)
        found = self._hear([Question.of(question, typed, sample_rate)])[0]
        yield Piece(heard=found.text)
        yield from engine.answer_stream(self.parts, found.positions_NH, limits, speak=not text_only)

    def ask(self, question: Sound | Question | None = None, typed: str | None = None, **options: Any) -> Reply:
        """Return the whole answer to one question; options as in `stream`."""
        pieces = self.stream(question, typed, **options)
        reply = collect(Question.of(question, typed).name, pieces, self.sample_rate, not options.get("text_only"))
        return replace(reply, text=reply.text.strip())

    def say(self, text: str, max_seconds: float | None = None) -> Reply:
        """Return `text` spoken by T2C and the vocoder alone; InputError when there is nothing to say."""
        check_text(text, "the text to say")
        pieces = engine.say_stream(self.parts, text, self._limits(max_seconds))
        return collect(text, pieces, self.sample_rate, with_audio=True)

    def ask_many(
        self,
        questions: Sequence[Sound | Question],
        text_only: bool = False,
        max_seconds: float | None = None,
        sample_rate: int | None = None,
    ) -> list[Reply]:
        """Return the answers to many questions at once: recordings as in `stream`, `Question(typed=...)`; times are the batch's."""
        started = time.perf_counter()
        asked = [Question.of(question, None, sample_rate) for question in questions]
        if not asked:
            return []
        found, limits = self._hear(asked), self._limits(max_seconds)
        answers = engine.answer_batch(self.parts, [one.positions_NH for one in found], limits, speak=not text_only)
        seconds = time.perf_counter() - started
        first = None if text_only else seconds
        return [
            Reply(question.name, a.text, a.audio, self.sample_rate, a.units, one.text, seconds, first, a.finish)
            for question, one, a in zip(asked, found, answers, strict=True)
        ]

    def _hear(self, questions: Sequence[Question]) -> list[Heard]:
        """Return what the LLM reads of each question; the spoken ones are heard together."""
        for question in questions:
            check_question(question)
        waves = [read_question(q.sound, q.sample_rate) for q in questions if q.sound is not None]
        heard = iter(self.parts.ear.hear(waves) if waves else ())
        return [next(heard) if q.typed is None else Heard(engine.read(self.parts, q.typed), "") for q in questions]

    def _limits(self, max_seconds: float | None) -> engine.Limits:
        return engine.Limits(self.parts.s2t.config.max_new_tokens, samples_of(max_seconds, self.sample_rate))


def is_released(folder: Path) -> bool:
    """Say whether a model folder holds the authors' checkpoint layout rather than ours."""
    from echox.models.io import read_config

    return read_config(folder).get("model_type") in ("EchoX", "Soundwave", "echox_released")


def pick_device(name: str) -> torch.device:
    """Return the device called cpu, cuda, mps or auto; ConfigError when it is not there."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    kind = name.partition(":")[0]
    if kind not in available:
        raise ConfigError(f"unknown device {name!r}: choose cpu, cuda, mps or auto.")
    if not available[kind]:
        raise ConfigError(f"device {name} is not available here: choose cpu or auto.")
    return torch.device(name)


def pick_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """Return the LLM's dtype: the named one, or bfloat16 where the hardware multiplies it, else float32."""
    if name is not None:
        if name not in DTYPES:
            raise ConfigError(f"unknown dtype {name!r}: choose {', '.join(DTYPES)}.")
        return DTYPES[name]
    if device.type == "cpu":
        fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if device.type == "cuda" else torch.float32
