"""Silence around a segment: cut the same however the samples come, pauses inside kept, sentences given room; fades."""

import numpy as np
import pytest

from echox.generate.pauses import (
    FADE_SECONDS,
    LEAD_SECONDS,
    SENTENCE_SECONDS,
    TAIL_SECONDS,
    TrimmedSpeech,
    trimmed,
    within,
)

RATE = 16_000


def tone(seconds):
    return (0.3 * np.sin(np.arange(int(seconds * RATE)) / 5)).astype(np.float32)


def silence(seconds):
    return np.zeros(int(seconds * RATE), np.float32)


@pytest.mark.parametrize(
    ("text", "tail"), [("It is Paris.", SENTENCE_SECONDS), ("The capital of France", TAIL_SECONDS)]
)
def test_the_ends_are_cut_and_the_pause_inside_stays(text, tail):
    wave = np.concatenate([silence(0.3), tone(0.5), silence(0.4), tone(0.2), silence(0.5)])
    heard = trimmed(wave, RATE, text)
    assert len(heard) == pytest.approx((LEAD_SECONDS + 0.5 + 0.4 + 0.2 + tail) * RATE, abs=0.021 * RATE)
    assert np.abs(heard).sum() == pytest.approx(np.abs(wave).sum(), rel=1e-5)  # nothing that was said is lost


def test_any_pieces_give_the_same():
    rng = np.random.default_rng(0)
    wave = np.concatenate([silence(0.21), tone(0.33), silence(0.07), tone(0.2), silence(0.4)])
    whole = trimmed(wave, RATE, "Yes.")
    for _ in range(20):
        cuts = np.sort(rng.integers(0, len(wave), size=int(rng.integers(0, 12))))
        speech = TrimmedSpeech(RATE)
        pieces = [speech.push(piece) for piece in np.split(wave, cuts)]
        assert np.array_equal(np.concatenate([*pieces, speech.flush("Yes.")]), whole)


def test_silence_that_is_cut_fades_so_that_joins_do_not_click():
    hum = np.full(int(0.3 * RATE), 0.004, np.float32)  # below what counts as said
    heard = trimmed(np.concatenate([hum, tone(0.2), hum]), RATE, "x")
    assert (
        heard[0] == heard[-1] == 0 and np.abs(np.diff(heard[:160])).max() < 1e-4 > np.abs(np.diff(heard[-160:])).max()
    )
    assert heard[200] == heard[-200] == np.float32(0.004)
    at_once = np.concatenate([tone(0.2), hum[:80]])  # nothing is cut
    np.testing.assert_array_equal(trimmed(at_once, RATE, "x"), at_once)


def test_short_and_silent_segments():
    assert len(trimmed(silence(0.0), RATE, "x")) == 0
    assert len(trimmed(silence(1.0), RATE, "x")) <= (TAIL_SECONDS + 0.01) * RATE
    click = np.concatenate([silence(0.5), tone(0.004)])
    assert np.abs(trimmed(click, RATE, "x")).max() > 0.1  # the last samples are no whole frame and are heard


def test_a_limit_fades_out_what_it_cuts_the_same_however_the_samples_come():
    fade, limit = int(FADE_SECONDS * RATE), RATE // 2
    wave = np.full(RATE, 0.5, np.float32)
    cut = within(wave, limit, RATE)
    assert len(cut) == limit and cut.dtype == np.float32
    assert (cut[:-fade] == 0.5).all() and (np.diff(cut[-fade:]) < 0).all() and cut[-1] < 0.01
    rng = np.random.default_rng(0)
    for _ in range(20):
        left, pieces = limit, []
        for piece in np.split(wave, np.sort(rng.integers(0, RATE, size=int(rng.integers(0, 12))))):
            pieces.append(within(piece, left, RATE))
            left -= len(pieces[-1])
        assert np.array_equal(np.concatenate(pieces), cut)
    assert np.array_equal(within(wave[:100], limit, RATE), wave[:100]) and len(within(wave, 0, RATE)) == 0
    assert len(within(wave, 10, RATE)) == 10
