"""Spoken sentences of stage `teacher`, cut anew each time into the segments in which a stream voices them; it knows no model.

    words      The answer is  |  Paris, of course.         a segmenter cuts the text
    begins     0   9      25  |  34     50 54              frame at which each word begins
    units      7 7 7 3 3 9 9  |  9 4 4 1 1 8 8 8           a unit belongs to the segment in which its middle lies

Legend: T frames, U units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echox.errors import InputError
from echox.units.sequence import deduplicate


@dataclass(frozen=True)
class Sentence:
    """A text as it is said, its units, 50 a second, and the frame at which each of its words, apart by spaces, begins."""

    text: str
    units_T: np.ndarray
    begins: np.ndarray

    def parts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the de-duplicated units (U,) of each of the texts that make up the whole one, cut where words begin."""
        runs = deduplicate(self.units_T.astype(np.int64))
        middles_U = np.cumsum(runs.durations) - np.asarray(runs.durations) / 2
        words = np.cumsum([len(text.split()) for text in texts])[:-1]
        return np.split(np.asarray(runs.ids), np.searchsorted(middles_U, self.begins[words]))


def read_sentences(folders: Sequence[Path]) -> list[Sentence]:
    """Return the sentences of folders of stage `teacher`, where it is known when their words are said; InputError for none."""
    found: list[Sentence] = []
    for folder in folders:
        known = []
        for path in sorted(folder.glob("shard-*.npz")):
            with np.load(path) as data:
                known.append("begins" in data)
                found += _of_shard(data, path) if known[-1] else []
        if not known or not all(known):
            raise InputError(
                f"{folder} holds no shards that say where words begin: delete it and make it anew with stage teacher."
            )
    if not found:
        raise InputError(f"{folders[0]} holds no sentence of which it is known when its words are said.")
    return found


def as_arrays(sentences: Sequence[Sentence]) -> dict[str, np.ndarray]:
    """Return what a shard holds of sentences beside their units."""
    counts = [len(one.begins) for one in sentences]
    return {
        "texts": np.frombuffer("\n".join(one.text for one in sentences).encode(), np.uint8),
        "begins": np.concatenate([one.begins for one in sentences]),
        "word_offsets": np.cumsum([0, *counts]),
    }


def _of_shard(data: Mapping[str, np.ndarray], path: Path) -> list[Sentence]:
    texts = data["texts"].tobytes().decode().split("\n")
    pairs = (("units", "unit_offsets"), ("begins", "word_offsets"))
    units, begins = (np.split(data[name], data[at][1:-1]) for name, at in pairs)
    if not len(texts) == len(units) == len(begins):
        raise InputError(f"{path} is damaged: it holds {len(texts)} texts, {len(units)} rows of units. Make it anew.")
    found = [Sentence(*one) for one in zip(texts, units, begins, strict=True) if len(one[2])]
    if any(len(one.text.split()) != len(one.begins) for one in found):
        raise InputError(f"{path} is damaged: a text has other words than beginnings. Make it anew with stage teacher.")
    return found
