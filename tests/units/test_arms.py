"""Random segmentation: the same units, the same lengths, other places, the same for the same sequence."""

import numpy as np

from echox.units.arms import RandomWords
from echox.units.tokenizer import SPECIAL_TOKENS
from tests.tiny_translator import UNITS, unit_language


def test_random_words_spell_the_same_units_within_the_vocabulary():
    language, rng = unit_language(), np.random.default_rng(1)
    rows = [np.array([u for u in rng.integers(0, UNITS, 30)]) for _ in range(20)]
    rows = [row[np.r_[True, row[1:] != row[:-1]]] for row in rows]
    words = RandomWords(language, rows)
    spelt = {number: word for word, number in words.numbers.items()}
    assert words.vocab_size <= language.vocab_size and min(spelt) == len(SPECIAL_TOKENS)
    for row, tokens in zip(rows, words.encode_batch(rows), strict=True):
        assert [unit for token in tokens for unit in spelt[int(token)]] == row.tolist()
    again = RandomWords(language, rows).encode_batch(rows)
    assert words.encode_batch([np.array([], np.int64)])[0].tolist() == []
    assert all(np.array_equal(a, b) for a, b in zip(words.encode_batch(rows), again, strict=True))


def test_lengths_are_those_of_the_language_in_another_order():
    language = unit_language()
    row = np.tile([0, 1, 2, 3, 4, 5], 8)
    lengths = sorted(len(language.word(int(t))) for t in language.encode_batch([row])[0])
    ends = sorted(RandomWords(language, [row]).boundaries(row))
    assert sorted(np.diff([0, *ends, len(row)]).tolist()) == lengths
