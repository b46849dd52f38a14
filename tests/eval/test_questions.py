"""Questions files: what is read, and that every fault is told in one sentence before anything is loaded."""

import json
import os

import numpy as np
import pytest

from echox.audio import save_wav
from echox.errors import ConfigError, InputError
from echox.eval.boards.sets import default_scorer, find_local, load_questions
from echox.eval.questions import Item, fingerprint, load_question, read_corpus, read_questions, take, write_questions

HEAD = "id\tquestion\tanswers\taudio\n"


def write(folder, text, name="q.tsv"):
    """Writes a questions file and returns its path."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def wav(path):
    """Writes a short tone."""
    save_wav(path, 0.5 * np.sin(np.arange(8000) * 0.2), 16_000)


def test_a_file_is_read_with_answers_and_audio_places(tmp_path):
    path = write(tmp_path, HEAD + "a\tWho?\tJohn | Jon\t\nb\tWhere?\tNice\tx/b.flac\n\n")
    first, second = read_questions(path, tmp_path)
    assert first == Item("a", "Who?", ("John", "Jon"), tmp_path / "a.wav")
    assert second.audio == tmp_path / "x/b.flac" and second.answers == ("Nice",)


def test_audio_may_be_left_out_and_a_byte_order_mark_is_no_column(tmp_path):
    path = write(tmp_path, "\ufeffid\tquestion\tanswers\na\tWho?\tJohn\n")
    assert read_questions(path) == [Item("a", "Who?", ("John",), None)]
    with pytest.raises(InputError, match="missing"):
        read_questions(path, need_audio=True)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end_ends_a_question_and_a_separator_inside_does_not(tmp_path, end):
    (tmp_path / "q.tsv").write_bytes(end.join([HEAD.strip(), "a \tWho\u2028are you?\tJohn|Jon", ""]).encode())
    assert read_questions(tmp_path / "q.tsv", tmp_path) == [
        Item("a", "Who\u2028are you?", ("John", "Jon"), tmp_path / "a.wav")
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "lacks the column id, question, answers"),
        ("id,question,answers\na,b,c\n", "lacks the column"),
        ("id\tquestion\tanswer\na\tb\tc\n", "lacks the column answers"),
        (HEAD, "holds no questions"),
        (HEAD + "a\tWho?\tJohn\t\na\tWhen?\tNow\t\n", "'a' is there twice"),
        (HEAD + "\tWho?\tJohn\t\n", "line 2 has no id"),
        (HEAD + "a\t\tJohn\t\n", "has no question"),
        (HEAD + "a\tWho?\t | \t\n", "has no answers"),
        (HEAD + "a\tWho?\tJohn\tx\ty\tz\n", "6 fields for 4 columns"),
    ],
)
def test_faults_are_told(tmp_path, text, told):
    with pytest.raises(InputError, match=told.replace("|", r"\|")):
        read_questions(write(tmp_path, text), tmp_path)


def test_all_faults_come_at_once_and_missing_wavs_are_counted(tmp_path):
    rows = "".join(f"q{i}\tWho?\tJohn\t\n" for i in range(20))
    with pytest.raises(InputError, match=r"q0\.wav is missing.*and 13 more") as told:
        read_questions(write(tmp_path, HEAD + "x\t\tJohn\t\n" + rows), tmp_path, need_audio=True)
    assert "line 2 (x) has no question" in str(told.value)


def test_a_missing_file_folder_or_encoding_is_told(tmp_path):
    with pytest.raises(InputError, match=r"none\.tsv does not exist: check the path"):
        read_questions(tmp_path / "none.tsv")
    with pytest.raises(InputError, match="not a folder"):
        read_questions(write(tmp_path, HEAD), tmp_path / "nowhere")
    (tmp_path / "latin.tsv").write_bytes((HEAD + "a\tCafé?\tJohn\t\n").encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_questions(tmp_path / "latin.tsv")


def test_a_field_may_be_long_and_a_pipe_or_a_giant_is_refused(tmp_path):
    path = write(tmp_path, f"id\tquestion\tanswers\nq1\t{'w' * 200_000}\tyes\n")
    assert len(read_questions(path)[0].question) == 200_000
    os.mkfifo(tmp_path / "pipe.tsv")
    with path.open("wb") as file:
        file.truncate(1 << 31)
    for place in (tmp_path / "pipe.tsv", path, "/dev/zero"):
        with pytest.raises(InputError, match="pipe or a device|bytes, more than"):
            read_questions(place)


def test_shards_share_the_limited_questions_out():
    items = list(range(10))
    parts = [take(items, 8, f"{i}/3") for i in range(3)]
    assert sorted(sum(parts, [])) == list(range(8)) and parts[1] == [1, 4, 7]
    for wrong in ("3/3", "1", "a/b", "-1/3", "1/0"):
        with pytest.raises(ConfigError):
            take(items, None, wrong)
    with pytest.raises(ConfigError):
        take(items, 0)


def test_files_are_written_so_that_they_read_the_same_and_marked_by_content(tmp_path):
    items = [Item("a", "Who?", ("J", "K"), tmp_path / "a.wav")]
    write_questions(tmp_path / "out.tsv", items)
    assert read_questions(tmp_path / "out.tsv") == items
    assert fingerprint(items) != fingerprint([Item("a", "Who?", ("J",), None)])
    write_questions(tmp_path / "out.tsv", [Item("a", "Wh\to?", ("J",))])
    assert read_questions(tmp_path / "out.tsv") == [Item("a", "Wh o?", ("J",))]


def test_the_mark_changes_with_a_recording(tmp_path):
    wav(tmp_path / "a.wav")
    items = read_questions(write(tmp_path, HEAD + "a\tWho?\tJohn\t\n"))
    before = fingerprint(items)
    assert items[0].audio == tmp_path / "a.wav" and fingerprint(items) == before
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content[:-2] + b"\x01\x02")  # as long, another sound at its end
    assert fingerprint(items) != before


def test_a_typed_run_and_a_spoken_run_have_one_mark(tmp_path):
    wav(tmp_path / "a.wav")
    path = write(tmp_path, HEAD + "a\tWho?\tJohn\t\n")
    assert fingerprint(read_questions(path)) == fingerprint(read_questions(path, None, need_audio=True))


def test_other_harnesses_items_are_read_by_name(tmp_path):
    (tmp_path / "audio").mkdir()
    wav(tmp_path / "audio" / "1.wav")
    path = write(tmp_path, '{"WavPath": "1.wav", "question": "Who?", "answer": "Ann"}\n', "items.jsonl")
    (item,), name = load_questions(path, tmp_path / "audio", "", None, True, "ultraeval")
    assert item.answers == ("Ann",) and item.audio == tmp_path / "audio" / "1.wav" and name == "items.jsonl"
    with pytest.raises(InputError, match="missing"):
        load_questions(path, None, "", None, True, "ultraeval")
    with pytest.raises(ConfigError, match="no item format"):
        load_questions(path, None, "", None, True, "squad")


def test_a_suite_brings_its_boards_rule():
    found = {name: default_scorer(name) for name in ("mmsu", "openbookqa", "alpacaeval", "sd-qa", "trivia-qa", "")}
    assert list(found.values()) == [
        *("voicebench-mcq", "voicebench-mcq", "voicebench-open", "voicebench-qa", "qa-exist-match", "qa-exist-match")
    ]


def test_suites_come_from_a_local_folder(tmp_path):
    wav(tmp_path / "a.wav")
    write(tmp_path, HEAD + "a\tWho?\tJohn\t\n", "web-questions.tsv")
    items, name = load_questions(None, None, "web-questions", tmp_path, True)
    assert name == "web-questions" and items[0].audio == tmp_path / "a.wav"
    with pytest.raises(InputError, match="no copy of trivia-qa"):
        find_local(tmp_path, "trivia-qa")
    with pytest.raises(ConfigError, match="choose from llama-questions"):
        load_questions(None, None, "squad", tmp_path, True)
    with pytest.raises(ConfigError, match="either"):
        load_questions(None, None, "", None, True)


def test_utterances_of_a_corpus_are_items_with_the_part_of_a_file_that_is_theirs(tmp_path):
    wav(tmp_path / "a.wav")
    np.save(tmp_path / "shard.npy", np.arange(20, dtype=np.int16))
    lines = '{"id": "a", "audio": "a.wav", "samples": 8000, "sample_rate": 16000, "text": "hello"}\n'
    for name, start in (("b", 0), ("c", 8)):
        record = {"id": name, "audio": "shard.npy", "start": start, "samples": 8, "sample_rate": 16000, "text": name}
        lines += json.dumps(record) + "\n"
    manifest = write(
        tmp_path, lines + lines.split("\n")[0].replace("hello", "").replace('"a"', '"d"') + "\n", "m.jsonl"
    )
    whole, first, second = read_corpus(manifest)  # d has no words
    assert (whole.id, whole.question, len(load_question(whole))) == ("a", "hello", 8000)
    assert first.answers != second.answers
    np.testing.assert_array_equal(load_question(second) * 32768, np.arange(8, 16))
    longer = write(tmp_path, lines.replace("hello", "hello there"), "m.jsonl")  # of the same name
    assert fingerprint(read_corpus(longer)) != fingerprint([whole, first, second])
    (tmp_path / "shard.npy").unlink()
    with pytest.raises(InputError, match="shard.npy is missing"):
        read_corpus(longer)
