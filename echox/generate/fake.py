"""An assistant without weights: the real surface, deterministic words and tones, for users' tests and ours."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from echox.audio import RECORDING_SECONDS, SAMPLE_RATE, Sound, read_question
from echox.errors import ConfigError
from echox.generate.checks import check_question, check_text, samples_of
from echox.generate.engine import Ask, InTurn
from echox.generate.listening import Listening
from echox.generate.pauses import within
from echox.generate.types import Piece, Question, Reply, as_list, collect
from echox.text.prompt import Tool, Turn, check_turns

WORD_SAMPLES = 3200  # 0.2 s a word
WHISPER = 0.005  # peak of a question that is understood


class FakeAssistant:
    """Answers every question with a sentence about it, and says each word as a tone of its own pitch."""

    load_seconds = 0.0
    sample_rate = SAMPLE_RATE

    def stream(
        self,
        question: Any = None,
        typed: str | None = None,
        text_only: bool = False,
        max_seconds: float | None = None,
        sample_rate: int | None = None,
        seed: int = 0,
        history: Sequence[Turn] = (),
        instructions: str = "",
    ) -> Iterator[Piece]:
        """Yield one piece of text and one of audio a word; a question quieter than a whisper is not understood.

        What was said before changes nothing.
        """
        limit, asked = samples_of(max_seconds, SAMPLE_RATE), Question.of(question, typed, sample_rate)
        check_question(asked)
        if asked.typed is not None or asked.sound is None:
            subject = asked.typed or ""
        else:
            subject = _heard(read_question(asked.sound, asked.sample_rate))
            if not subject:
                yield Piece(finish="unheard")
                return
            yield Piece(heard=subject)
        yield from self._speak(f"You asked about {subject.rstrip('?')}.", text_only, limit)

    def ask(self, question: Any = None, typed: str | None = None, **options: Any) -> Reply:
        """Return the whole answer."""
        pieces = self.stream(question, typed, **options)
        return collect(Question.of(question, typed).name, pieces, SAMPLE_RATE, not options.get("text_only"))

    def transcribe(self, sound: Any, sample_rate: int | None = None) -> Any:
        """Return how long a recording is, or each of a list; nothing where it is quieter than a whisper."""
        sounds, many = as_list(sound)
        found = [_heard(read_question(one, sample_rate, RECORDING_SECONDS)) for one in sounds]
        return found if many else found[0]

    def ask_many(self, questions: Sequence[Sound | Question], **options: Any) -> list[Reply]:
        """Return the answers to many questions."""
        return [self.ask(question, **options) for question in questions]

    def converse(self, conversations: Sequence[Sequence[Turn]], **options: Any) -> list[Reply]:
        """Return the answers to many conversations, each ending with the user."""
        for turns in conversations:
            check_turns(turns)
        last = [turns[-1] for turns in conversations]
        return [self.ask(*turn.sounds[-1:], typed=None if turn.sounds else turn.text, **options) for turn in last]

    def calling(self, tools: Sequence[Tool]) -> "FakeAssistant":
        """Raise ConfigError: it knows no tools."""
        raise ConfigError("this model cannot call tools: leave them out.")

    def listen(self, sample_rate: int | None = None, **options: Any) -> Listening:
        """Return a question to come, answered when it has been asked."""
        return Listening(InTurn(self), Ask(sample_rate=sample_rate, **options))

    def speak(self, text: str, max_seconds: float | None = None) -> Iterator[Piece]:
        """Yield `text` as tones."""
        check_text(text, "the text to say")
        yield from self._speak(text, False, samples_of(max_seconds, SAMPLE_RATE))

    def say(self, text: str, max_seconds: float | None = None) -> Reply:
        """Return `text` as tones."""
        return collect(text, self.speak(text, max_seconds), SAMPLE_RATE, True)

    def _speak(self, text: str, text_only: bool, left: int | None) -> Iterator[Piece]:
        for number, word in enumerate(text.split()):
            yield Piece(("" if number == 0 else " ") + word)
            if text_only:
                continue
            unit = sum(map(ord, word)) % 100
            phase = 2 * np.pi * (200 + 5 * unit) * np.arange(WORD_SAMPLES) / SAMPLE_RATE
            wave = (0.3 * np.sin(phase)).astype(np.float32)
            if left is not None:
                wave = within(wave, left, SAMPLE_RATE)
                left -= len(wave)
            yield Piece(audio=wave, units=(unit,))
            if left == 0:
                yield Piece(finish="length")
                return
        yield Piece(finish="stop")


def _heard(wave: np.ndarray) -> str:
    return f"{len(wave) / SAMPLE_RATE:.1f} seconds" if float(np.abs(wave).max()) >= WHISPER else ""
