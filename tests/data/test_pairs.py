"""Pairs: both sides matched by id, several voices a pair, every fault of a table told at once."""

import numpy as np
import pytest

from echox.audio import save_wav
from echox.data.pairs import COLUMNS, matched, read_pairs
from echox.data.tables import write_rows
from echox.errors import InputError


def test_voices_of_one_pair_share_its_target():
    found = matched([1, 2, 3], {"p": "P", "q": "Q"}, "target", ["p@a", "p@b", "q"])
    assert found == [(1, "P"), (2, "P"), (3, "Q")]


@pytest.mark.parametrize(
    ("targets", "sentence"), [({"p": 1}, r"1 pairs have no target \(q\)"), ({"p": 1, "q": 2, "r": 3}, "no source")]
)
def test_a_side_that_is_missing_is_named(targets, sentence):
    with pytest.raises(InputError, match=sentence):
        matched([1, 2], targets, "target", ["p", "q"])


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "said"):
        save_wav(tmp_path / f"{name}.wav", 0.1 * np.ones(4000, np.float32) * np.sin(np.arange(4000)), 16_000)
    return tmp_path


def test_a_table_is_read_as_it_was_written(folder):
    rows = [
        {"id": "a", "target_text": "one\ttwo\n", "source_text": "uno"},
        {"id": "b", "target_text": "x", "target_audio": "said.wav"},
    ]
    write_rows(folder / "test.tsv", COLUMNS, rows)
    first, second = read_pairs(folder / "test.tsv")
    assert (first.target_text, first.source_text, first.target_audio) == ("one two", "uno", None)
    assert first.audio == folder / "a.wav" and second.target_audio == folder / "said.wav"


def test_all_faults_are_told_at_once(folder):
    rows = [
        {"id": "a", "target_text": "x"},
        {"id": "a", "target_text": "y"},
        {"id": "c", "target_text": "z"},
        {"id": "b"},
    ]
    write_rows(folder / "bad.tsv", COLUMNS, rows)
    with pytest.raises(InputError, match=r"'a' is there twice; the recording .*c\.wav is missing; line 5 has no id"):
        read_pairs(folder / "bad.tsv")
    (folder / "long.tsv").write_text(f"id\ttarget_text\n\na\t{'x' * 200_000}\nc\tx\nc\t\n")
    with pytest.raises(InputError, match=r"c\.wav is missing; line 5 has no id or no target_text: correct them"):
        read_pairs(folder / "long.tsv")
    (folder / "empty.tsv").write_text("id\ttarget_text\n")
    with pytest.raises(InputError, match="holds no pair"):
        read_pairs(folder / "empty.tsv")
    (folder / "other.tsv").write_text("question\tanswers\nx\ty\n")
    with pytest.raises(InputError, match="lacks the column id, target_text: its first line must name"):
        read_pairs(folder / "other.tsv")
