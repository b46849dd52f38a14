"""Assistants that wait, fail, remember or do not hear, and the official client's event classes."""

import threading
from typing import get_args

import numpy as np

from echox.generate.fake import FakeAssistant
from echox.generate.types import Call, Piece


class Held(FakeAssistant):
    """Stops before each piece of an answer until it is let go on; counts the answers that were begun and ended."""

    def __init__(self):
        self.go, self.begun, self.ended = threading.Event(), 0, 0

    def stream(self, *given, **options):
        self.begun += 1
        try:
            for piece in super().stream(*given, **options):
                assert self.go.wait(20)
                yield piece
        finally:
            self.ended += 1


class Stepped(FakeAssistant):
    """Notes whose piece it made: the typed question of each."""

    def __init__(self):
        self.made = []

    def stream(self, question=None, typed=None, **options):
        for piece in super().stream(question, typed, **options):
            self.made.append((typed, "sound" if piece.audio is not None else "text"))
            yield piece


class Failing(FakeAssistant):
    """Says one word, then breaks as only a bug can."""

    def __init__(self, after=1):
        self.after = after

    def stream(self, question=None, typed=None, **options):
        for _ in range(self.after):
            yield Piece("One ")
        raise ZeroDivisionError("a bug")


class Remembering(FakeAssistant):
    """Takes history and instructions, and answers with what it was given."""

    def stream(self, question=None, typed=None, *, history=(), instructions="", text_only=False, **options):
        told = "|".join([instructions, *(f"{turn.role}: {turn.text}" for turn in history)])
        if typed is None:
            yield Piece(heard=f"{len(question)} samples")
        yield Piece(told or "nothing")
        if not text_only:
            yield Piece(audio=np.full(1600, 0.1, np.float32), units=(1,))
        yield Piece(finish="stop")


class Calling(FakeAssistant):
    """Asks for the weather where it has tools, twice where it is asked twice, and says what came back."""

    def __init__(self, tools=()):
        self.tools = tools

    def calling(self, tools):
        return Calling(tools)

    def stream(self, question=None, typed=None, *, history=(), text_only=False, **options):
        if history and history[-1].role == "tool":
            yield from super().stream(
                typed="|".join(f"{turn.role}: {turn.text}" for turn in history), text_only=text_only
            )
        elif not self.tools:
            yield from super().stream(question, typed, text_only=text_only)
        else:
            yield Piece("Let me look.", heard="" if typed else "what is it")
            yield Piece(audio=None if text_only else np.full(1600, 0.1, np.float32), units=(1,))
            name = self.tools[0]["function"]["name"]
            yield from (Piece(call=Call(name, f'{{"city": "{city}"}}')) for city in (typed or "Paris").split(" and "))
            yield Piece(finish="stop")


class Keeping(FakeAssistant):
    """Keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def stream(self, question=None, typed=None, **options):
        self.asked.append(question if typed is None else typed)
        yield from super().stream(question, typed, **options)


class Deaf(FakeAssistant):
    """Answers without writing down what it heard."""

    def stream(self, question=None, typed=None, **options):
        yield Piece("Yes.")
        yield Piece(finish="stop")


class Unhearing(FakeAssistant):
    """Understands nothing, and says so as a loaded model does: what was heard first, then the end."""

    def stream(self, question=None, typed=None, **options):
        yield Piece(heard="")
        yield Piece(finish="unheard")


class Loud:
    """A detector that takes what is loud for speech."""

    def __call__(self, chunk):
        assert chunk.shape == (512,) and chunk.dtype == np.float32
        return float(np.abs(chunk).max() > 0.05)

    def reset(self):
        pass


def classes(union):
    """Return {"response.done": ResponseDoneEvent, ...} of one of the client's unions."""
    members = get_args(get_args(union)[0])
    return {get_args(member.model_fields["type"].annotation)[0]: member for member in members}
