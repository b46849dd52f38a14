"""An artificial unit corpus whose words are known, for tests, benchmarks and trying estimators out.

A hidden lexicon of words over few units, Zipf frequencies, favourite followers, no unit twice in a row: the corpus of
spec A2.6.  It ranks estimators; it predicts no translation or speech quality.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from echox.units.lexicon import Word

FOLLOWERS = 5  # favourite followers of a word, taken half of the time


@dataclass(frozen=True)
class ToyCorpus:
    """Hidden words of each sequence, and the sequences as units (with noise, if any)."""

    words: list[list[Word]]
    sequences: list[np.ndarray]


def toy_corpus(
    words: int = 400, units: int = 100, sequences: int = 2000, length: int = 12, noise: float = 0.0, seed: int = 0
) -> ToyCorpus:
    """Draw `sequences` of `length` hidden words, each of 2 to 9 units; `noise` is the share of units replaced."""
    rng = np.random.default_rng(seed)
    lexicon: list[Word] = []
    while len(lexicon) < words:
        word = tuple(rng.integers(units, size=rng.integers(2, 10)).tolist())
        if word not in lexicon and all(a != b for a, b in pairwise(word)):
            lexicon.append(word)
    zipf = 1 / np.arange(1, words + 1)
    zipf /= zipf.sum()
    followers = rng.choice(words, size=(words, FOLLOWERS), p=zipf)
    hidden, spoken = [], []
    for _ in range(sequences):
        sentence: list[int] = []
        while len(sentence) < length:
            favourite = bool(sentence) and rng.random() < 0.5
            number = int(rng.choice(followers[sentence[-1]]) if favourite else rng.choice(words, p=zipf))
            if not sentence or lexicon[sentence[-1]][-1] != lexicon[number][0]:
                sentence.append(number)
        hidden.append([lexicon[number] for number in sentence])
        ids = np.array([unit for number in sentence for unit in lexicon[number]])
        spoken.append(np.where(rng.random(len(ids)) < noise, rng.integers(units, size=len(ids)), ids))
    return ToyCorpus(hidden, spoken)


def boundary_f1(found: Sequence[Sequence[Word]], hidden: Sequence[Sequence[Word]]) -> float:
    """Return the F1 of word boundaries inside the sequences, the ends not counted."""
    right = proposed = true = 0
    for ours, theirs in zip(found, hidden, strict=True):
        a, b = (set(np.cumsum([len(word) for word in words])[:-1].tolist()) for words in (ours, theirs))
        right, proposed, true = right + len(a & b), proposed + len(a), true + len(b)
    return 2 * right / max(proposed + true, 1)
