"""Splits text pairs of two languages into train, dev and test: no held-out sentence is in train, on either side.

Reads Tatoeba (a zip of tab-separated pairs, or the text) and pairs of files with a line each (Multi30k, WMT, Europarl). Choices
are hashes of the text, so that the same sources give the same files on any machine.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from echox.config.load import Ordered, Settings
from echox.config.record import RUN, Record, check_same, write_run
from echox.data.manifest import write_jsonl
from echox.errors import InputError
from echox.files import refuse_others
from echox.prepare.sources import read_captions, read_tatoeba
from echox.prepare.texts import SPEAKABLE, fraction
from echox.text.cleaning import SOURCE, clean

Pair = tuple[str, str]
Words = Annotated[tuple[PositiveInt, PositiveInt], Ordered]


class PairSource(Settings):
    """One public collection: a Tatoeba file, or the two sides of a text with a sentence a line."""

    tatoeba: Path | None = None
    lines: tuple[Path, Path] | None = None
    url: str = ""
    licence: str = ""

    @model_validator(mode="after")
    def _check(self) -> "PairSource":
        if (self.tatoeba is None) == (self.lines is None):
            raise ValueError("name one of tatoeba and lines")
        return self

    def read(self) -> Iterator[Pair]:
        """Yield (source, target); InputError where the files are missing or do not have as many lines."""
        if self.tatoeba is not None:
            yield from read_tatoeba(self.tatoeba)
            return
        assert self.lines is not None  # noqa: S101  checked above
        sides = [list(read_captions(path)) for path in self.lines]
        if len(sides[0]) != len(sides[1]):
            counts = f"{self.lines[0]} has {len(sides[0])} lines and {self.lines[1]} has {len(sides[1])}"
            raise InputError(f"{counts}: give two sides of one text.")
        yield from zip(*sides, strict=True)


class Recipe(Settings):
    """Recipe of stage `text_pairs`: `out` gets train.jsonl, dev.jsonl, test.jsonl, and spoken.jsonl, one a source sentence."""

    stage: Literal["text_pairs"]
    out: Path
    sources: list[PairSource] = Field(min_length=1)
    dev: PositiveInt = 300
    test: PositiveInt = 600
    words: Words = (4, 14)  # of a held-out source sentence
    spoken_words: Words | None = None  # of a spoken one; none: as many
    most_words: PositiveInt = 80  # longer pairs are left out


def run(recipe: Recipe) -> Path:
    """Write the four files; InputError when nothing is left to train on."""
    record = Record.of(recipe)
    check_same(recipe.out, record)
    refuse_others(recipe.out, [f"{name}.jsonl" for name in ("train", "dev", "test", "spoken")], RUN)
    pairs = usable((pair for source in recipe.sources for pair in source.read()), recipe.most_words)
    parts = split(pairs, recipe.dev, recipe.test, recipe.words, recipe.spoken_words or recipe.words)
    if not parts["train"]:
        raise InputError(f"none of {len(pairs)} pairs is left to train on: lower dev and test, or give more text.")
    for name, rows in parts.items():
        write_jsonl(recipe.out / f"{name}.jsonl", rows_of(name, rows))
    write_run(recipe.out, record, "done")
    return recipe.out


def usable(pairs: Iterable[Pair], most_words: int) -> list[Pair]:
    """Return distinct pairs with words on both sides and at most `most_words`, in hash order."""
    found: dict[tuple[str, str], Pair] = {}
    for source, target in pairs:
        key = keys((source, target))
        if all(key) and max(len(source.split()), len(target.split())) <= most_words:
            found.setdefault(key, (source, target))
    return [found[key] for key in sorted(found, key=lambda key: fraction("pair", *key))]


def split(
    pairs: list[Pair], dev: int, test: int, words: tuple[int, int], spoken_words: tuple[int, int]
) -> dict[str, list[Pair]]:
    """Return train, dev, test and spoken pairs.

    Held-out source sentences can be said, have so many words, and give one translation each; a pair that shares a side with a
    held-out one is in neither part. `spoken` is `train` with one translation a sentence that can be said and is as long as asked.
    """
    held = list(said(pairs, words).values())[: dev + test]
    sources = {keys(pair)[0] for pair in held}
    linked = [pair for pair in pairs if keys(pair)[0] in sources]  # all translations of a sentence are held out with it
    sides = [{keys(pair)[side] for pair in linked} for side in (0, 1)]
    train = [pair for pair in pairs if keys(pair)[0] not in sides[0] and keys(pair)[1] not in sides[1]]
    left = {keys(pair)[0] for pair in train}
    spoken = [pair for key, pair in said(pairs, spoken_words).items() if key in left and keys(pair)[1] not in sides[1]]
    return {"train": train, "dev": held[:dev], "test": held[dev:], "spoken": spoken}


def said(pairs: list[Pair], words: tuple[int, int]) -> dict[str, Pair]:
    """Return the first pair of every source sentence that can be said and has so many words, in hash order."""
    first: dict[str, Pair] = {}
    for pair in pairs:
        if words[0] <= len(pair[0].split()) <= words[1] and SPEAKABLE.fullmatch(pair[0]):
            first.setdefault(keys(pair)[0], pair)
    return {key: first[key] for key in sorted(first, key=lambda key: fraction("held-out", key))}


def keys(pair: Pair) -> tuple[str, str]:
    """Return the keys by which sides are equal: their words alone."""
    return clean(pair[0], SOURCE), clean(pair[1], SOURCE)


def rows_of(name: str, pairs: list[Pair]) -> Iterator[dict[str, str]]:
    """Yield records with `id`, `text` and `translation`; an id is its place in the part."""
    for number, (source, target) in enumerate(pairs):
        yield {"id": f"{name}-{number:06d}", "text": source, "translation": target}
