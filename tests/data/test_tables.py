"""Tables: lines end where their writers end them, cells are stripped and as long as they are, and what is no table is named."""

import pytest

from echox.data.tables import answers_in, lines_of, table_rows
from echox.errors import InputError


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("a\n\nb\n", ["a", "", "b"]),
        ("a\r\nb\rc\r\n", ["a", "b c"]),
        ("a\rb\r", ["a", "b"]),
        ("a\u2028b\x85c\x0bd\ne", ["a\u2028b\x85c\x0bd", "e"]),
    ],
)
def test_lines_end_at_one_mark(text, lines):
    assert lines_of(text) == lines


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_are_read_by_the_names_of_their_columns(tmp_path, end):
    (tmp_path / "t.tsv").write_bytes(end.join(["\ufeff id \ttext", 'a \t"Hm\u2028', " \t", "b"]).encode())
    assert table_rows(tmp_path / "t.tsv", ("id",)) == [
        (2, {"id": "a", "text": '"Hm'}),
        (4, {"id": "b", "text": ""}),
    ]


def test_a_cell_may_be_long(tmp_path):
    (tmp_path / "t.tsv").write_text(f"id\ttext\na\t{'w' * 200_000}\n")
    assert len(table_rows(tmp_path / "t.tsv", ("id",))[0][1]["text"]) == 200_000


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "lacks the column id, text: its first line must name id, text, tab separated, and is ''."),
        ("id,text\n", "and is 'id,text'."),
        ("id\ttext\na\tb\tc\n", "line 2 has 3 fields for 2 columns: mend its tabs."),
    ],
)
def test_what_is_no_table_is_named(tmp_path, text, sentence):
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(InputError) as told:
        table_rows(tmp_path / "t.tsv", ("id", "text"))
    assert sentence in str(told.value)


def test_answers_stand_between_bars():
    assert answers_in("Anna|Anne | ") == ["Anna", "Anne"] and answers_in(" | ") == []
