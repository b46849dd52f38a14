"""Filterbank: normalised per utterance and bin, masks of bounded size."""

import numpy as np
import torch

from echox.features.filterbank import filterbank, spec_augment


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def test_every_bin_has_mean_nought_and_deviation_one_whatever_the_level():
    quiet, loud = filterbank(noise(16_000)), filterbank(5 * noise(16_000))
    assert quiet.shape == (100, 80)
    torch.testing.assert_close(quiet.mean(0), torch.zeros(80), atol=1e-5, rtol=0)
    torch.testing.assert_close(quiet.std(0), torch.ones(80), atol=1e-4, rtol=0)
    torch.testing.assert_close(quiet, loud, atol=1e-3, rtol=0)


def test_a_very_short_sound_has_features():
    assert len(filterbank(noise(200))) >= 2


def test_masks_are_one_band_and_one_span_and_leave_the_original():
    features = torch.ones(200, 80)
    masked = spec_augment(features, np.random.default_rng(3), 27, 100)
    assert features.min() == 1
    bins, frames = int((masked.sum(0) == 0).sum()), int((masked.sum(1) == 0).sum())
    assert 0 < bins <= 27 and 0 < frames <= 40
    assert torch.equal(masked, spec_augment(features, np.random.default_rng(3), 27, 100))
