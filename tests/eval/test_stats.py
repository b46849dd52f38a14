"""Intervals: the fast bootstrap against its slow twin, coverage, pairing, and what cannot be formed."""

import numpy as np
import pytest

from echox.eval import stats


def resample_means_reference(scores_NA, resamples, seed):
    """Return what `resample_means` does, one resample at a time; the twin that the tests compare it with."""
    n = len(scores_NA)
    generator = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, stats._CHUNK):
        for draw in generator.integers(0, n, size=(min(stats._CHUNK, resamples - start), n)):
            means.append([sum(scores_NA[i, arm] for i in draw) / n for arm in range(scores_NA.shape[1])])
    return np.array(means)


def test_the_fast_bootstrap_agrees_with_its_slow_twin():
    scores = np.random.default_rng(3).random((7, 2))
    fast = stats.resample_means(scores, 700, seed=5)  # more than one chunk
    assert np.allclose(fast, resample_means_reference(scores, 700, seed=5))


def test_the_same_seed_gives_the_same_interval_and_another_does_not():
    scores = np.random.default_rng(0).random((50, 1))
    first, again, other = (stats.resample_means(scores, 500, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all() and not (first == other).all()
    assert stats.mean(scores[:, 0]) == stats.mean(scores[:, 0])


def test_a_mean_of_zeros_and_ones_has_the_binomial_width():
    found = stats.mean(np.array([0.0] * 300 + [1.0] * 200))
    half = 1.96 * np.sqrt(0.4 * 0.6 / 500)
    assert found.value == 0.4 and found.n == 500
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)


def test_pairing_makes_the_difference_of_like_arms_sharp():
    generator = np.random.default_rng(1)
    hard = (generator.random(400) < 0.5).astype(float)
    same = stats.difference(hard, hard)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    shuffled = stats.difference(hard, generator.permutation(hard))
    assert shuffled.low < 0 < shuffled.high and shuffled.high - shuffled.low > 0.1


def test_differences_and_ratios_by_hand():
    first, second = np.array([1, 1, 0, 0.0]), np.array([1, 0, 0, 0.0])
    assert stats.difference(second, first).value == -0.25
    assert stats.ratio(second, first).value == 0.5
    assert stats.ratio(np.array([1, 0]), np.array([2, 8])).value == pytest.approx(
        0.1
    )  # pooled, not the mean of 0.5 and 0


def test_nothing_is_nan_not_an_error():
    assert np.isnan(stats.mean(np.array([])).value)
    assert np.isnan(stats.ratio(np.ones(3), np.zeros(3)).value)
