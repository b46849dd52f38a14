"""Unit words that a text tokenizer spells, `<|unit_..|>`, as the released checkpoints write them (spec section 5)."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from echox.errors import InputError

JOINER = "▁"
CODEBOOK = 1000  # units of the released checkpoints
_UNIT = re.compile(r"<\|unit_(.*?)\|>")
_NUMBER = re.compile(r"\d+", re.ASCII)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpelledUnits:
    """Unit tokens of a text tokenizer; `vocab_size` of them, over a codebook of `units`.

    Pieces may cut a number in two, so a segment is decoded as a whole (`wordwise` is False).
    """

    tokenizer: Any
    vocab_size: int
    units: int
    wordwise: bool = False

    @cached_property
    def pieces(self) -> dict[str, int]:
        """The token id of everything that one unit token spells."""
        matches = ((_UNIT.fullmatch(token), number) for token, number in self.tokenizer.get_vocab().items())
        return {match[1]: number for match, number in matches if match}

    def encode(self, units: Sequence[int]) -> list[int]:
        """Return the fewest tokens that spell units, whose decoding is those units; InputError for a unit that has no spelling.

        The released tokens were cut by scores that are not published; of two cuts as short, that of the longer first piece.
        """
        if not any(JOINER in piece for piece in self.pieces):
            return [self._token(str(unit)) for unit in units]
        text = "".join(f"{JOINER}{unit}" for unit in units)
        longest = max(map(len, self.pieces))
        # from each place on: how many tokens, and where the first ends
        cuts: list[tuple[int, int]] = [(0, 0)] * (len(text) + 1)
        for start in reversed(range(len(text))):
            ends = range(min(len(text), start + longest), start, -1)
            found = [(cuts[end][0] + 1, end) for end in ends if text[start:end] in self.pieces]
            cuts[start] = min(found, key=lambda cut: cut[0], default=(len(text) + 1, start + 1))
        ids, place = [], 0
        while place < len(text):
            end = cuts[place][1]
            ids.append(self._token(text[place:end]))
            place = end
        return ids

    def encode_batch(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the tokens of each sequence, as a unit language does."""
        return [np.array(self.encode(row.tolist()), np.int64) for row in sequences]

    def _token(self, piece: str) -> int:
        if piece not in self.pieces:
            raise InputError(f"no unit token spells {piece!r}: give units of the codebook that this model speaks.")
        return self.pieces[piece]

    def decode(self, token_ids: Sequence[int]) -> list[int]:
        """Return the units that tokens spell; those outside the codebook are dropped as released, with a warning."""
        text = self.tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        units = parse_units(text, self.units)
        dropped = len(parse_units(text, 10**9)) - len(units)
        if dropped:
            log.warning(
                "%d units outside the codebook of %d were dropped, as the released code does.", dropped, self.units
            )
        return units


def parse_units(text: str, codebook: int = CODEBOOK) -> list[int]:
    """Return the units spelled by decoded unit tokens (spec section 5).

    With a joiner in the text, bodies of `<|unit_...|>` are concatenated first, so that pieces may cut a number; then
    every run of digits is a unit. Units outside the codebook are dropped as released.
    """
    if JOINER in text:
        text = "".join(_UNIT.findall(text))
    # int would refuse a number of more than 4,300 digits
    return [int(unit) for unit in map(float, _NUMBER.findall(text)) if unit < codebook]
