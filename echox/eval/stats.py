"""Means with intervals: the paired percentile bootstrap, seeded, over the same questions for every arm.

One resample draws n questions with replacement and takes all arms' scores of those questions, so that a difference
between arms is not blurred by which questions were easy (Koehn 2004 for translation; Bisani and Ney 2004 for speech).
Pure functions on arrays; knows nothing about files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0
_CHUNK = 512


@dataclass(frozen=True)
class Interval:
    """A point estimate with its percentile interval; NaN where it cannot be formed. `n` counts the questions."""

    value: float
    low: float
    high: float
    n: int


NOTHING = Interval(np.nan, np.nan, np.nan, 0)


@lru_cache(maxsize=8)
def draw_counts(n: int, resamples: int, seed: int) -> np.ndarray:
    """Return uint16 [resamples, n]: how often each of n questions is drawn in each resample of n draws."""
    generator = np.random.default_rng(seed)
    counts_RN = np.empty((resamples, n), dtype=np.uint16)
    for start in range(0, resamples, _CHUNK):
        draws = generator.integers(0, n, size=(min(_CHUNK, resamples - start), n))
        flat = (draws + np.arange(len(draws))[:, None] * n).ravel()
        counts_RN[start : start + len(draws)] = np.bincount(flat, minlength=len(draws) * n).reshape(len(draws), n)
    return counts_RN


def resample_means(scores_NA: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Return float64 [resamples, A]: the arms' means over questions drawn with replacement, the same for every arm.

    Counts of the draws, which are kept, are multiplied instead of gathering rows (twin: `resample_means_reference` in the tests).
    """
    n = len(scores_NA)
    counts_RN = draw_counts(n, resamples, seed)
    parts = [counts_RN[start : start + _CHUNK].astype(np.float64) @ scores_NA for start in range(0, resamples, _CHUNK)]
    return np.concatenate(parts) / n


def paired_bootstrap(scores_NA: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Interval:
    """Return `statistic` of the arms' means with its 95 % interval.

    `scores_NA` holds one row a question and one column an arm; `statistic` maps [..., A] means to [...] values and may
    give NaN (a ratio over nothing), which is left out of the interval.
    """
    scores_NA = np.asarray(scores_NA, dtype=np.float64)
    n = len(scores_NA)
    if n == 0:
        return NOTHING
    value = float(statistic(scores_NA.mean(axis=0)[None])[0])
    return _interval(value, statistic(resample_means(scores_NA)), n)


def _interval(value: float, values_R: np.ndarray, n: int) -> Interval:
    values_R = values_R[np.isfinite(values_R)]
    if not len(values_R):
        return Interval(value, np.nan, np.nan, n)
    low, high = np.quantile(values_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), n)


def mean(scores_N: ArrayLike) -> Interval:
    """Return the mean of one arm's scores with its interval."""
    return paired_bootstrap(np.asarray(scores_N, dtype=np.float64)[:, None], lambda m: m[..., 0])


def difference(scores_N: ArrayLike, minus_N: ArrayLike) -> Interval:
    """Return mean(scores) - mean(minus) over the same questions, with its interval."""
    return paired_bootstrap(np.stack([scores_N, minus_N], axis=1), lambda m: m[..., 0] - m[..., 1])


def ratio(scores_N: ArrayLike, over_N: ArrayLike) -> Interval:
    """Return mean(scores) / mean(over) over the same questions, as word error rates are formed; NaN when `over` is all zero."""
    return paired_bootstrap(np.stack([scores_N, over_N], axis=1), lambda m: divided(m[..., 0], m[..., 1]))


def stratified_ratio(strata: Sequence[tuple[float, np.ndarray]]) -> Interval:
    """Return the ratio of two totals of a population of strata: (size, float [n, 2] of its sample), each resampled by itself."""
    if not strata:
        return NOTHING
    value_2 = np.sum([size * scores_N2.mean(axis=0) for size, scores_N2 in strata], axis=0)
    drawn = [size * resample_means(scores_N2, seed=SEED + place) for place, (size, scores_N2) in enumerate(strata)]
    totals_R2 = np.sum(drawn, axis=0)
    values_R = divided(totals_R2[:, 0], totals_R2[:, 1])
    return _interval(float(divided(*value_2)), values_R, sum(len(scores_N2) for _, scores_N2 in strata))


def divided(values: np.ndarray, over: np.ndarray) -> np.ndarray:
    """Return quotients, NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(over > 0, values / over, np.nan)
