"""One vocabulary for both languages of text pairs: files of pairs in, a SentencePiece unigram model out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from echox.config.load import Settings
from echox.config.record import RUN, Record, check_same, write_run
from echox.data.manifest import read_jsonl
from echox.errors import InputError
from echox.files import refuse_others
from echox.text.cleaning import BLANK_MARK, SOURCE, Cleaning, clean
from echox.text.pieces import VOCABULARY, Pieces


class Recipe(Settings):
    """Recipe of stage `vocabulary`; the cleaning is the one that the text model is trained with."""

    stage: Literal["vocabulary"]
    out: Path
    texts: list[Path] = Field(min_length=1)  # JSONL with `text` and `translation`
    size: int = Field(default=10_000, ge=8)
    source: Cleaning = SOURCE
    target: Cleaning = Cleaning()


def run(recipe: Recipe) -> Path:
    """Write vocabulary.model into `out`."""
    record = Record.of(recipe)
    check_same(recipe.out, record)
    refuse_others(recipe.out, [VOCABULARY], RUN)
    lines = list(_lines(recipe))
    if not lines:
        raise InputError(f"{recipe.texts[0]} holds no `text` and no `translation`: make the pairs first.")
    Pieces.train(lines, recipe.size).save(recipe.out)
    write_run(recipe.out, record, "done")
    return recipe.out


def _lines(recipe: Recipe) -> Iterator[str]:
    """Yield every side of every pair, cleaned, pauses left out; InputError for one that is no text."""
    for path in recipe.texts:
        for number, record in enumerate(read_jsonl(path), start=1):
            for name, rule in (("text", recipe.source), ("translation", recipe.target)):
                value = record.get(name) or ""
                if not isinstance(value, str):
                    raise InputError(f"{path} line {number} has a `{name}` that is no text: make it one.")
                if value:
                    yield " ".join(clean(value, rule).replace(BLANK_MARK, " ").split())
