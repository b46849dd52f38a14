"""An assistant without weights: the real surface, deterministic words and tones, for users' tests and ours."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from echox.audio import SAMPLE_RATE, Sound, read_question
from echox.generate.checks import check_one, check_text, samples_of
from echox.generate.types import Piece, Reply, collect, question_name

WORD_SAMPLES = 3200  # 0.2 s a word
WHISPER = 0.005  # peak of a question that is understood


class FakeAssistant:
    """Answers every question with a sentence about it, and says each word as a tone of its own pitch."""

    load_seconds = 0.0
    sample_rate = SAMPLE_RATE

    def stream(
        self, question: Any = None, typed: str | None = None, text_only: bool = False,
        max_seconds: float | None = None, sample_rate: int | None = None, seed: int = 0,
    ) -> Iterator[Piece]:  # fmt: skip
        """Yield one piece of text and one of audio a word; a question quieter than a whisper is not understood."""
        limit = samples_of(max_seconds, SAMPLE_RATE)
        check_one(question, typed)
        if typed is not None:
            subject = typed
        else:
            wave = read_question(question, sample_rate)
            if float(np.abs(wave).max()) < WHISPER:
                yield Piece(finish="unheard")
                return
            subject = f"{len(wave) / SAMPLE_RATE:.1f} seconds"
            yield Piece(heard=subject)
        yield from self._speak(f"You asked about {subject.rstrip('?')}.", text_only, limit)

    def ask(self, question: Any = None, typed: str | None = None, **options: Any) -> Reply:
        """Return the whole answer."""
        pieces = self.stream(question, typed, **options)
        return collect(question_name(question, typed), pieces, SAMPLE_RATE, not options.get("text_only"))

    def ask_many(
        self, questions: Sequence[Sound] | None = None, typed: Sequence[str] | None = None, **options: Any
    ) -> list[Reply]:
        """Return the answers to many questions."""
        return [self.ask(wave, **options) for wave in questions or []] + [
            self.ask(typed=text, **options) for text in typed or []
        ]

    def say(self, text: str, max_seconds: float | None = None) -> Reply:
        """Return `text` as tones."""
        check_text(text, "the text to say")
        return collect(text, self._speak(text, False, samples_of(max_seconds, SAMPLE_RATE)), SAMPLE_RATE, True)

    def _speak(self, text: str, text_only: bool, left: int | None) -> Iterator[Piece]:
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
