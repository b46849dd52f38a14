"""Open this first: a recorded question in, a spoken answer out. The whole data flow is one class.

    load_audio ─► hear ──────► think ────────► cut into segments ─► echo ─► unit words ─► units ─► vocoder ─► samples
    (audio.py)   (encoder +    (LLM + LoRA,    (generate/           (models/echo.py,      (units/   (models/
                  adapter)      models/s2t.py)  segmenter.py)        models/t2c.py)        ...)      vocoder.py)

The steps stand in generate/engine.py; how each part is trained stands in train/stage_<part>.py. No request leaves a trace on
the model: any number of `stream` iterators may be open at once.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from echox.audio import Sound, read_question
from echox.errors import ConfigError, InputError
from echox.generate import engine
from echox.generate.checks import check_one, check_text, samples_of
from echox.generate.fake import FakeAssistant
from echox.generate.parts import Parts, load_parts
from echox.generate.types import Assistant, Piece, Reply, collect, question_name
from echox.hub import resolve_model
from echox.models.llm import load_llm, token_pieces
from echox.text.prompt import encode

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
        question: Sound | None = None,
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
        check_one(question, typed)
        if typed is not None or question is None:
            positions_NH, heard = engine.read(self.parts, typed or ""), ""
        else:
            found = self.parts.ear.hear([read_question(question, sample_rate)])[0]
            positions_NH, heard = found.positions_NH, found.text
        yield Piece(heard=heard)
        yield from engine.answer_stream(self.parts, positions_NH, limits, speak=not text_only)

    def ask(self, question: Sound | None = None, typed: str | None = None, **options: Any) -> Reply:
        """Return the whole answer to one question; options as in `stream`."""
        pieces = self.stream(question, typed, **options)
        reply = collect(question_name(question, typed), pieces, self.sample_rate, not options.get("text_only"))
        return replace(reply, text=reply.text.strip())

    def say(self, text: str, max_seconds: float | None = None) -> Reply:
        """Return `text` spoken by T2C and the vocoder alone; InputError when there is nothing to say."""
        check_text(text, "the text to say")
        pieces = engine.say_stream(self.parts, text, self._limits(max_seconds))
        return collect(text, pieces, self.sample_rate, with_audio=True)

    def ask_many(
        self,
        questions: Sequence[Sound] | None = None,
        typed: Sequence[str] | None = None,
        text_only: bool = False,
        max_seconds: float | None = None,
        sample_rate: int | None = None,
    ) -> list[Reply]:
        """Return the answers to many questions at once, recordings as in `stream` or typed texts; times are the batch's."""
        started = time.perf_counter()
        for text in typed or []:
            check_text(text, "the typed question")
        if questions and typed:
            raise InputError("give recordings or typed questions, not both at once.")
        if questions:
            found = self.parts.ear.hear([read_question(sound, sample_rate) for sound in questions])
            positions, heard = [one.positions_NH for one in found], [one.text for one in found]
        else:
            positions, heard = [engine.read(self.parts, text) for text in typed or []], [""] * len(typed or [])
        if not positions:
            return []
        answers = engine.answer_batch(self.parts, positions, self._limits(max_seconds), speak=not text_only)
        seconds = time.perf_counter() - started
        names = [question_name(sound, None) for sound in questions] if questions else list(typed or [])
        return [
            Reply(
                name,
                a.text,
                a.audio,
                self.sample_rate,
                a.units,
                text,
                seconds,
                None if text_only else seconds,
                a.finish,
            )
            for name, a, text in zip(names, answers, heard, strict=True)
        ]

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """Answer typed questions with the untouched text LLM inside this context."""
        adapted = self.parts
        llm = load_llm(adapted.llm_folder, next(adapted.s2t.llm.parameters()).dtype).to(adapted.device)
        mine = adapted.s2t.llm
        adapted.s2t.llm = llm
        try:
            yield
        finally:
            adapted.s2t.llm = mine

    def typed_states(self, text: str, answer: str | None = None) -> list[torch.Tensor]:
        """Return every layer's states (tokens, H) of a typed question, or of `answer` when it is forced after it."""
        return self._states(engine.read(self.parts, text), answer)

    def spoken_states(self, wave: np.ndarray, answer: str | None = None) -> list[torch.Tensor]:
        """Return every layer's states (positions, H) of a spoken question, or of `answer` when it is forced after it."""
        return self._states(self.parts.ear.hear([wave])[0].positions_NH, answer)

    @torch.inference_mode()
    def echo_states(self, text: str) -> list[torch.Tensor]:
        """Return the echo decoder's states (text positions, W) where it reads the LLM's states of saying `text`."""
        ids = encode(self.parts.tokenizer, text)
        question_NH = engine.read(self.parts, "Say it.")
        hidden_NH = engine.answer_states(self.parts, [question_NH], [ids])[0]
        positions_NH = self.parts.echo.positions(hidden_NH, self.parts.s2t.embed(ids).float())
        layout = self.parts.echo.t2c.layout(token_pieces(self.parts.tokenizer, ids))
        read_CW = self.parts.echo.t2c.read([positions_NH], [layout])[0]
        output = self.parts.echo.t2c.decoder(
            inputs_embeds=read_CW[None],
            position_ids=layout.places_C[None].to(read_CW.device),
            output_hidden_states=True,
        )
        return [layer[0] for layer in output.hidden_states]

    @torch.inference_mode()
    def unit_states(self, text: str) -> list[torch.Tensor]:
        """Return the embeddings (units, D) of the units that T2C says `text` with."""
        units = self.say(text).units
        embedding = self.parts.vocoder.embedding
        return [embedding(torch.tensor(units, device=self.parts.device))] if units else [torch.zeros(1, 1)]

    @torch.inference_mode()
    def _states(self, question_NH: torch.Tensor, answer: str | None) -> list[torch.Tensor]:
        s2t, prompt = self.parts.s2t, self.parts.prompt
        ids = encode(self.parts.tokenizer, answer or "")
        before_NH, after_NH, answer_NH = s2t.embed(prompt.before), s2t.embed(prompt.after), s2t.embed(ids)
        row_NH = torch.cat([before_NH, question_NH.to(before_NH.dtype), after_NH, answer_NH])
        layers = s2t.llm.get_decoder()(inputs_embeds=row_NH[None], output_hidden_states=True).hidden_states
        first = len(before_NH) if answer is None else len(row_NH) - len(ids)
        end = first + len(question_NH) if answer is None else len(row_NH)
        return [layer[0, first:end].float() for layer in layers]

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
