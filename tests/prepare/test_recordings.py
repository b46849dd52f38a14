"""A table and a folder of one's own sound files become a corpus that every stage reads."""

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from echox.commands.prepare import app
from echox.data.example import answers_of
from echox.data.manifest import question_id, read_audio, read_manifest, write_shards
from echox.data.states import records_of
from echox.errors import InputError
from echox.eval.questions import read_questions
from echox.prepare.recordings import write_recordings


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "my recordings é"
    home.mkdir()
    for name, seconds, rate in (("a", 1, 16_000), ("b", 2, 22_050), ("long", 40, 8_000)):
        soundfile.write(home / f"{name}.wav", 0.2 * np.sin(np.arange(seconds * rate) * 0.1), rate)
    (home / "broken.wav").write_bytes(b"RIFF")
    return home


def table(folder, *lines):
    (folder / "table.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "table.tsv"


def test_a_questions_file_and_its_recordings(folder, tmp_path, caplog):
    rows = ["id\tquestion\tanswers\taudio", "a\tWho?\tAnna | Anne\t", "2\tWhen?\tAt nine\tb.wav"]
    rows += [f"{name}\tWhat?\tThis\t" for name in ("broken", "missing", "long")] + ["c\t\tThat\ta.wav"]
    out = tmp_path / "out" / "asked"
    done = CliRunner().invoke(
        app, ["recordings", str(table(folder, *rows)), "--audio-dir", str(folder), "--out", str(out)]
    )
    assert done.exit_code == 0 and done.output == f"{out}  2 recordings\n"
    assert "2 missing, silent or unreadable, 1 over 28 s, 1 without an id or a text" in caplog.text
    first, second = read_manifest(out / "manifest.jsonl")
    assert list(records_of(out)) == [first, second]
    assert (first["text"], first["question"], first["answers"]) == ("Who?", "Who?", ["Anna", "Anne"])
    assert len(read_audio(second, out)) == 32_000 and second["sample_rate"] == 16_000
    assert answers_of(out / "manifest.jsonl") == {"a": "Anna", "2": "At nine"}


def test_questions_are_read_as_they_are_measured(folder, tmp_path, caplog):
    rows = [" id \tquestion\ttext\tanswers\taudio", "a \tWho?\tWho is it\tAnna|Anne\t", "a@2\tWhen?\t\tAt nine\tb.wav"]
    rows += ["b\tWhy?\tWhy\t | \t", "\tWhat?\tWhat\tThis\ta.wav", "\tWhat?\tWhat\tThat\tb.wav"]
    place = table(folder, *rows)
    assert write_recordings(place, folder, tmp_path / "asked") == 2
    assert "1 without an answer" in caplog.text and "2 without an id or a text" in caplog.text
    first, second = read_manifest(tmp_path / "asked" / "manifest.jsonl")
    assert (first["id"], first["question"], first["text"], second["text"]) == ("a", "Who?", "Who is it", "When?")
    kept = [rows[0], *rows[1:3]]
    asked = read_questions(table(folder, *kept), folder)
    assert [tuple(one["answers"]) for one in (first, second)] == [one.answers for one in asked]
    assert (
        [question_id(one) for one in (first, second)]
        == ["a", "a@2"]
        == list(answers_of(tmp_path / "asked" / "manifest.jsonl"))
    )
    with pytest.raises(InputError, match="gives the id 'a' twice"):
        write_recordings(table(folder, "id\ttext", "a\tOne.", "a \tTwo."), folder, tmp_path / "out")


def test_texts_without_questions(folder, tmp_path):
    assert write_recordings(table(folder, "id\ttext", "a\tGood morning."), folder, tmp_path / "said") == 1
    (record,) = records_of(tmp_path / "said")
    assert record["text"] == "Good morning." and "question" not in record


def test_a_voice_without_words(folder, tmp_path):
    assert write_recordings(table(folder, "id", "a", "b"), folder, tmp_path / "said") == 2
    assert not any("text" in record for record in records_of(tmp_path / "said"))


def test_tables_that_cannot_be_read(folder, tmp_path):
    with pytest.raises(InputError, match=r"lacks the column id: its first line must name id, tab separated, and is "):
        write_recordings(table(folder, "a.wav\tGood morning."), folder, tmp_path / "out")
    with pytest.raises(InputError, match=r"gives the id 'a' twice: give every recording its own\."):
        write_recordings(table(folder, "id\ttext", "a\tOne.", "a\tTwo."), folder, tmp_path / "out")
    with pytest.raises(InputError, match=r"none of the recordings can be used \(1 missing"):
        write_recordings(table(folder, "id\ttext", "z\tOne."), folder, tmp_path / "out")
    with pytest.raises(InputError, match=r"none is no folder: give that of the recordings\."):
        write_recordings(table(folder, "id\ttext", "a\tOne."), tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shards_of_a_longer_corpus_are_never_mixed_in(tmp_path):
    record = {"audio": "a.wav", "samples": 1, "sample_rate": 16_000}
    for _ in range(2):  # its own files are written again
        write_shards(tmp_path, [{"id": str(number)} | record for number in range(501)])
    assert len(list(records_of(tmp_path))) == 501
    with pytest.raises(InputError, match=r"shard-00001\.jsonl of another corpus"):
        write_shards(tmp_path, [{"id": "0"} | record])
