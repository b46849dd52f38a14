"""Cuts that lose nothing where a piece must end, and phrases as they are said between pauses."""

import numpy as np
import pytest

from echox.features.cuts import cut_at_pauses, phrases

RATE = 16_000


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def silence(seconds):
    return np.zeros(int(seconds * RATE), np.float32)


@pytest.mark.parametrize("samples", [100, 16_000, 50_001])
def test_cuts_lose_nothing(samples):
    wave = noise(samples)
    pieces = cut_at_pauses(wave, 16_000)
    assert max(map(len, pieces)) <= 16_000
    np.testing.assert_array_equal(np.concatenate(pieces), wave)


def test_the_cut_is_in_the_pause():
    wave = np.concatenate([noise(12_000), np.zeros(4000, np.float32), noise(12_000, 1)])
    assert 12_000 <= len(cut_at_pauses(wave, 20_000)[0]) <= 16_000


@pytest.mark.parametrize("room", [0.0, 0.01])
def test_sentences_are_pieces_and_a_comma_is_no_end(room):
    said = [
        noise(2 * RATE),
        silence(0.6),
        noise(RATE, 1),
        silence(0.2),
        noise(RATE, 2),
        silence(0.6),
        noise(2 * RATE, 3),
    ]
    wave = np.concatenate(said)
    wave = wave + room * noise(len(wave), 4) / 0.1
    pieces = phrases(wave, 20 * RATE)
    assert [round(len(piece) / RATE, 1) for piece in pieces] == [2.3, 2.8, 2.3]
    np.testing.assert_array_equal(np.concatenate(pieces), wave)


@pytest.mark.parametrize("wave", [noise(3 * RATE), noise(300), np.r_[silence(0.9), noise(2 * RATE), silence(0.9)]])
def test_one_sentence_is_left_as_it_is(wave):
    assert [piece.tolist() for piece in phrases(wave, 20 * RATE)] == [wave.tolist()]


def test_of_a_long_silence_a_second_is_kept_and_a_short_word_has_no_piece_of_its_own():
    wave = np.concatenate([silence(9), noise(2 * RATE), silence(30), noise(RATE, 1), silence(0.6), noise(RATE // 5, 2)])
    assert [len(piece) / RATE for piece in phrases(wave, 20 * RATE)] == [4.0, 2.8]


@pytest.mark.parametrize("room", [0.0, 0.003])
def test_a_word_in_a_minute_of_silence_is_found(room):
    wave = np.concatenate([silence(30), noise(RATE), silence(30)])
    wave = wave + room * noise(len(wave), 1) / 0.1
    assert [len(piece) / RATE for piece in phrases(wave, 20 * RATE)] == [3.0]


def test_who_speaks_softly_beside_somebody_loud_is_not_cut_to_pieces():
    words = np.concatenate([np.r_[noise(RATE // 2, n), silence(0.2)] for n in range(6)])
    wave = np.r_[noise(4 * RATE, 7), silence(0.6), words / 16]  # 24 dB below
    wave = wave + 0.0025 * noise(len(wave), 8) / 0.1
    assert len(phrases(wave, 20 * RATE)) == 2


def test_no_phrase_is_longer_than_can_be_read():
    assert max(map(len, phrases(np.r_[noise(9 * RATE), silence(1), noise(9 * RATE)], 4 * RATE))) <= 4 * RATE
