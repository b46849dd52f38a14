"""Spoken sets and what is kept on them: the choice, the recordings, the numbers by hand, and runs that go on."""

import json

import numpy as np
import pytest
from eval_fakes import FakeJudge, FakeSubject, call

from echox.audio import load_audio
from echox.errors import ConfigError, InputError
from echox.eval import stats
from echox.eval.boards.sets import read_items
from echox.eval.questions import Item
from echox.eval.results import Results
from echox.eval.scorers.answers import find_scorer
from echox.eval.tasks import spoken_set
from echox.eval.tasks.qa import QaRun, copy_typed, run_arms
from echox.eval.tasks.qa_tables import retention_table
from echox.eval.tasks.spoken_set import CONDITIONS, KINDS, RIGHT, WRONG, choose, make_set, read_set, read_typed
from echox.prepare.voices import ToneVoice

SCORER = find_scorer("qa-exist-match")


@pytest.fixture
def typed(tmp_path):
    """Eight typed answers of which the first three are right."""
    path = tmp_path / "typed.jsonl"
    rows = [{"id": f"q{n}", "question": f"what is number {n}", "answers": ["yes", "a|b"]} for n in range(8)]
    answers = ["Yes."] * 3 + ["No."] * 5
    lines = [json.dumps(row | {"answer": answer}) + "\n" for row, answer in zip(rows, answers, strict=True)]
    path.write_text("".join(lines))
    return path


def made(folder, typed, counts=(3, 3), conditions=",".join(CONDITIONS), **options):
    return make_set(folder, read_typed([typed], SCORER), counts, ToneVoice, conditions, **options)


def test_a_choice_takes_turns_and_a_longer_one_begins_with_it(typed):
    found = read_typed([typed], SCORER)
    assert [item.kind for item in found] == [RIGHT] * 3 + [WRONG] * 5
    few, many = choose(found, 2, 2), choose(found, 3, 5)
    assert [item.kind for item in few] == [*KINDS, *KINDS] and many[:4] == few and len(many) == 8
    assert choose(found, 3, 5, seed=1) != many


def test_a_set_holds_the_same_utterances_under_every_condition(tmp_path, typed):
    folder = tmp_path / "set"
    assert len(made(folder, typed)) == 6
    waves = {name: load_audio(folder / name / "q0.wav") for name in CONDITIONS}
    assert len({len(wave) for wave in waves.values()}) == 1
    clean = waves["clean"] / np.abs(waves["clean"]).max()
    noise = waves["noise"] / (waves["noise"] @ clean / (clean @ clean)) - clean
    assert 10 * np.log10((clean @ clean) / (noise @ noise)) == pytest.approx(10, abs=0.3)
    spectrum = np.abs(np.fft.rfft(waves["telephone"]))
    assert spectrum[len(clean) // 4 :].max() < 0.01 * spectrum.max()  # nothing above 4 kHz
    questions, name, pool = read_set(folder, "noise")
    assert pool == {RIGHT: 3, WRONG: 5} and name == "set, noise"
    assert {item.audio for item in questions} == set((folder / "noise").glob("*.wav"))
    assert questions[0].answers == ("yes", "a/b") and questions[0].kind == RIGHT


def test_a_set_goes_on_where_it_was_stopped_and_shards_make_it_together(tmp_path, typed, monkeypatch):
    folder, whole = tmp_path / "set", tmp_path / "whole"
    made(folder, typed, shard="0/2")
    with pytest.raises(InputError, match="not a finished spoken set"):
        read_set(folder)
    said, speak = [], spoken_set.Speaker.say
    monkeypatch.setattr(
        spoken_set.Speaker, "say", lambda self, row, texts: (said.append(row), speak(self, row, texts))[1]
    )
    made(folder, typed, shard="1/2")
    assert len(said) == 3
    made(whole, typed)
    assert len(list(whole.rglob("*.wav"))) == 24
    for path in whole.rglob("*.wav"):
        assert (folder / path.relative_to(whole)).read_bytes() == path.read_bytes()


def test_mistakes_about_sets_are_told(tmp_path, typed):
    folder = tmp_path / "set"
    made(folder, typed)
    with pytest.raises(ConfigError, match="made with seed 0, not 1"):
        made(folder, typed, seed=1)
    with pytest.raises(ConfigError, match="choose from clean, noise, telephone, room"):
        made(folder, typed, conditions="rain")
    with pytest.raises(InputError, match="no condition 'rain': it has clean, noise, room, telephone"):
        read_set(folder, "rain")
    written = json.loads((folder / "set.json").read_text())
    for pool in ([3, 5], {RIGHT: "3"}, {}, None):
        (folder / "set.json").write_text(json.dumps(written | {"pool": pool}, indent=1))
        with pytest.raises(InputError, match=r"set\.json lacks `pool`: run"):
            read_set(folder)
    made(folder, typed)
    assert read_set(folder)[2] == {RIGHT: 3, WRONG: 5}


def test_typed_answers_may_be_a_results_file_and_must_be_whole(tmp_path, typed):
    path = tmp_path / "results.jsonl"
    item = {"type": "item", "id": "a", "question": "q", "answers": ["x"], "text": "x"}
    lines = [{"type": "settings", "task": "qa"}, item | {"arm": "t2t", "text": "no"}, item | {"arm": "t2t-off"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (found,) = read_typed([path], SCORER)
    assert found.kind == RIGHT
    with pytest.raises(InputError, match="'a' is there twice"):
        read_typed([path, path], SCORER)
    typed.write_text('{"id": "a", "question": "q"}\n')
    with pytest.raises(InputError, match="answer 1 lacks"):
        read_typed([typed], SCORER)


def test_a_question_of_two_files_counts_once(tmp_path, typed):
    path = tmp_path / "other.jsonl"
    rows = [("new", "Who is it?", "no"), ("old", "What is NUMBER 3?", "yes")]
    lines = [{"id": id, "question": question, "answers": ["yes"], "answer": answer} for id, question, answer in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [(item.id, item.kind) for item in read_typed([path, typed], SCORER)][:3] == [
        ("new", WRONG),
        ("old", RIGHT),
        ("q0", RIGHT),
    ]
    assert [item.id for item in read_typed([typed, path], SCORER)] == [f"q{n}" for n in range(8)] + ["new"]


def test_published_files_of_typed_questions(tmp_path):
    natural = tmp_path / "NQ-open.dev.jsonl"
    natural.write_text(json.dumps({"question": "who is it", "answer": ["Ann", "Anne"]}) + "\n")
    assert read_items(natural, "nq-open") == [Item("NQ-open.dev-00000", "who is it", ("Ann", "Anne"))]
    rated = tmp_path / "NQ-open.efficientqa.test.1.1.jsonl"
    more = {"def_correct_predictions": ["Annie"], "answer_and_def_correct_predictions": ["Ann", "Annie"]}
    rated.write_text(json.dumps({"question": "who is it", "answer": ["Ann"], **more}) + "\n")
    assert read_items(rated, "nq-open") == [Item("NQ-open.efficientqa.test.1.1-00000", "who is it", ("Ann",))]
    web = tmp_path / "val.json"
    web.write_text(json.dumps([{"qId": "wqr1", "qText": "where is it?", "answers": ["Bali"]}]))
    assert read_items(web, "webquestions") == [Item("wqr1", "where is it?", ("Bali",))]
    web.write_text("{}")
    with pytest.raises(InputError, match="is not a JSON list"):
        read_items(web, "webquestions")


def _items(arm, scores, texts=()):
    kinds = [RIGHT] * 4 + [WRONG] * 2
    texts = texts or [str(n) for n in range(len(scores))]
    return [
        {"arm": arm, "id": f"q{n}", "kind": kinds[n], "score": score, "text": text}
        for n, (score, text) in enumerate(zip(scores, texts, strict=True))
    ]


def test_retention_by_hand():
    settings = {"retention": {"pool": {RIGHT: 4, WRONG: 10}}, "scorer": "s", "questions": "set, clean"}
    items = _items("t2t-off", [1, 1, 1, 1, 0, 0]) + _items("s2s", [1, 1, 1, 0, 1, 0], ["0", "1", " 2", "no", "4", "no"])
    table = retention_table(settings, items)
    (row,) = table.rows
    assert row[:3] == ("s2s", "6", "4") and row[4] == "2"
    assert row[3].startswith("75.0 [") and row[5].startswith("50.0 [") and row[6].startswith("66.7 [")
    assert row[7].startswith("200.0 [")  # (3 kept + half of 10 wrong ones) / 4
    assert "14 questions, 4 typed-right, 10 typed-wrong" in table.note and "T2T: t2t-off" in table.note
    (row,) = retention_table(settings, items[:4] + items[6:10]).rows  # no wrong ones yet: nothing to scale
    assert row[7] == "-"
    assert retention_table(settings, _items("s2s", [1] * 6)).rows == ()
    formed = items + _items("t2t-form", [1, 1, 0, 0, 0, 0])
    against = {row[0]: row for row in retention_table(settings, formed).rows}
    assert list(against) == ["t2t-form", "s2s", "s2s / t2t-form"] and against["t2t-form"][3].startswith("50.0 [")
    assert against["s2s / t2t-form"][3].startswith("100.0 [") and against["s2s / t2t-form"][7].startswith("400.0 [")
    (row,) = retention_table(settings, _items("t2t", [1, 1, 1, 1, 0, 0]) + _items("s2t", [1, 1, 1, 1, 0, 0])).rows
    assert row[0] == "s2t" and row[7].startswith("100.0")


def test_the_ratio_over_strata_is_the_plain_ratio_where_there_is_one():
    scores = (np.random.default_rng(0).random((50, 2)) < 0.5).astype(float)
    one, plain = stats.stratified_ratio([(50.0, scores)]), stats.ratio(scores[:, 0], scores[:, 1])
    assert (one.value, one.low, one.high) == pytest.approx((plain.value, plain.low, plain.high))
    none = stats.stratified_ratio([(3.0, np.zeros((3, 2)))])
    assert np.isnan(none.value) and np.isnan(none.low)


def test_typed_answers_of_another_condition_are_taken_over(tmp_path):
    questions = [Item(f"q{n}", f"what {n}", ("yes",), kind=RIGHT) for n in range(2)]
    subject = FakeSubject({"what 0": "yes", "what 1": "no"})
    settings = {"model": "m", "scorers": ["qa-exist-match"], "seed": 0, "batch": 8, "shard": "0/1"}
    results = Results(tmp_path / "a.jsonl", settings)
    run_arms(QaRun(subject, None, [SCORER], tmp_path), questions, ["t2t", "t2t-off"], results)
    results = Results(tmp_path / "b.jsonl", settings)
    copy_typed(tmp_path / "a.jsonl", [questions[1], Item("q0", "another", ("yes",))], results)
    assert results.done == {("t2t", "q1"), ("t2t-off", "q1")}
    results = Results(tmp_path / "c.jsonl", settings | {"model": "other"})
    with pytest.raises(ConfigError, match="made with model 'm', not 'other'"):
        copy_typed(tmp_path / "a.jsonl", questions, results)


def test_the_commands_from_typed_answers_to_the_table(tmp_path, typed, monkeypatch):
    monkeypatch.setattr("echox.prepare.voices.make_voice", lambda choice, folder: ToneVoice())
    monkeypatch.setattr("echox.eval.tasks.qa.choose_judges", lambda *a: (FakeJudge(), None))
    assert "3 of 3 typed-right, 5 of 5 typed-wrong" in call("spoken-set", typed, "--out", tmp_path / "set")
    here = ("qa", "--retention", tmp_path / "set", "--model", "fake", "--arms", "t2t,s2t", "--limit", 6)
    monkeypatch.setattr("echox.eval.tasks.qa.find_judge", lambda name: tmp_path)
    shown = call(*here, "--condition", "noise", "--out", tmp_path / "out")
    assert "### fake: Retention" in shown and "| s2t | 6 |" in shown and "set, noise" in shown
    assert "| s2t | 6 |" in call(*here, "--out", tmp_path / "clean", "--typed-from", tmp_path / "out" / "results.jsonl")
    with pytest.raises(ConfigError, match="brings its own questions"):
        call(*here, "--questions", typed)
