"""Units per second of counting, training and decoding the unit language, fast and slow, on one core.

    python benchmarks/units.py [--units 3000000] [--vocabulary 4000]

The corpus is artificial (benchmarks/toy_units.py), so nothing is downloaded; slow twins run on a small part of it.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from slow_units import count_ngrams_reference, segment_unigram_reference
from toy_units import boundary_f1, toy_corpus

from echox.units.bpe import train_bpe
from echox.units.estimate import LexiconConfig, train_with_report
from echox.units.ngrams import count_ngrams
from echox.units.segment import Segmenter, segment_bigram_reference
from echox.units.tokenizer import UnitTokenizer

SLOW_UNITS = 20_000  # of the corpus that the plain Python twins read
MIN_COUNT = 5

T = TypeVar("T")


def timed(name: str, units: int, work: Callable[[], T]) -> T:
    """Run `work`, print seconds and units per second, and return its result."""
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    print(f"{name:42} {seconds:9.2f} s {units / seconds / 1e6:9.3f} M units/s")
    return result


def head(corpus: Sequence[np.ndarray], units: int) -> list[np.ndarray]:
    """Return the first sequences that hold about `units` units together."""
    stop = int(np.searchsorted(np.cumsum([len(ids) for ids in corpus]), units)) + 1
    return list(corpus[:stop])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=3_000_000, help="units in the corpus, about")
    parser.add_argument("--vocabulary", type=int, default=4000)
    options = parser.parse_args()
    toy = toy_corpus(words=3000, units=256, sequences=max(options.units // 62, 20), noise=0.05)
    corpus, few = toy.sequences, head(toy.sequences, SLOW_UNITS)
    units, few_units = sum(map(len, corpus)), sum(map(len, few))
    print(f"{len(corpus)} sequences, {units} units; slow twins: {few_units} units\n")

    timed("count n-grams up to 8", units, lambda: count_ngrams(corpus, 8, MIN_COUNT))
    timed("  plain Counter", few_units, lambda: count_ngrams_reference(few, 8, MIN_COUNT))
    config = LexiconConfig(units=256, vocabulary_size=options.vocabulary)
    report = timed("train, thresholds and rounds and bigrams", units, lambda: train_with_report(corpus, config))
    timed("train BPE", units, lambda: train_bpe(corpus, config))

    lexicon, segmenter = report.lexicon, Segmenter(report.lexicon)
    for order, name, twin in ((1, "unigram", segment_unigram_reference), (2, "bigram", segment_bigram_reference)):
        segmenter.segment(few, order)  # compile and build tables first
        timed(f"{name} Viterbi", units, lambda order=order: segmenter.segment(corpus, order))
        timed("  plain Python twin", few_units, lambda twin=twin: [twin(ids, lexicon) for ids in few])
    tokenizer = UnitTokenizer(lexicon)
    tokens = tokenizer.encode_batch(few)
    timed("decode tokens to units", few_units, lambda: [tokenizer.decode(row.tolist()) for row in tokens])

    found = segmenter.segment(corpus, 2)
    f1 = boundary_f1([[lexicon.words[n] for n in numbers] for numbers in found], toy.words)
    print(f"\nheld-out bits/unit: unigram {report.unigram_bits:.3f}, bigram {report.bigram_bits:.3f}; ", end="")
    print(f"{report.bigram_units_per_word:.2f} units/word; boundary F1 {f1:.3f}")


if __name__ == "__main__":
    main()
