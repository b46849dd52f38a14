"""The unit lexicon: which runs of units are words, how probable each is, and which follows which.

    P1(w)   = unigram probability of word w
    P(w|v)  = lambda(v) c(v, w) / c(v) + (1 - lambda(v)) P1(w),   lambda(v) = c(v) / (c(v) + strength)

c counts neighbours in SEGMENTED text; counted over raw substrings c(vw) / c(v) does not depend on where the
boundary lies and the model is useless (spec A2.6, lesson 2).  The first word of a sequence has P1.  Every single
unit is a word, so that any sequence can be spelt.  This file holds the numbers; `estimate.py` makes them and
`segment.py` reads them.

Legend: W words, N bigrams (v, w) with a count, in CSR order: those of v are offsets[v] to offsets[v + 1].
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from echox.errors import ModelError

STRENGTH = 5.0  # words after v at which lambda(v) is one half (spec A2.7, point 5)
UNUSED = 0.1  # occurrences that a single unit never used on its own is given: a penalty, not a prohibition
SCORE_STEP = 1024  # log-probabilities are multiples of 1/1024 nat: float32 and float64 decoders add them exactly

LONGEST_WORD = 64  # units; memory and time of the search grow with it

Word = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Bigrams:
    """Counts of neighbouring words: offsets int64 [W + 1], followers int32 [N] ascending within v, counts int64 [N]."""

    offsets: np.ndarray
    followers: np.ndarray
    counts: np.ndarray

    @classmethod
    def empty(cls, words: int) -> "Bigrams":
        """Return the table without any count."""
        return cls(np.zeros(words + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))

    @classmethod
    def count(cls, segmented: Iterable[np.ndarray], words: int) -> "Bigrams":
        """Count neighbours in sequences of word numbers."""
        pairs = [sequence[:-1] * words + sequence[1:] for sequence in segmented if len(sequence) > 1]
        if not pairs:
            return cls.empty(words)
        keys, counts = np.unique(np.concatenate(pairs).astype(np.int64), return_counts=True)
        offsets = np.searchsorted(keys, np.arange(words + 1) * words)
        return cls(offsets.astype(np.int64), (keys % words).astype(np.int32), counts.astype(np.int64))

    def check(self, words: int) -> None:
        """Raise ModelError unless this is a CSR table over `words` words with positive counts."""
        offsets, followers, counts = self.offsets, self.followers, self.counts
        shapes = offsets.shape == (words + 1,) and followers.ndim == 1 and followers.shape == counts.shape
        kinds = (offsets.dtype, followers.dtype, counts.dtype) == (np.int64, np.int32, np.int64)
        if not (shapes and kinds):
            raise ModelError(f"the bigram table does not fit {words} words.")
        ordered = offsets[0] == 0 and offsets[-1] == len(counts) and bool((np.diff(offsets) >= 0).all())
        inside = not len(counts) or (followers.min() >= 0 and followers.max() < words and counts.min() > 0)
        if not (ordered and inside):
            raise ModelError("the bigram table names words or counts that cannot be.")
        keys = np.repeat(np.arange(words), np.diff(offsets)) * words + followers
        if not bool((np.diff(keys) > 0).all()):
            raise ModelError("the bigram table repeats or disorders its pairs.")


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Words over `units` single units; word number i < units is the single unit (i,).

    words: W tuples of unit ids; log_probs: float64 [W], ln P1; strength: see above. Raises ModelError when a single
    unit is missing, a word repeats or names a unit that does not exist, or the numbers do not fit.
    """

    units: int
    words: tuple[Word, ...]
    log_probs: np.ndarray
    bigrams: Bigrams
    strength: float = STRENGTH

    def __post_init__(self) -> None:
        if self.units < 1 or self.words[: self.units] != tuple((unit,) for unit in range(self.units)):
            raise ModelError(f"the first {self.units} words should be the single units 0 to {self.units - 1}.")
        if len(set(self.words)) != len(self.words):
            raise ModelError("a word is listed twice in the lexicon.")
        if any(not word or min(word) < 0 or max(word) >= self.units for word in self.words):
            raise ModelError(f"a word of the lexicon is empty or names a unit outside 0 to {self.units - 1}.")
        if self.max_length > LONGEST_WORD:
            raise ModelError(
                f"a word of the lexicon has {self.max_length} units, more than the {LONGEST_WORD} it may have."
            )
        good = self.log_probs.shape == (len(self.words),) and np.isfinite(self.log_probs).all()
        if not good or self.log_probs.max() > 0:
            raise ModelError(f"the lexicon needs {len(self.words)} finite log-probabilities, none above 0.")
        if not 0 < self.strength < float("inf"):
            raise ModelError(f"the bigram strength is {self.strength}, which should be a number above 0.")
        self.bigrams.check(len(self.words))

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def number(self) -> dict[Word, int]:
        """Word -> its number."""
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def max_length(self) -> int:
        """Units in the longest word, K."""
        return max(map(len, self.words))

    @cached_property
    def bigram_log_probs(self) -> np.ndarray:
        """ln P(w|v) of every counted pair, float64 [N]."""
        contexts = self._pairs // len(self)
        # lambda c(v, w) / c(v) = c(v, w) / (c(v) + strength)
        seen = self.bigrams.counts / (self.context_counts[contexts] + self.strength)
        return np.log(seen + np.exp(self.backoff[contexts] + self.log_probs[self.bigrams.followers]))

    @cached_property
    def backoff(self) -> np.ndarray:
        """ln(1 - lambda(v)), float64 [W]: what an uncounted follower w of v pays beside ln P1(w)."""
        return np.log(self.strength / (self.context_counts + self.strength))

    @cached_property
    def context_counts(self) -> np.ndarray:
        """c(v), int64 [W]: how often v was followed by a counted word."""
        sums = np.r_[0, np.cumsum(self.bigrams.counts)]
        return sums[self.bigrams.offsets[1:]] - sums[self.bigrams.offsets[:-1]]

    @cached_property
    def _pairs(self) -> np.ndarray:
        """v W + w of every counted pair, ascending int64 [N]."""
        contexts = np.repeat(np.arange(len(self)), np.diff(self.bigrams.offsets))
        return contexts * len(self) + self.bigrams.followers

    def follow_log_prob(self, previous: int, word: int) -> float:
        """Return ln P(word | previous) for word numbers, straight from the formula."""
        low, high = self.bigrams.offsets[previous : previous + 2]
        place = low + int(np.searchsorted(self.bigrams.followers[low:high], word))
        seen = place < high and self.bigrams.followers[place] == word
        count, total = int(self.bigrams.counts[place]) if seen else 0, int(self.context_counts[previous])
        share = total / (total + self.strength)
        p1 = float(np.exp(self.log_probs[word]))
        return float(np.log((share * count / total if total else 0.0) + (1 - share) * p1))

    def score(self, numbers: Sequence[int] | np.ndarray, order: int) -> float:
        """Return ln P of a sequence of word numbers under the unigram (order 1) or bigram (order 2) model."""
        numbers = np.asarray(numbers, np.int64)
        if order == 1 or len(numbers) < 2:
            return float(self.log_probs[numbers].sum())
        previous, words = numbers[:-1], numbers[1:]
        scores = self.backoff[previous] + self.log_probs[words]
        if len(self._pairs):
            wanted = previous * len(self) + words
            places = np.minimum(np.searchsorted(self._pairs, wanted), len(self._pairs) - 1)
            scores = np.where(self._pairs[places] == wanted, self.bigram_log_probs[places], scores)
        return float(self.log_probs[numbers[0]] + scores.sum())


def log_probs_from_counts(counts: np.ndarray) -> np.ndarray:
    """Return ln P1, float64 [W], from word counts; a word never used counts a tenth of an occurrence.

    Rounded to multiples of 1/1024 nat, so that decoders in float32 and float64 agree on every score.
    """
    smoothed = np.maximum(counts.astype(np.float64), UNUSED)
    return np.minimum(np.round(np.log(smoothed / smoothed.sum()) * SCORE_STEP) / SCORE_STEP, 0.0)
