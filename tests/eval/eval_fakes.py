"""Stand-ins without weights: a model that answers from a table and speaks in code, and a judge that reads the code.

The fake voice writes a text's bytes as samples, so what was said can be read back exactly, damaged or dropped at will.
"""

from copy import copy
from dataclasses import dataclass, field

import numpy as np
from typer.testing import CliRunner

from echox.commands.eval import app
from echox.errors import EndpointError

RATE = 16_000


def voice(text: str) -> np.ndarray:
    """Returns a text as samples: a loud second of noise-free tone marks speech, then one sample a byte."""
    tone = 0.5 * np.sin(np.arange(RATE // 2) * 0.3)
    return np.concatenate([tone, np.frombuffer(text.encode(), np.uint8) / 256.0, [0.0]]).astype(np.float32)


def read_back(wave: np.ndarray) -> str:
    """Returns the text that `voice` wrote."""
    content = np.rint(wave[RATE // 2 : -1] * 256).clip(0, 255).astype(np.uint8)
    return bytes(content).decode(errors="replace")


@dataclass
class Reply:
    """The surface of `echox.Reply` that the harness reads."""

    text: str
    audio: np.ndarray | None
    sample_rate: int = RATE
    wall_seconds: float = 0.5
    first_audio_seconds: float | None = 0.1
    finish: str = "stop"


@dataclass
class FakeSubject:
    """Answers typed questions from `table` and spoken ones from the question that the wave's length stands for."""

    table: dict[str, str]
    spoken: dict[int, str] = field(default_factory=dict)
    adapters: bool = True
    asked: list[str] = field(default_factory=list)
    fail_on: frozenset[str] = frozenset()

    def ask(self, question=None, typed=None, text_only=False, seed=0):
        """Returns the table's answer; with adapters off the answer is in capitals."""
        key = typed if typed is not None else self.spoken[len(question)]
        self.asked.append(key)
        if key in self.fail_on:
            raise EndpointError("the server answered 500")
        text = self.table.get(key, "I do not know.")
        text = text if self.adapters else text.upper()
        return Reply(text, None if text_only else voice(text))

    def say(self, text):
        """Returns a text spoken."""
        return Reply(text, voice(text))

    def without_adapters(self) -> "FakeSubject":
        """Returns the same model with its adapters off; what is asked of it is kept in the same list."""
        other = copy(self)
        other.adapters = False
        return other


class Clock:
    """A clock that fakes move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def call(*arguments):
    """Runs `echox eval` and returns what it printed; errors come through as they are."""
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False).stdout


@dataclass
class FakeJudge:
    """Reads the fake voice back; `mishears` replaces words."""

    name: str = "fake judge"
    mishears: dict[str, str] = field(default_factory=dict)

    def transcribe(self, waves):
        """Returns what was said; silence is empty."""
        texts = [read_back(wave) if len(wave) else "" for wave in waves]
        return [" ".join(self.mishears.get(word, word) for word in text.split()) for text in texts]
