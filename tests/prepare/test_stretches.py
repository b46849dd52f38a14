"""Stretches of words are cut where it is quiet, and hold the words that stand in them."""

import numpy as np

from echox.prepare.stretches import FADE, Word, stretches

RATE = 16_000
TEXTS = (" one", " two", " three", " four,", " five.")


def recording(pause=0.1, probability=0.9):
    """0.4 s of noise a word, louder from word to word, and so much silence between two; with its words."""
    rng, parts, words, at = np.random.default_rng(0), [np.zeros(RATE // 2)], [], 0.5
    for level, text in enumerate(TEXTS, start=1):
        words.append(Word(text, at + 0.03, at + 0.37, probability))  # times are never exact
        parts += [0.1 * level * rng.choice([-1.0, 1.0], RATE * 2 // 5), np.zeros(int(pause * RATE))]
        at += 0.4 + pause
    return np.concatenate([*parts, np.zeros(RATE // 2)]).astype(np.float32), words


def test_every_stretch_holds_its_words_and_no_others():
    wave, words = recording()
    found = list(stretches(wave, words, 200, np.random.default_rng(1)))
    assert {len(text.split()) for _, text in found} == {1, 2, 3, 4, 5} and len(found) == 15  # each once
    for piece, text in found:
        first = next(n for n, one in enumerate(TEXTS, start=1) if text.startswith(one.strip()))
        levels = np.unique(np.round(np.abs(piece[FADE:-FADE]), 3))
        expected = [round(0.1 * (first + n), 3) for n in range(len(text.split()))]
        np.testing.assert_allclose(levels[levels > 0], expected, atol=1e-6)
        assert text == "".join(TEXTS[first - 1 : first - 1 + len(expected)]).strip()
        assert piece[0] == 0 and piece[-1] == 0


def test_words_that_run_into_one_another_or_are_unsure_are_not_parted():
    wave, words = recording(pause=0)
    whole = {text for _, text in stretches(wave, words, 200, np.random.default_rng(1))}
    assert whole == {"one two three four, five."}
    wave, words = recording(probability=0.5)
    assert not list(stretches(wave, words, 200, np.random.default_rng(1)))
    assert not list(stretches(wave, [], 200, np.random.default_rng(1)))
