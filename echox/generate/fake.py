"""An assistant without weights: the real surface, deterministic words and tones, for users' tests and ours."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from echox.audio import SAMPLE_RATE, check_samples, load_audio
from echox.errors import InputError
from echox.generate.types import Piece, Reply, collect, question_name

WORD_SAMPLES = 3200  # 0.2 s a word


class FakeAssistant:
    """Answers every question with a sentence about it, and says each word as a tone of its own pitch."""

    load_seconds = 0.0
    sample_rate = SAMPLE_RATE

    def stream(
        self, question: Any = None, typed: str | None = None, text_only: bool = False,
        max_seconds: float | None = None, seed: int = 0,
    ) -> Iterator[Piece]:  # fmt: skip
        """Yield one piece of text and one of audio a word."""
        if (question is None) == (typed is None):
            raise InputError("give one question: either a recording or typed text.")
        if typed is not None:
            subject = typed
        else:
            wave = question if isinstance(question, np.ndarray) else load_audio(str(question))
            check_samples(wave, SAMPLE_RATE, "the question")
            subject = f"{len(wave) / SAMPLE_RATE:.1f} seconds"
        yield from self._speak(f"You asked about {subject.rstrip('?')}.", text_only, max_seconds)

    def ask(self, question: Any = None, typed: str | None = None, **options: Any) -> Reply:
        """Return the whole answer."""
        pieces = self.stream(question, typed, **options)
        return collect(question_name(question, typed), pieces, SAMPLE_RATE, not options.get("text_only"))

    def say(self, text: str, max_seconds: float | None = None) -> Reply:
        """Return `text` as tones."""
        if not text.strip():
            raise InputError("the text to say is empty: write a few words.")
        return collect(text, self._speak(text, False, max_seconds), SAMPLE_RATE, with_audio=True)

    def _speak(self, text: str, text_only: bool, max_seconds: float | None) -> Iterator[Piece]:
        left = None if max_seconds is None else int(max_seconds * SAMPLE_RATE)
        for number, word in enumerate(text.split()):
            yield Piece(("" if number == 0 else " ") + word)
            if text_only:
                continue
            unit = sum(map(ord, word)) % 100
            phase = 2 * np.pi * (200 + 5 * unit) * np.arange(WORD_SAMPLES) / SAMPLE_RATE
            wave = (0.3 * np.sin(phase)).astype(np.float32)
            if left is not None:
                wave, left = wave[:left], max(0, left - len(wave))
            yield Piece(audio=wave, units=(unit,))
            if left == 0:
                yield Piece(finish="length")
                return
        yield Piece(finish="stop")
