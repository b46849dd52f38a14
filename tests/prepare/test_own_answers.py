"""The text model's own answers: resumed after half a line, split among processes, never mixed from two system texts."""

import json
import re

import pytest
import torch

from echox.data.manifest import read_jsonl, write_jsonl
from echox.errors import ConfigError, InputError
from echox.prepare import answers
from echox.prepare.answers import Recipe, run, segments
from echox.text.segmenter import PhraseSegmenter


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A recipe maker and the list of questions that the model was asked."""
    questions, seen = [{"id": f"q{n}", "question": f"Who {n}?", "answers": ["Ann"]} for n in range(5)], []
    write_jsonl(tmp_path / "questions.jsonl", questions)

    def answer(s2t, tokenizer, asked, system, limit):
        seen.extend(asked)
        return [f"{question[4:5]} is Ann." for question in asked]

    monkeypatch.setattr(answers, "load_tokenizer", lambda folder: None)
    monkeypatch.setattr(answers, "load_llm", lambda folder, place: torch.nn.Module())
    monkeypatch.setattr(answers, "settle_llm", lambda llm, place: None)
    monkeypatch.setattr(answers, "answer_typed", answer)
    monkeypatch.setattr(answers, "segments", lambda rows, tokenizer, segmenter: [])
    values = {
        "stage": "answers",
        "out": tmp_path / "out",
        "llm": tmp_path / "llm",
        "questions": tmp_path / "questions.jsonl",
    }
    return (lambda **changes: run(Recipe.parse(values | changes, "test"))), seen


def test_half_a_line_does_not_stop_the_rest(asked, tmp_path):
    made, seen = asked
    made()
    own = tmp_path / "out" / "own.jsonl"
    whole = own.read_text()
    own.write_text(whole[:-20])
    seen.clear()
    made()
    assert seen == ["Who 4?"] and own.read_text() == whole
    assert len(read_jsonl(tmp_path / "out" / "targets.jsonl")) == 5


def test_parts_join_to_what_one_process_makes(asked, tmp_path):
    made, seen = asked
    made(shard=(0, 2))
    assert seen == ["Who 0?", "Who 2?", "Who 4?"] and not (tmp_path / "out" / "targets.jsonl").exists()
    made(shard=(1, 2))
    made(out=tmp_path / "whole")
    parts, whole = (read_jsonl(tmp_path / name / "targets.jsonl") for name in ("out", "whole"))
    assert parts == whole and len(seen) == 10


def test_answers_under_another_system_text_or_to_another_question_are_not_used(asked, tmp_path):
    made, seen = asked
    made()
    with pytest.raises(ConfigError, match="another system"):
        made(system="Be rude.")
    rows = read_jsonl(tmp_path / "questions.jsonl")
    rows[2]["question"] = "Who else?"
    write_jsonl(tmp_path / "questions.jsonl", rows)
    seen.clear()
    made()
    assert seen == ["Who else?"]


def test_what_is_no_question_or_no_answer_is_named(asked, tmp_path):
    made, _ = asked
    (tmp_path / "questions.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(InputError, match="line 1 has no `id` or no `question`"):
        made()
    (tmp_path / "questions.jsonl").write_text("")
    with pytest.raises(InputError, match="is empty"):
        made()
    write_jsonl(tmp_path / "questions.jsonl", [{"id": "a", "question": "Who?", "answers": []}])
    made()
    (tmp_path / "out" / "own.jsonl").write_text(json.dumps(["no", "answer"]) + "\n")
    with pytest.raises(InputError, match="remove the line"):
        made()


@pytest.mark.parametrize("gold", ["Ann", ["Ann", 5], {"a": "Ann"}])
def test_gold_answers_that_are_no_list_of_texts_are_named_before_anything_is_asked(asked, tmp_path, gold):
    made, seen = asked
    write_jsonl(tmp_path / "questions.jsonl", [{"id": "a", "question": "Who?", "answers": gold}])
    with pytest.raises(InputError, match="answers of a are no list of texts"):
        made()
    assert not seen


def test_segments_are_cut_as_the_pack_says_and_written_as_they_are_said(monkeypatch):
    monkeypatch.setattr(answers, "encode", lambda tokenizer, text: re.findall(r"\s?\S+", text))
    monkeypatch.setattr(answers, "token_pieces", lambda tokenizer, pieces: pieces)
    rows = [{"id": "a", "answer": "The FBI had 35,104 people in 2019, and it is in Washington."}]
    whole = [row["text"] for row in segments(rows, None)]
    assert whole == [
        "The eff-bee-eye had thirty five thousand one hundred and four people in twenty nineteen,",
        "and it is in Washington.",
    ]
    early = [row["text"] for row in segments(rows, None, PhraseSegmenter(first_phrase=3, first_longest=4, early=1))]
    assert early[0] == "The eff-bee-eye had thirty five thousand one hundred and four" and "".join(early) != "".join(
        whole
    )


def test_small_talk_is_every_text_that_asks(asked, tmp_path):
    made, seen = asked
    write_jsonl(tmp_path / "talk.jsonl", [{"id": "a", "text": "How are you?"}, {"id": "b", "text": "Fine."}])
    made(talk=tmp_path / "talk.jsonl")
    assert seen[5:] == ["How are you?"]


def test_a_line_without_a_question_is_named_wherever_it_stands(asked, tmp_path):
    made, _ = asked
    with (tmp_path / "questions.jsonl").open("a") as file:
        file.write('{"id": "q5", "answers": ["Ann"]}\n')
    with pytest.raises(InputError, match="line 6 has no `id` or no `question`"):
        made(own_questions=5)
