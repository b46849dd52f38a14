"""Items of other harnesses in: one small file in each publisher's shape."""

import json

import pytest

from echox.errors import ConfigError, InputError
from echox.eval.boards.sets import load_questions, read_items


def lines(path, *records):
    """Writes JSON lines and returns the path."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_voicebench_items(tmp_path):
    path = lines(tmp_path / "v.jsonl", {"prompt": "Capital?", "reference": "Paris", "audio": {"path": "a.wav"}})
    (item,) = read_items(path, "voicebench")
    assert (item.id, item.question, item.answers, item.audio) == ("0", "Capital?", ("Paris",), tmp_path / "a.wav")


def test_voicebench_sets_without_references_have_no_answers(tmp_path):
    (item,) = read_items(lines(tmp_path / "v.jsonl", {"prompt": "Tell me a story"}), "voicebench")
    assert item.answers == () and item.audio is None


def test_ultraeval_items(tmp_path):
    record = {"WavPath": "w/1.wav", "question": "Who?", "answer": '["Ann", "Anne"]'}
    (item,) = read_items(lines(tmp_path / "u.jsonl", record), "ultraeval")
    assert item.answers == ("Ann", "Anne") and item.audio == tmp_path / "w/1.wav"


def test_uro_items(tmp_path):
    records = [
        {"id": 7, "source_wav": "wav/7.wav", "source_text": "Two plus two?", "target_text": "4"},
        {"id": 8, "source_wav": "wav/8.wav", "source_text": "Say hello", "target_text": ["hello", "hi"]},
    ]
    first, second = read_items(lines(tmp_path / "t.jsonl", *records), "uro")
    assert (first.id, first.answers, second.answers) == ("7", ("4",), ("hello", "hi"))


def test_openaudiobench_tables(tmp_path):
    place = tmp_path / "eval_datas" / "web_questions"
    (place / "audios").mkdir(parents=True)
    (place / "audios" / "w.mp3").write_bytes(b"x")
    (place / "web_questions.csv").write_text("question,answers,audio_filename\nwhere is it?,Nice;Nizza,w.mp3\n")
    (item,), name = load_questions(None, None, "web-questions", tmp_path, True)
    assert item.answers == ("Nice", "Nizza") and item.audio == place / "audios" / "w.mp3" and name == "web-questions"


def test_wrong_formats_are_told(tmp_path):
    path = lines(tmp_path / "x.jsonl", {"q": "Who?"})
    with pytest.raises(InputError, match="none of the columns prompt"):
        read_items(path, "voicebench")
    with pytest.raises(ConfigError, match="choose from voicebench"):
        read_items(path, "squad")
