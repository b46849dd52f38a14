"""How the two sides of a text pair are written before they become tokens (spec B3); it knows no tokenizer.

Speech does not say its capitals and commas, so the source side drops them; the target side keeps them, since they are wanted.
"""

import re
import unicodedata
from typing import Literal

from echox.config.load import Settings

BLANK_MARK = "\u2423"  # stands where punctuation was, until the tokenizer makes it the blank
_PUNCTUATION = re.compile(r"[^\w\s']|_|(?<!\w)'|'(?!\w)")


class Cleaning(Settings):
    """Case and punctuation of one side."""

    lower: bool = False
    punctuation: Literal["keep", "remove", "blank"] = "keep"  # blank: a pause, which CTC hears as its blank


SOURCE = Cleaning(lower=True, punctuation="remove")


def clean(text: str, rule: Cleaning) -> str:
    """Return `text` in Unicode's composed form, its apostrophes straight and its blanks single, as the rule says."""
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'").replace(BLANK_MARK, " ")
    if rule.lower:
        text = text.lower()
    if rule.punctuation != "keep":
        text = _PUNCTUATION.sub(f" {BLANK_MARK} " if rule.punctuation == "blank" else " ", text)
    return " ".join(text.split())
