"""Each perturbation does what its numbers say."""

import numpy as np
import pytest

from echox.audio import SAMPLE_RATE
from echox.prepare.perturb import (
    add_noise,
    at_peak,
    babble,
    coloured_noise,
    perturb,
    power,
    room_response,
    telephone,
)
from echox.prepare.recipe import Perturbation


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE).astype(np.float32)


def test_noise_has_the_asked_ratio(rng):
    clean = tone(440)
    for snr in (0.0, 5.0, 30.0):
        noise = add_noise(clean, coloured_noise(len(clean), "white", rng), snr) - clean
        assert abs(10 * np.log10(power(clean) / power(noise)) - snr) < 0.1


def test_pink_noise_falls_with_frequency(rng):
    spectrum = np.abs(np.fft.rfft(coloured_noise(SAMPLE_RATE, "pink", rng))) ** 2
    low, high = spectrum[100:200].mean(), spectrum[1600:3200].mean()
    assert 8 < low / high < 32  # 1 / f: 16 times
    white = np.abs(np.fft.rfft(coloured_noise(SAMPLE_RATE, "white", rng))) ** 2
    assert 0.6 < white[100:200].mean() / white[1600:3200].mean() < 1.6


def test_babble_is_made_of_its_talkers(rng):
    mix = babble(SAMPLE_RATE, [tone(500), tone(900)], rng)
    spectrum = np.abs(np.fft.rfft(mix))
    assert len(mix) == SAMPLE_RATE and set(np.argsort(spectrum)[-2:]) <= {500, 900, 499, 501, 899, 901}


def test_room_rings_after_the_sound(rng):
    response = room_response(0.3, rng)
    assert response[0] == 1.0 and len(response) == int(0.3 * SAMPLE_RATE)
    early, late = power(response[200:1000]), power(response[-1000:])
    assert 10 * np.log10(early / late) > 35


def test_telephone_keeps_the_middle_of_the_band_only():
    for hertz, passed in ((1000, True), (100, False), (6000, False)):
        ratio = power(telephone(tone(hertz))) / power(tone(hertz))
        assert (ratio > 0.7) if passed else (ratio < 0.05)


def test_level_and_silence(rng):
    assert abs(np.abs(at_peak(tone(300), -20)).max() - 0.1) < 1e-4
    settings = Perturbation(
        noise_share=0, room_share=0, telephone_share=0, peak_dbfs=(-6, -6), silence_seconds=(0.25, 0.25)
    )
    wave, done = perturb(tone(300), settings, (), rng)
    assert len(wave) == int(1.5 * SAMPLE_RATE) and done == {"peak_dbfs": -6.0}
    assert not wave[: SAMPLE_RATE // 4].any() and not wave[-SAMPLE_RATE // 4 :].any()


def test_everything_at_once_is_finite_and_repeats():
    settings = Perturbation(noise_share=1, room_share=1, telephone_share=1)
    for wave in (tone(300), np.zeros(SAMPLE_RATE, dtype=np.float32)):
        runs = [perturb(wave, settings, [tone(500)], np.random.default_rng(5)) for _ in range(2)]
        np.testing.assert_array_equal(runs[0][0], runs[1][0])
        assert np.isfinite(runs[0][0]).all() and runs[0][0].dtype == np.float32
        assert {"noise", "snr_db", "room_seconds", "telephone", "peak_dbfs"} == set(runs[0][1])
