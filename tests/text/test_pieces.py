"""A joint vocabulary: fixed ids, pauses, round trips; and the cleaning of both sides."""

import pytest

from echox.errors import ConfigError, ModelError
from echox.text.cleaning import BLANK_MARK, SOURCE, Cleaning, clean
from echox.text.pieces import BLANK, SPECIAL, Pieces

TEXTS = ["the cat sees a dog", "el gato ve un perro", "the dog sees the cat", "¡El perro ve al gato!"] * 5


@pytest.fixture(scope="module")
def pieces():
    return Pieces.train(TEXTS, 28)


def test_texts_come_back(pieces, tmp_path):
    pieces.save(tmp_path)
    again = Pieces.load(tmp_path)
    for text in TEXTS:
        ids = again.encode(text)
        assert ids == pieces.encode(text) and again.decode([0, *ids, 2, 1]) == text
        assert min(ids) >= len(SPECIAL)
    assert pieces.starts_word[pieces.encode("the")[0]] and not any(pieces.starts_word[:4])


def test_pauses_become_the_blank(pieces):
    text = clean("The cat, the dog.", Cleaning(lower=True, punctuation="blank"))
    ids = pieces.encode(text)
    assert ids.count(BLANK) == 2 and ids[-1] == BLANK and pieces.decode(ids) == "the cat the dog"


def test_cleaning_drops_what_is_not_said():
    assert clean("  Don\u2019t 'go', rock\u2019n\u2019roll — ＯＫ?", SOURCE) == "don't go rock'n'roll ok"
    assert clean("¿Sí?", Cleaning()) == "¿Sí?"
    assert BLANK_MARK not in clean(f"a{BLANK_MARK}b", SOURCE)


def test_what_is_no_vocabulary_is_said(tmp_path):
    with pytest.raises(ConfigError, match="no vocabulary of 9999 pieces"):
        Pieces.train(TEXTS, 9999)
    (tmp_path / "vocabulary.model").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="no SentencePiece model"):
        Pieces.load(tmp_path)
    with pytest.raises(ModelError, match="does not exist"):
        Pieces.load(tmp_path / "absent.model")
