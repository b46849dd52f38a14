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
_WHOLE = re.compile(r"\d+(_\d+)*", re.ASCII)

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

    @cached_property
    def spellings(self) -> dict[str, int]:
        """The token id of everything that one token spells of `▁5_12_7`, in which `_` stands for either mark between units.

        Without joiners in the vocabulary every token is read by itself, so that only whole units count.
        """
        if not self._joined:
            return {f"_{piece}": number for piece, number in self.pieces.items() if _WHOLE.fullmatch(piece)}
        found = {}
        for piece in sorted(self.pieces, key=lambda piece: (piece.startswith(JOINER), piece.count(JOINER))):
            found[piece.replace(JOINER, "_")] = self.pieces[piece]
            if piece.startswith(JOINER):
                found[JOINER + piece[1:].replace(JOINER, "_")] = self.pieces[piece]
        return found

    @cached_property
    def _joined(self) -> bool:
        return any(JOINER in piece for piece in self.pieces)

    def encode(self, units: Sequence[int]) -> list[int]:
        """Return the fewest tokens that spell units, whose decoding is those units; InputError for a unit that has no spelling.

        The released tokens were cut by scores that are not published; of two cuts as short, that of the longer first piece.
        """
        text = (JOINER if self._joined else "_") + "_".join(map(str, units)) if len(units) else ""
        spellings, longest = self.spellings, max(map(len, self.spellings), default=0)
        # from each place on: how many tokens, and where the first ends
        cuts: list[tuple[int, int]] = [(0, 0)] * (len(text) + 1)
        for start in reversed(range(len(text))):
            ends = range(min(len(text), start + longest), start, -1)
            found = [(cuts[end][0] + 1, end) for end in ends if text[start:end] in spellings]
            cuts[start] = min(found, key=lambda cut: cut[0], default=(len(text) + 1, start + 1))
        ids, place = [], 0
        while place < len(text):
            end = cuts[place][1]
            if text[place:end] not in spellings:
                unit = text[1:].split("_")[text[1 : place + 1].count("_")]
                raise InputError(f"no unit token spells {unit!r}: give units of the codebook that this model speaks.")
            ids.append(spellings[text[place:end]])
            place = end
        return ids

    def encode_batch(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the tokens of each sequence, as a unit language does."""
        return [np.array(self.encode(row.tolist()), np.int64) for row in sequences]

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
