"""Keys and values of rows that have ended, for rows that begin with the same inputs: the earlier turns of a conversation.

    turn 1   [system, question 1, answer 1]                           kept when it ends
    turn 2   [system, question 1, answer 1, question 2, answer 2]     reads from question 2 on, then takes its place

They are found by their inputs, not by a name: nobody says whose turn it is, and what differs in one number is read anew.

Legend: N positions, W decoder width.
"""

import torch

from echox.models.slots import Row, Slots

LEAST = 32  # positions that are worth finding: more than a system text, which is as soon read with its company


class Kept:
    """At most `most` rows, those that were used last."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.rows: list[tuple[torch.Tensor, Slots]] = []  # inputs (N, W), and the slots of as many places; oldest first

    def put(self, inputs_NW: torch.Tensor, slots: Slots) -> None:
        """Keep a row; one that it goes on from is given up, and the oldest if there are too many."""
        left = [one for one in self.rows if _shared(one[0], inputs_NW) < len(one[0])]
        self.rows = [*left, (inputs_NW, slots)][-self.most :] if self.most else []

    def find(self, row: Row) -> Slots | None:
        """Return slots of as many of the row's first inputs as were read before, all but the last at most; None for few."""
        if not row.plain or not self.rows:
            return None
        best = max(self.rows, key=lambda one: _shared(one[0], row.inputs_NW))
        count = min(_shared(best[0], row.inputs_NW), len(row.inputs_NW) - 1)
        if count < LEAST:
            return None
        self.rows = [*(one for one in self.rows if one is not best), best]
        return best[1].first(count)


def _shared(a_NW: torch.Tensor, b_NW: torch.Tensor) -> int:
    """Return how many inputs two rows begin with alike."""
    count = min(len(a_NW), len(b_NW))
    return int((a_NW[:count] == b_NW[:count]).all(1).cumprod(0).sum())
