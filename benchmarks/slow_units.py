"""Slow twins of what counts and decodes units, for the tests and benchmarks/units.py: dictionaries and loops."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from echox.units.lexicon import Lexicon, Word


def count_ngrams_reference(sequences: Sequence[np.ndarray], max_length: int, min_count: int) -> dict[Word, int]:
    """Slow twin of `count_ngrams`: every window of every sequence into one Counter."""
    counts: Counter[Word] = Counter()
    for sequence in sequences:
        ids = tuple(int(unit) for unit in sequence)
        for length in range(1, max_length + 1):
            counts.update(ids[i : i + length] for i in range(len(ids) - length + 1))
    return {gram: count for gram, count in counts.items() if count >= min_count}


def segment_unigram_reference(ids: Sequence[int] | np.ndarray, lexicon: Lexicon) -> list[Word]:
    """Slow twin of `Segmenter` at order 1: best[i] is the best score of the first i units."""
    units = tuple(int(unit) for unit in ids)
    best = [0.0] + [-math.inf] * len(units)
    last: list[Word] = [()] * len(best)
    for end in range(1, len(best)):
        for start in range(max(0, end - lexicon.max_length), end):
            word = units[start:end]
            if word in lexicon.number:
                score = best[start] + float(lexicon.log_probs[lexicon.number[word]])
                if score > best[end]:
                    best[end], last[end] = score, word
    words: list[Word] = []
    end = len(units)
    while end:
        words.append(last[end])
        end -= len(last[end])
    return words[::-1]
