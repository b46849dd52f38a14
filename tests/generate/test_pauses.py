"""Silence around a segment: cut the same however the samples come, pauses inside kept, sentences given room."""

import numpy as np
import pytest

from echox.generate.pauses import LEAD_SECONDS, SENTENCE_SECONDS, TAIL_SECONDS, TrimmedSpeech, tail_of, trimmed

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
        speech = TrimmedSpeech(RATE, tail_of("Yes."))
        pieces = [speech.push(piece) for piece in np.split(wave, cuts)]
        assert np.array_equal(np.concatenate([*pieces, speech.flush()]), whole)


def test_short_and_silent_segments():
    assert len(trimmed(silence(0.0), RATE, "x")) == 0
    assert len(trimmed(silence(1.0), RATE, "x")) <= (TAIL_SECONDS + 0.01) * RATE
    click = np.concatenate([silence(0.5), tone(0.004)])
    assert np.abs(trimmed(click, RATE, "x")).max() > 0.1  # the last samples are no whole frame and are heard
