"""Units as the tokens of a text tokenizer: what is written is read again, in as few tokens as can be."""

from itertools import product

import numpy as np
import pytest

from echox.errors import InputError
from echox.units.spelled import JOINER, SpelledUnits, parse_units


class Vocabulary:
    """The part of a tokenizer that spelling needs."""

    def __init__(self, pieces):
        self.names = [f"<|unit_{piece}|>" for piece in pieces]

    def get_vocab(self):
        return {"<|eot_id|>": 4, **{name: 10 + n for n, name in enumerate(self.names)}}

    def decode(self, ids, **_):
        return "".join(self.names[n - 10] for n in ids)


def units(*pieces):
    return SpelledUnits(Vocabulary(pieces), len(pieces), 1000)


def fewest(text, pieces):
    """The slow twin: every cut of a text into pieces."""
    if not text:
        return 0
    rests = [fewest(text[len(piece) :], pieces) for piece in pieces if text.startswith(piece)]
    return (
        1 + min((rest for rest in rests if rest is not None), default=None)
        if any(r is not None for r in rests)
        else None
    )


def test_units_are_written_in_the_fewest_tokens_and_read_again():
    pieces = ["▁1", "▁12", "2", "▁2", "▁1▁2", "▁12▁1", "1"]
    tokens = units(*pieces)
    for row in product((1, 2, 12, 21, 121), repeat=3):
        ids = tokens.encode(row)
        assert tokens.decode(ids) == list(row)
        assert len(ids) == fewest("".join(f"▁{unit}" for unit in row), pieces)
    assert [ids.tolist() for ids in tokens.encode_batch([np.array([1, 2]), np.array([], int)])] == [[14], []]


def test_tokens_of_whole_units_need_no_joiner():
    tokens = units("0", "12", "7")
    assert tokens.encode([7, 12, 0]) == [12, 11, 10] and tokens.decode([12]) == [7]
    with pytest.raises(InputError, match="no unit token spells '8'"):
        tokens.encode([8])


WORDS = ["1", "2", "12", "1_2", "12_1_2"]
CUT_WORDS = ["▁", "_", "1", "2", "▁1_2", "_12", "▁12_", "▁2▁1", "_2_1", "2_1"]


@pytest.mark.parametrize("pieces", [WORDS, CUT_WORDS])
def test_units_of_one_word_are_joined_by_a_line(pieces):
    """The word form of spec section 5, `837_81_194`."""
    tokens = units(*pieces)
    for row in product((1, 2, 12), repeat=4):
        ids = tokens.encode(row)
        assert tokens.decode(ids) == list(row)
        if pieces == WORDS:
            counts = [fewest("".join(f"_{unit}" for unit in row), [f"_{piece}" for piece in pieces])]
        else:
            texts = [f"▁{row[0]}{a}{row[1]}{b}{row[2]}{c}{row[3]}" for a, b, c in product("▁_", repeat=3)]
            counts = [fewest(text, pieces) for text in texts]
        assert len(ids) == min(counts)
    assert len(tokens.encode([1, 2, 12])) == 2


def test_a_number_as_long_as_an_answer_is_no_unit():
    assert parse_units(f"<|unit_{JOINER}7{JOINER}{'9' * 5000}|>") == [7]


def test_a_unit_that_no_token_spells_is_refused():
    with pytest.raises(InputError, match="no unit token spells"):
        units("▁1", "2").encode([1, 32, 1])
