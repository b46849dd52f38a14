"""Unit words that a text tokenizer spells, `<|unit_..|>`, as the released checkpoints write them (spec section 5)."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from echox.errors import InputError

JOINER = "▁"
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


def parse_units(text: str, codebook: int = 1000, drop_unknown: bool = True) -> list[int]:
    """Return the units spelled by decoded unit tokens (spec section 5).

    With a joiner in the text, bodies of `<|unit_...|>` are concatenated first, so that pieces may cut a number; then
    every run of digits is a unit. Units outside the codebook are dropped as released, or raise InputError if not
    `drop_unknown`.
    """
    if JOINER in text:
        text = "".join(_UNIT.findall(text))
    units = [int(number) for number in _NUMBER.findall(text)]
    unknown = [unit for unit in units if unit >= codebook]
    if unknown and not drop_unknown:
        raise InputError(f"unit {unknown[0]} is outside the codebook: expected 0 to {codebook - 1}.")
    return [unit for unit in units if unit < codebook]
