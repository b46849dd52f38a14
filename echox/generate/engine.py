"""What makes many answers on one model: the interface, and the slow, obvious engine that makes each by itself.

    open(ask) ─► pieces ... WAIT ... pieces     an answer, advanced a piece at a time; closing it frees all that it holds
    step()                                      a token for each that waits for one, and one pass of hearing; who waits on says so

One thread calls an engine. Who goes next, who queues and who is given up is for its caller (serve/worker.py) to say.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from echox.errors import ConfigError
from echox.generate.types import WAIT, Assistant, Piece
from echox.text.prompt import Tool, Turn
from echox.text.speakable import read_line, said_lines, sentences

PROBE: Tool = {"type": "function", "function": {"name": "tool_probe", "description": "", "parameters": {}}}


@dataclass(frozen=True)
class Ask:
    """One thing to answer, or to say aloud: one of `question`, `typed` and `say`; none where `history` ends with a tool."""

    question: np.ndarray | bytes | None = None  # mono samples at `sample_rate`, or a file's bytes
    sample_rate: int | None = None
    typed: str | None = None
    say: str | None = None
    text_only: bool = False
    hear_only: bool = False  # the answer ends with what was heard
    so_far: bool = False  # the question is still being asked: nothing is answered, what is found out is kept
    history: tuple[tuple[str, str], ...] = ()  # (role, text) of earlier turns, oldest first (text/prompt.py: Turn)
    instructions: str = ""
    tools: tuple[Tool, ...] = ()  # that the model may call
    most_tokens: int | None = None  # after which the answer ends, where the assistant can be told


class Engine(Protocol):
    """Makes answers that are advanced in any order; an answer that fails raises its own error and leaves the others alone."""

    @property
    def sample_rate(self) -> int:
        """Samples per second of its speech."""
        ...

    @property
    def calls(self) -> bool:
        """Whether its model can call tools."""
        ...

    def open(self, ask: Ask) -> Iterator[Piece]:
        """Begin an answer; WAIT among its pieces says that there is no more before the next `step`."""
        ...

    def step(self) -> None:
        """Make what the answers that wait are waiting for."""
        ...


class InTurn:
    """Makes every answer by itself, as the assistant streams it: nothing waits, nothing is shared."""

    def __init__(self, assistant: Assistant) -> None:
        self.assistant, self.sample_rate, self.calls = assistant, assistant.sample_rate, can_call(assistant)

    def open(self, ask: Ask) -> Iterator[Piece]:
        """See `Engine.open`."""
        return pieces_of(self.assistant, ask)

    def step(self) -> None:
        """See `Engine.step`."""


def with_tools(assistant: Any, tools: tuple[Tool, ...]) -> Any:
    """Return an assistant that may call `tools`; ConfigError when its model cannot."""
    if tools and not hasattr(assistant, "calling"):
        raise ConfigError("this model cannot call tools: leave them out.")
    return assistant.calling(tools) if tools else assistant


def can_call(assistant: Any) -> bool:
    """Say whether the model of an assistant can call tools."""
    try:
        with_tools(assistant, (PROBE,))
    except ConfigError:
        return False
    return True


def pieces_of(assistant: Assistant, ask: Ask) -> Iterator[Piece]:
    """Yield the pieces of one answer, told beyond the question whatever this assistant can be told."""
    assistant = with_tools(assistant, ask.tools)
    if ask.say is not None:
        yield from _said(assistant, ask.say)
        return
    if ask.so_far:
        return
    at_most = getattr(assistant, "at_most", None)
    if ask.most_tokens and at_most is not None:
        assistant = at_most(ask.most_tokens)
    takes = inspect.signature(assistant.stream).parameters
    more: dict[str, Any] = {"history": turns_of(ask), "instructions": ask.instructions}
    more = {name: value for name, value in more.items() if value and name in takes}
    yield from assistant.stream(ask.question, ask.typed, text_only=ask.text_only, sample_rate=ask.sample_rate, **more)


def turns_of(ask: Ask) -> tuple[Turn, ...]:
    """Return the earlier turns as an assistant takes them."""
    return tuple(Turn(role, text) for role, text in ask.history)


def made_by(engine: Engine, ask: Ask) -> Iterator[Piece]:
    """Yield the pieces of one answer with nobody beside it."""
    for piece in engine.open(ask):
        if piece is WAIT:
            engine.step()
        else:
            yield piece


def _said(assistant: Assistant, text: str) -> Iterator[Piece]:
    """Yield the speech of a text, a sentence at a time: the reader's time grows with the square of what it is given."""
    for line in said_lines(text):
        for part in sentences(line):
            for sentence in sentences(read_line(part).text):
                for piece in assistant.speak(sentence):
                    yield replace(piece, finish="") if piece.finish else piece
    yield Piece(finish="stop")
