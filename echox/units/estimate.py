"""From unit sequences to a lexicon: candidates, hard-EM rounds chosen on held-out text, then word bigrams.

    sequences ──count_ngrams──► candidates (count >= threshold)
        └─► round 0: P1 from raw counts ─► segment ─► count own words ─► prune ─► round 1 ─► ...
    every round whose lexicon fits the vocabulary is scored on held-out sequences, in bits per unit; the best stays
    ─► segment with it ─► count neighbouring words ─► segment with the bigram ─► count again ─► ...

Unthresholded maximum likelihood degenerates to the longest words, each seen once, and bigrams over raw substrings
carry nothing (spec A2.6); neither is offered.  Thresholds and rounds are not settings to guess: a few thresholds,
scaled with the corpus, are tried and the held-out number chooses.

Legend: W words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from tqdm import tqdm

from echox.config.load import Seed, Settings
from echox.errors import ConfigError, InputError
from echox.units.lexicon import LONGEST_WORD, Bigrams, Lexicon, Word, log_probs_from_counts
from echox.units.ngrams import count_ngrams
from echox.units.segment import MAX_UNITS, Segmenter
from echox.units.sequence import as_ids

THRESHOLD_SHARES = (1e-5, 4e-5, 1.6e-4)  # of the corpus length in units: candidates' counts that are tried
LEAST_THRESHOLD = 3
STRENGTHS = (5.0, 20.0, 80.0, 320.0, 1280.0)  # of the unigram inside the bigram; 5 trusts rare pairs most
SHRINK = 0.6  # share of a lexicon that one pruning may leave at least: a gentle slope keeps good words


class LexiconConfig(Settings):
    """Settings of `train_with_report`."""

    units: int | None = Field(default=None, ge=1, description="single units; none: the largest id seen plus one")
    max_length: int = Field(default=8, ge=1, le=LONGEST_WORD, description="K, units in the longest word")
    vocabulary_size: int = Field(default=4000, ge=1, description="most words, single units included")
    min_count: int | None = Field(default=None, ge=1, description="count of a candidate; none: chosen on held-out text")
    rounds: int = Field(default=6, ge=0, description="hard-EM rounds after the lexicon fits the vocabulary")
    bigram_rounds: int = Field(default=2, ge=1, description="segment-and-count rounds of the bigram model")
    held_out: float = Field(default=0.05, gt=0, lt=1, description="share of sequences that choose")
    seed: Seed = 0


@dataclass(frozen=True)
class Round:
    """One lexicon that was tried: candidates' threshold, round, words, held-out bits and mean length."""

    min_count: int
    round: int
    words: int
    bits_per_unit: float
    units_per_word: float


@dataclass(frozen=True)
class Trained:
    """The chosen lexicon, every round that was tried, and held-out bits per unit of its two models."""

    lexicon: Lexicon
    rounds: list[Round]
    unigram_bits: float
    bigram_bits: float
    unigram_units_per_word: float
    bigram_units_per_word: float


def train_with_report(sequences: Sequence[np.ndarray], config: LexiconConfig | None = None) -> Trained:
    """Estimate a lexicon with bigrams from de-duplicated unit sequences of the training split only, and tell what chose it.

    Raises InputError for an empty corpus or units beyond `config.units`, ConfigError for a vocabulary smaller than the
    single units.
    """
    config = config or LexiconConfig()
    corpus = [ids for ids in (as_ids(sequence, "units") for sequence in sequences) if len(ids)]
    units = single_units(corpus, config)
    train, held_out = split(corpus, config)
    total = sum(map(len, train))
    thresholds = sorted({max(LEAST_THRESHOLD, round(share * total)) for share in THRESHOLD_SHARES})
    if config.min_count is not None:
        thresholds = [config.min_count]
    counts = count_ngrams(train, config.max_length, thresholds[0])
    tried: list[tuple[Round, Lexicon]] = []
    with tqdm(desc="words", unit=" rounds", disable=None, leave=False) as bar:
        for threshold in thresholds:
            candidates = {gram: count for gram, count in counts.items() if count >= threshold}
            tried += _rounds(candidates, threshold, units, train, held_out, config, bar.update)
        chosen = min(tried, key=lambda attempt: attempt[0].bits_per_unit)
        lexicon, bigram = _bigram_rounds(chosen[1], train, held_out, config, bar.update)
    report, rounds = chosen[0], [attempt for attempt, _ in tried]
    return Trained(lexicon, rounds, report.bits_per_unit, bigram[0], report.units_per_word, bigram[1])


def bits_per_unit(lexicon: Lexicon, sequences: Sequence[np.ndarray], order: int) -> tuple[float, float]:
    """Return (code length in bits per unit, units per word) of `sequences` under the model of `order` 1 or 2."""
    segmented = Segmenter(lexicon).segment(sequences, order)
    units, words = sum(map(len, sequences)), sum(map(len, segmented))
    if not units:
        raise InputError("there are no units to measure: give sequences that are not empty.")
    nats = sum(-lexicon.score(numbers, order) for numbers in segmented)
    return float(nats / np.log(2) / units), units / words


def _rounds(
    candidates: dict[Word, int],
    threshold: int,
    units: int,
    train: Sequence[np.ndarray],
    held_out: Sequence[np.ndarray],
    config: LexiconConfig,
    tell: Callable[[], object],
) -> list[tuple[Round, Lexicon]]:
    """Return every lexicon of one threshold that fits the vocabulary, from raw counts to the last round."""
    lexicon = build_lexicon(candidates, units)
    tried: list[tuple[Round, Lexicon]] = []
    number = 0
    while True:
        if len(lexicon) <= config.vocabulary_size:
            bits, length = bits_per_unit(lexicon, held_out, order=1)
            tried.append((Round(threshold, number, len(lexicon), bits, length), lexicon))
        if len(tried) > config.rounds:
            return tried
        own = count_words(Segmenter(lexicon).segment(train, order=1), len(lexicon))
        counts = dict(zip(lexicon.words, own.tolist(), strict=True))
        counts = {word: count for word, count in counts.items() if count >= 2 or len(word) == 1}
        if len(counts) > config.vocabulary_size:
            counts = prune(counts, units, max(config.vocabulary_size, int(SHRINK * len(counts))))
        lexicon = build_lexicon(counts, units)
        number += 1
        tell()


def prune(counts: dict[Word, int], units: int, size: int) -> dict[Word, int]:
    """Keep all single units and the words whose loss would cost most, `size` in all.

    The cost of losing w is c(w) times what its best spelling by other words costs more than w (the pruning of
    SentencePiece's unigram trainer, Kudo, arXiv 1804.10959).
    """
    lexicon = build_lexicon(counts, units)
    score = {word: float(value) for word, value in zip(lexicon.words, lexicon.log_probs, strict=True)}
    losses = {w: counts[w] * (score[w] - _best_spelling(w, score)) for w in lexicon.words if len(w) > 1}
    kept = sorted(losses, key=lambda word: (-losses[word], word))[: size - units]
    return {word: counts[word] for word in (*kept, *((unit,) for unit in range(units) if (unit,) in counts))}


def _best_spelling(word: Word, score: dict[Word, float]) -> float:
    """Return the best score of `word` written with two words or more."""
    best = [0.0] + [-np.inf] * len(word)
    for end in range(1, len(best)):
        for start in range(1 if end == len(word) else 0, end):
            part = score.get(word[start:end])
            if part is not None and best[start] + part > best[end]:
                best[end] = best[start] + part
    return best[-1]


def _bigram_rounds(
    lexicon: Lexicon,
    train: Sequence[np.ndarray],
    held_out: Sequence[np.ndarray],
    config: LexiconConfig,
    tell: Callable[[], object],
) -> tuple[Lexicon, tuple[float, float]]:
    """Count neighbours in the unigram's words, then in the bigram's own; return the best on held-out and its bits."""
    tried: list[tuple[tuple[float, float], Lexicon]] = []
    current, order = lexicon, 1
    for _ in range(config.bigram_rounds):
        segmented = Segmenter(current).segment(train, order)
        counted = [with_bigrams(lexicon, segmented, strength) for strength in STRENGTHS]
        scored = [(bits_per_unit(variant, held_out, order=2), variant) for variant in counted]
        current, order = min(scored, key=lambda pair: pair[0][0])[1], 2
        tried += scored
        tell()
    bits, best = min(tried, key=lambda pair: pair[0][0])
    return best, bits


def with_bigrams(lexicon: Lexicon, segmented: Sequence[np.ndarray], strength: float) -> Lexicon:
    """Return the lexicon with neighbours counted in `segmented`, sequences of its own word numbers."""
    bigrams = Bigrams.count(segmented, len(lexicon))
    return Lexicon(lexicon.units, lexicon.words, lexicon.log_probs, bigrams, strength)


def build_lexicon(counts: dict[Word, int], units: int) -> Lexicon:
    """Return the unigram lexicon of `counts` and all single units: units first, then words by falling count."""
    longer = sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))
    words = (*((unit,) for unit in range(units)), *longer)
    log_probs = log_probs_from_counts(np.array([counts.get(word, 0) for word in words]))
    return Lexicon(units, words, log_probs, Bigrams.empty(len(words)))


def count_words(segmented: Sequence[np.ndarray], words: int) -> np.ndarray:
    """Return how often each word number occurs, int64 [W]."""
    return np.bincount(np.concatenate(segmented), minlength=words)


def single_units(corpus: Sequence[np.ndarray], config: LexiconConfig) -> int:
    """Return the number of single units; raises InputError and ConfigError where corpus and settings disagree."""
    if not corpus:
        raise InputError("the corpus holds no units: extract units first.")
    largest = max(int(ids.max()) for ids in corpus)
    units = config.units if config.units is not None else largest + 1
    if largest >= units:
        raise InputError(f"the corpus holds unit {largest}, but the settings say there are {units} units.")
    if units > MAX_UNITS:
        raise ConfigError(f"{units} units are more than the {MAX_UNITS} that can be written as characters.")
    if config.vocabulary_size < units:
        raise ConfigError(f"vocabulary_size = {config.vocabulary_size} is below the {units} single units it must hold.")
    return units


def split(corpus: Sequence[np.ndarray], config: LexiconConfig) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return (training, held-out) sequences by a seeded draw; one sequence alone is both."""
    if len(corpus) == 1:
        return list(corpus), list(corpus)
    order = np.random.default_rng(config.seed).permutation(len(corpus))
    size = min(max(1, round(config.held_out * len(corpus))), len(corpus) - 1)
    return [corpus[i] for i in order[size:]], [corpus[i] for i in order[:size]]
