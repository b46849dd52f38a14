"""Keys and values of rows that have ended, for rows that begin with the same inputs: the earlier turns of a conversation.

    turn 1   [system, question 1, answer 1]                           kept when it ends
    turn 2   [system, question 1, answer 1, question 2, answer 2]     reads from question 2 on, then takes its place
    draft    [system, half a question, begun answer]                  what is understood while somebody speaks

They are found by their inputs, not by a name: nobody says whose turn it is, and what differs in one number is read anew.

`Opening` keeps what is nobody's: the system text that all prompts begin with.

Legend: N positions, W decoder width.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from echox.models.slots import Row, Slots, prefill

LEAST = 8  # positions that are worth finding: a system text is
EACH = 512  # positions kept for each row of `most`, on the whole


@dataclass(frozen=True)
class Begun:
    """An answer that was begun in silence: how many inputs it answers, how it chose, and its tokens with their states (W,)."""

    count: int
    way: object
    said: list[tuple[int, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Read:
    """Inputs (N, W) and the slots of as many places; of a draft also the answer that was begun."""

    inputs_NW: torch.Tensor
    slots: Slots
    begun: Begun | None = None

    def shared(self, inputs_NW: torch.Tensor) -> int:
        """Return how many inputs it begins with as these do."""
        count = min(len(self.inputs_NW), len(inputs_NW))
        return int((self.inputs_NW[:count] == inputs_NW[:count]).all(1).cumprod(0).sum())


class Kept:
    """At most `most` rows, those that were used last, and as many drafts, the newest; of all together `most * EACH` positions.

    Long conversations would else grow without end: the newest row and the newest draft are kept however long they are.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.rows: list[Read] = []  # oldest first
        self.drafts: list[Read] = []

    def put(self, one: Read) -> None:
        """Keep a row; one that it goes on from is given up, and the oldest if there are too many."""
        kept = self.rows if one.begun is None else self.drafts
        left = [other for other in kept if other.shared(one.inputs_NW) < len(other.inputs_NW)]
        kept[:] = [*left, one][-self.most :] if self.most else []
        while self.positions > self.most * EACH and (older := self.drafts[:-1] or self.rows[:-1]):
            (self.drafts if older[0].begun else self.rows).pop(0)

    @property
    def positions(self) -> int:
        """How many positions are kept."""
        return sum(len(one.inputs_NW) for one in (*self.rows, *self.drafts))

    def find(self, row: Row) -> Slots | None:
        """Return slots of as many of the row's first inputs as were read before, all but the last at most; None for few."""
        if not row.plain or not (self.rows or self.drafts):
            return None
        best = max((*self.rows, *self.drafts), key=lambda one: one.shared(row.inputs_NW))
        count = min(best.shared(row.inputs_NW), len(row.inputs_NW) - 1)
        if count < LEAST:
            return None
        self.rows.sort(key=lambda one: one is best)  # the others stay in their order
        return best.slots.first(count)

    def begun(self, row: Row, way: object) -> list[tuple[int, torch.Tensor]]:
        """Return what a draft has said to this very row, chosen in the same way; nothing for none."""
        for one in reversed(self.drafts) if row.plain else ():
            begun = one.begun
            if begun and begun.count == len(row.inputs_NW) and begun.way == way:
                if one.shared(row.inputs_NW) == begun.count:
                    return begun.said
        return []


class Opening:
    """What every prompt begins with; it is read when the first row asks for it."""

    def __init__(self, body: Any, inputs_NW: torch.Tensor) -> None:
        """Take the decoder `body` that reads the first inputs (N, W)."""
        self.body, self.inputs_NW = body, inputs_NW

    @cached_property
    def slots(self) -> Slots:
        """The opening as it was read."""
        return prefill(self.body, [Row(self.inputs_NW)])[0]

    def find(self, row: Row) -> Slots | None:
        """Return slots of the opening if the row begins with it and goes on; None for a short one, which is not worth a pass."""
        count = len(self.inputs_NW)
        fits = row.plain and LEAST <= count < len(row.inputs_NW)
        return self.slots.first(count) if fits and torch.equal(row.inputs_NW[:count], self.inputs_NW) else None
