"""Spoken sentences: units go with the segment in which their middle lies; shards come back as they were written."""

import numpy as np
import pytest

from echox.data.sentences import Sentence, as_arrays, read_sentences
from echox.errors import InputError

UNITS_T = np.array([7, 7, 7, 3, 3, 9, 9, 9, 4, 4, 1, 1, 8, 8], np.int16)
SENTENCE = Sentence("It is Paris, you see.", UNITS_T, np.array([0, 3, 6, 10, 12], np.int32))


@pytest.mark.parametrize(
    ("texts", "parts"),
    [
        (["It is Paris, you see."], [[7, 3, 9, 4, 1, 8]]),
        (["It is", " Paris,", " you see."], [[7, 3], [9, 4], [1, 8]]),  # 6 lies in the first half of a unit
        (["It is Paris, you", " see."], [[7, 3, 9, 4, 1], [8]]),
    ],
)
def test_units_are_parted_where_words_begin(texts, parts):
    assert [part.tolist() for part in SENTENCE.parts(texts)] == parts


def test_shards_come_back_as_they_were_written(tmp_path):
    unknown = Sentence("", np.array([5, 5], np.int16), np.zeros(0, np.int32))
    both = [unknown, SENTENCE, SENTENCE]
    offsets = np.cumsum([0, *(len(one.units_T) for one in both)])
    units = np.concatenate([one.units_T for one in both])
    np.savez(tmp_path / "shard-00000.npz", units=units, unit_offsets=offsets, **as_arrays(both))
    for one in (found := read_sentences([tmp_path])):
        assert one.text == SENTENCE.text
        np.testing.assert_array_equal(one.units_T, UNITS_T)
        np.testing.assert_array_equal(one.begins, SENTENCE.begins)
    assert len(found) == 2
    whole = {"units": units, "unit_offsets": offsets, **as_arrays(both)}
    words = {"begins": whole["begins"][1:], "word_offsets": whole["word_offsets"] - (whole["word_offsets"] > 0)}
    for broken, problem in (
        ({"texts": whole["texts"][1:]}, "holds 2 texts, 3 rows of units"),
        (words, "a text has other words than beginnings"),
    ):
        np.savez(tmp_path / "shard-00001.npz", **whole | broken)
        with pytest.raises(InputError, match=f"shard-00001.npz is damaged: .*{problem}"):
            read_sentences([tmp_path])
    np.savez(tmp_path / "shard-00001.npz", units=units, unit_offsets=offsets)  # of an older run
    with pytest.raises(InputError, match="holds no shards that say where words begin: delete it and make it anew"):
        read_sentences([tmp_path])
    (tmp_path / "shard-00001.npz").unlink()
    np.savez(tmp_path / "shard-00000.npz", units=units[:2], unit_offsets=offsets[:2], **as_arrays([unknown]))
    with pytest.raises(InputError, match="holds no sentence of which it is known"):
        read_sentences([tmp_path])
