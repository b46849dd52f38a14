"""The engine of a loaded model: all live answers are heard and decode together; the vocoder is each answer's own.

    answers    a ─ speaks ─ WAIT    b ─ WAIT      c ─ WAIT          each the assistant's own stream, told how to decode
                             |           |             |
    batches    echo decoder [a]         LLM [b c] <────'            one forward pass a step over the rows that are live

A step runs the batches that somebody waits for, and in them every row: one whose answer is not waiting goes along, and what it
says is kept until it is asked for. So an answer alone does exactly what it does without an engine, and company costs it no
forward pass of its own. The twin is `InTurn` (generate/engine.py).

A step also hears the question that has waited longest, and in the same pass those that are as long, so that hardly anything is
padded; before others are heard the rows go on.

A question that is still being asked (`Ask.so_far`) is heard by itself as far as it has come, and the first words of an answer to
that are made in silence. The whole question then checks the words that were heard of its beginning in one pass of the listener, the
text model reads what is new, and where nothing is, the answer goes on from the words that are there. What is said is the same.
"""

import logging
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from echox.generate.ears import Drafts, Ear, Heard, Hearing, at_once
from echox.generate.engine import Ask, can_call, pieces_of, turns_of, with_tools
from echox.generate.types import WAIT, Assistant, Piece
from echox.models.decoding import Batch, Decoder, Decoding, Line, Said
from echox.models.kept import Kept

log = logging.getLogger(__name__)
TOGETHER = 32  # seconds that are heard in one pass at most, but for one question that is longer


class Sharing(Assistant, Protocol):
    """An assistant that can be told how its streams decode, and hear a question that is still being asked."""

    def decoding_by(self, decoding: Decoding, hearing: Hearing) -> "Sharing":
        """Return an assistant on the same parts whose streams decode by `decoding` and hear by `hearing`."""
        ...

    def overhear(self, question: Any, *, sample_rate: int | None, history: Any, instructions: str) -> Iterator[Piece]:
        """Hear a question as far as it has come and begin an answer to it; yield nothing but WAIT."""
        ...


@dataclass(eq=False)
class Sounds:
    """Waves that an answer waits to hear, and what they were taken for, or why they cannot be heard."""

    ear: Ear
    waves: list[np.ndarray]
    heard: list[Heard] = field(default_factory=list)
    error: Exception | None = None

    @property
    def seconds(self) -> int:
        """What must be equal for some to be heard in one pass."""
        return sum(map(self.ear.seconds, self.waves))


class Batched:
    """Makes all answers together: a step is one forward pass of each decoder that is waited for."""

    def __init__(self, assistant: Sharing, keep: int = 0) -> None:
        """Begin without answers; what was heard and read of `keep` conversations stays for their next turns."""
        self.keep, self.drafts = keep, Drafts(2 * keep)
        self.assistant, self.sample_rate, self.calls = assistant, assistant.sample_rate, can_call(assistant)
        self.batches: dict[int, Batch] = {}  # by the identity of the model that they run
        self.unread: dict[Line, deque[Said]] = {}
        self.wanted: dict[int, Batch] = {}  # those that somebody waits for
        self.unheard: list[Sounds] = []  # longest waiting first

    def open(self, ask: Ask) -> Iterator[Piece]:
        """See `Engine.open`."""
        lines, sounds = list[Line](), list[Sounds]()
        hearing = partial(at_once, drafts=self.drafts) if ask.so_far else partial(self._hear, sounds)
        assistant = self.assistant.decoding_by(partial(self._decode, lines), hearing)
        try:
            if not ask.so_far:
                yield from pieces_of(assistant, ask)
            elif self.keep:
                yield from with_tools(assistant, ask.tools).overhear(
                    ask.question, sample_rate=ask.sample_rate, history=turns_of(ask), instructions=ask.instructions
                )
        finally:
            self._leave(lines, sounds)

    def step(self) -> None:
        """See `Engine.step`."""
        wanted, self.wanted = self.wanted, {}
        for batch in wanted.values():
            made = batch.step()
            for line, said in zip(made.lines, zip(made.tokens, made.states_BW, strict=True), strict=True):
                self.unread[line].append(said)
        if self.unheard:
            seconds = self.unheard[0].seconds
            some = [one for one in self.unheard if one.seconds == seconds][: max(1, TOGETHER // seconds)]
            self.unheard = [one for one in self.unheard if one not in some]
            self._hear_together(some)

    def _decode(self, lines: list[Line], model: Decoder, line: Line) -> Iterator[Said | None]:
        """Yield what a line says in company, and note it among its answer's `lines`; a Decoding."""
        batch = self.batches.setdefault(id(model), Batch(model, Kept(self.keep)))
        said = self.unread[line] = deque(batch.begun(line))
        line.number = id(model)
        lines.append(line)
        batch.join(line)
        while said or not line.ended:
            if not said:
                self.wanted[id(model)] = batch
            yield said.popleft() if said else None
        if line.error:
            raise line.error

    def _hear(self, sounds: list[Sounds], ear: Ear, waves: list[np.ndarray]) -> Generator[Piece, None, list[Heard]]:
        """Return what waves were taken for, heard in company, and note them among their answer's `sounds`; a Hearing."""
        one = Sounds(ear, waves)
        sounds.append(one)
        self.unheard.append(one)
        while one in self.unheard:
            yield WAIT
        if one.error:
            raise one.error
        return one.heard

    def _hear_together(self, some: list[Sounds]) -> None:
        """Hear sounds in one pass, or one by one to find those that cannot be heard."""
        try:
            heard = iter(some[0].ear.hear([wave for one in some for wave in one.waves], self.drafts))
            for one in some:
                one.heard = [next(heard) for _ in one.waves]
        except Exception as error:
            log.debug("sounds could not be heard", exc_info=True)
            if len(some) == 1:
                some[0].error = error
                return
            for one in some:
                self._hear_together([one])

    def _leave(self, lines: list[Line], sounds: list[Sounds]) -> None:
        """Free everything that an answer holds."""
        self.unheard = [one for one in self.unheard if one not in sounds]
        for line in lines:
            del self.unread[line]
            self.batches[line.number].leave(line)
