"""Windows of joined speech: a function of the seed and the step, never longer than asked, text and sound together."""

import numpy as np
import pytest

from echox.errors import InputError
from echox.prepare.joined_speech import JoinedSettings, JoinedSpeech, nothing_said
from echox.train.toy import WORD_SAMPLES, write_corpus


@pytest.fixture
def corpus(tmp_path):
    rows = [{"id": f"u{n}", "text": " ".join(["river"] * (1 + n % 5))} for n in range(12)]
    return write_corpus(tmp_path / "user", rows, "user")


def speech(corpus, **settings):
    return JoinedSpeech(JoinedSettings(corpora=[{"path": corpus}], **settings), str.upper, seed=3)


def test_a_batch_is_a_function_of_its_number(corpus):
    first, again = speech(corpus)[5], speech(corpus)[5]
    assert [w.text for w in first] == [w.text for w in again]
    assert all(np.array_equal(a.wave_S, b.wave_S) for a, b in zip(first, again, strict=True))
    assert any(a.text != b.text for a, b in zip(first, speech(corpus)[6], strict=False))


def test_windows_hold_what_their_text_says_and_no_more_than_fits(corpus):
    joined = speech(corpus, perturbed_share=0.0, nothing_share=0.0, gap_seconds=(0.0, 0.0))
    for step in range(8):
        for window in joined[step]:
            assert len(window.wave_S) <= 29 * 16_000
            assert len(window.wave_S) == WORD_SAMPLES * len(window.text.split())
            assert window.text == window.text.upper()
    texts = [window.text for step in range(8) for window in joined[step]]
    assert any(len(text.split()) > 5 for text in texts)  # more than one utterance


def test_nothing_said_has_no_text(corpus):
    assert all(window.text == "" for window in speech(corpus, nothing_share=1.0)[0])
    for seed in range(20):
        wave = nothing_said(1.0, np.random.default_rng(seed))
        assert wave.shape == (16_000,) and np.isfinite(wave).all() and np.abs(wave).max() <= 0.51


def test_a_corpus_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="manifest.jsonl is missing: make it first"):
        speech(tmp_path / "none")
