"""The arms: which text is scored where, what is written down, what a resumed or sharded run does, and failures."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from eval_fakes import FakeJudge, FakeSubject

from echox.audio import save_wav
from echox.errors import ConfigError, EndpointError
from echox.eval.questions import Item, safe_name
from echox.eval.report.page import write_report
from echox.eval.results import Results, read_results
from echox.eval.scorers.answers import find_scorer
from echox.eval.tasks.qa import ARMS, QaRun, choose_arms, in_form, run_arms
from echox.eval.tasks.qa_tables import accuracy_table, gap_table, qa_tables

SETTINGS = {"task": "qa", "model": "fake", "scorer": "qa-exist-match", "judge": "fake judge", "shard": "0/1"}
ASKED = {
    "web-1": ("Capital of France?", "Paris"),
    "web-2": ("Largest ocean?", "Pacific"),
    "tri-1": ("Two plus two?", "four"),
}


@pytest.fixture
def questions(tmp_path: Path) -> list[Item]:
    made = []
    for place, (name, (text, answer)) in enumerate(ASKED.items()):
        wav = tmp_path / f"{name}.wav"
        save_wav(wav, 0.5 * np.sin(np.arange(8000 + 100 * place) * 0.2), 16_000)
        made.append(Item(name, text, (answer,), wav))
    return made


@pytest.fixture
def subject() -> FakeSubject:
    table = {
        "Capital of France?": "It is Paris.",
        "Largest ocean?": "The Pacific Ocean.",
        "Two plus two?": "It is four.",
    }
    return FakeSubject(table, {8000: "Capital of France?", 8100: "Largest ocean?", 8200: "Two plus ten?"})


def run(subject, judge, folder: Path, questions, arms, retry=False, settings=SETTINGS, **options):
    """Runs arms into folder/results.jsonl and returns the items by (arm, id)."""
    results = Results(folder / "results.jsonl", settings, retry)
    case = QaRun(subject, judge, [find_scorer("qa-exist-match")], folder, judge, **options)
    run_arms(case, questions, arms, results)
    return dict(results.items)


def test_every_arm_scores_what_it_should(tmp_path, questions, subject):
    items = run(subject, FakeJudge(mishears={"Paris.": "Harris."}), tmp_path / "o", questions, ARMS)
    right = {arm: [items[arm, q.id]["score"] for q in questions] for arm in ARMS}
    assert right["t2t"] == [1, 1, 1] and right["t2t-off"] == [1, 1, 1]
    assert right["s2t"] == [1, 1, 0]  # the third question is misheard
    assert right["s2s"] == [0, 1, 0]  # Paris is spoken but not heard
    assert right["teacher"] == [0, 1, 0]
    assert items["t2t-off", "web-1"]["text"] == "IT IS PARIS." and items["t2t", "web-1"]["text"] == "It is Paris."
    spoken = items["s2s", "web-1"]
    assert spoken["text"] == "It is Paris." and spoken["transcript"] == "It is Harris." and spoken["text_score"] == 1
    assert (spoken["words"], spoken["word_edits"]) == (3, 1)
    assert (tmp_path / "o" / spoken["audio"]).is_file() and "signal" in spoken


def test_the_own_text_is_scored_once_and_its_faults_are_told(tmp_path, questions, subject):
    asked = []

    def chat(prompt, seed):
        asked.append(prompt)
        if "It is Paris." in prompt:
            raise EndpointError("the scorer is away")
        return "Yes"

    case = QaRun(subject, FakeJudge(mishears={"Paris.": "Harris."}), [find_scorer("voicebench-qa", chat)], tmp_path)
    results = Results(tmp_path / "r.jsonl", SETTINGS)
    run_arms(case, questions[1:2], ("t2t", "s2s"), results)
    assert len(asked) == 2 * 3  # one text each, and what was heard of the second is the text
    run_arms(case, questions[:1], ("s2s",), results)
    item = results.items["s2s", "web-1"]
    assert item["score"] == 1 and item["text_score"] == 0 and "scorer is away" in item["error"]


def test_a_question_in_form_has_a_capital_and_a_mark(tmp_path, subject):
    questions = [
        Item(str(n), text, ("Paris",)) for n, text in enumerate(("capital of France", " Capital of France?", "stop."))
    ]
    items = run(subject, None, tmp_path, questions, ("t2t", "t2t-form"))
    assert [items["t2t", q.id]["score"] for q in questions] == [0, 0, 0]
    assert [items["t2t-form", q.id]["score"] for q in questions] == [1, 1, 0]
    assert [in_form(text) for text in ("stop.", "Éa va", "")] == ["Stop.", "Éa va?", "?"]


def test_one_reply_serves_s2s_s2t_and_teacher(tmp_path, questions, subject):
    run(subject, FakeJudge(), tmp_path, questions, ("s2s", "s2t", "teacher"))
    assert len(subject.asked) == len(questions)


def test_s2t_after_a_kill_is_what_it_is_without_one(tmp_path, questions, subject):
    asked, real = [], subject.ask
    subject.ask = lambda **options: (asked.append(options["text_only"]), real(**options))[1]
    run(subject, FakeJudge(), tmp_path / "killed", questions, ("s2s",))
    later = run(subject, FakeJudge(), tmp_path / "killed", questions, ("s2s", "s2t"))
    assert asked == [False] * len(questions)  # the text is that of the reply on file
    whole = run(subject, FakeJudge(), tmp_path / "whole", questions, ("s2s", "s2t"))
    assert [later["s2t", q.id] for q in questions] == [whole["s2t", q.id] for q in questions]


def test_the_teacher_of_a_resumed_run_says_the_text_on_file(tmp_path, questions, subject):
    first = run(subject, FakeJudge(), tmp_path, questions, ("s2s",))
    subject.asked.clear()
    later = run(subject, FakeJudge(), tmp_path, questions, ("s2s", "teacher"))
    assert not subject.asked
    assert all(later["teacher", q.id]["text"] == first["s2s", q.id]["text"] for q in questions)


def test_cascade_types_what_the_recogniser_heard_with_adapters_off(tmp_path, questions):
    class Ears(FakeJudge):
        def transcribe(self, waves):
            return ["Capital of France?"] * len(waves) if len(waves[0]) in (8000, 8100) else super().transcribe(waves)

    subject = FakeSubject({"Capital of France?": "Paris"})
    items = run(subject, Ears(), tmp_path, questions[:2], ("cascade",))
    assert [items["cascade", q.id]["heard"] for q in questions[:2]] == ["Capital of France?"] * 2
    assert [items["cascade", q.id]["text"] for q in questions[:2]] == ["PARIS"] * 2
    assert [items["cascade", q.id]["score"] for q in questions[:2]] == [1, 0]


def test_failures_are_written_counted_wrong_and_done_again_on_request(tmp_path, questions, subject):
    subject.fail_on = frozenset({"Largest ocean?"})
    items = run(subject, FakeJudge(), tmp_path, questions, ("t2t",))
    assert "500" in items["t2t", "web-2"]["error"] and items["t2t", "web-2"]["score"] == 0
    assert items["t2t", "tri-1"]["score"] == 1
    row = accuracy_table(list(items.values()), "").rows[0]
    assert row[2] == "3" and row[3].startswith("66.7") and row[-1] == "33.3"
    subject.fail_on = frozenset()
    assert run(subject, FakeJudge(), tmp_path, questions, ("t2t",))["t2t", "web-2"]["score"] == 0
    assert run(subject, FakeJudge(), tmp_path, questions, ("t2t",), retry=True)["t2t", "web-2"]["score"] == 1
    assert len(read_results(tmp_path / "results.jsonl")[1]) == 3


def test_a_dead_server_stops_the_run_before_hours_are_spent(tmp_path, subject):
    many = [Item(f"q{i}", "Largest ocean?", ("x",)) for i in range(60)]
    subject.fail_on = frozenset({"Largest ocean?"})
    with pytest.raises(EndpointError, match="the first 3 questions in a row"):
        run(subject, None, tmp_path / "never", many, ("t2t",))
    assert len(subject.asked) == 3 and len(read_results(tmp_path / "never" / "results.jsonl")[1]) == 3
    many[0] = Item("q0", "Capital of France?", ("Paris",))  # it answered once, so it may come back for a while
    with pytest.raises(EndpointError, match="^12 questions in a row"):
        run(subject, None, tmp_path / "once", many, ("t2t",))
    assert len(read_results(tmp_path / "once" / "results.jsonl")[1]) == 13


def test_a_model_on_this_machine_is_not_stopped_by_three_bad_questions(tmp_path, questions, subject):
    for question in questions:
        question.audio.write_bytes(b"not a wav")
    items = run(subject, FakeJudge(), tmp_path / "o", questions, ("s2t",))
    assert all(item["error"] for item in items.values()) and len(items) == 3


def test_speech_that_fails_leaves_the_text_standing(tmp_path, questions, subject):
    real = subject.ask

    def ask(**asked):
        if not asked["text_only"]:
            raise RuntimeError("the vocoder failed")
        return real(**asked)

    subject.ask = ask
    items = run(subject, FakeJudge(), tmp_path / "o", questions, ("s2s", "s2t", "teacher"))
    assert [items["s2t", q.id]["score"] for q in questions] == [1, 1, 0]
    assert all("vocoder" in items["s2s", q.id]["error"] and not items["s2t", q.id]["error"] for q in questions)
    assert [items["teacher", q.id]["text"] for q in questions][:2] == ["It is Paris.", "The Pacific Ocean."]
    later = run(subject, FakeJudge(), tmp_path / "p", questions, ("s2s", "teacher"))
    assert later["teacher", "web-1"]["text"] == "It is Paris."  # also where nobody asked for s2t


def test_a_teacher_does_not_ask_again_for_a_text_that_failed(tmp_path, questions, subject):
    subject.fail_on = frozenset({"Largest ocean?"})
    items = run(subject, FakeJudge(), tmp_path, questions, ("s2s", "s2t", "teacher"))
    assert "500" in items["teacher", "web-2"]["error"] and subject.asked.count("Largest ocean?") == 2


def test_cascade_and_teacher_keep_the_llms_finish_and_add_up_seconds(tmp_path, questions, subject):
    real = subject.ask
    subject.ask = lambda **asked: replace(real(**asked), finish="length", wall_seconds=20.0)

    class Slow(FakeJudge):
        def transcribe(self, waves):
            time.sleep(0.05)
            return ["Capital of France?" if len(wave) in (8000, 8100, 8200) else "x" for wave in waves]

    items = run(subject, Slow(), tmp_path, questions, ("s2t", "teacher", "cascade"))
    for arm, least in (("teacher", 20.5), ("cascade", 20.55)):
        item = items[arm, "web-1"]
        assert item["finish"] == "length" and item["cut"] and least <= item["wall_seconds"] < 22
        assert item["first_audio_seconds"] == pytest.approx(item["wall_seconds"] - 0.4)


def test_the_longest_answer_also_limits_teacher_and_cascade(tmp_path, questions, subject):
    limits = []
    real_ask, real_say = subject.ask, subject.say
    subject.ask = lambda max_seconds=None, **asked: real_ask(**asked)

    def say(text, max_seconds=None):
        limits.append(max_seconds)
        return real_say(text)

    subject.say = say
    run(subject, FakeJudge(), tmp_path, questions, ("teacher", "cascade"), options={"max_seconds": 3.0, "seed": 1})
    assert limits == [3.0] * 6


def test_saying_nothing_is_an_empty_answer_and_no_failure(tmp_path, subject):
    subject.table = dict.fromkeys(["Largest ocean?"], "")
    wav = tmp_path / "q.wav"
    save_wav(wav, 0.5 * np.sin(np.arange(8100) * 0.2), 16_000)
    many = [Item(f"q{i}", "Largest ocean?", ("x",), wav) for i in range(14)]
    items = run(subject, FakeJudge(), tmp_path / "o", many, ("s2t", "teacher", "cascade"))
    assert len(items) == 3 * 14 and not any(item["error"] for item in items.values())
    assert all(item["empty"] and item["score"] == 0 for key, item in items.items() if key[0] != "cascade")
    assert items["teacher", "q0"]["finish"] == "empty"


def test_items_hold_the_questions_recording_and_place(tmp_path, questions, subject):
    items = run(subject, None, tmp_path / "o", questions, ("s2t",), places={"web-1": 0, "web-2": 1, "tri-1": 2})
    item = items["s2t", "web-2"]
    assert item["question_audio"] == str(questions[1].audio) and item["place"] == 1


def test_a_broken_wav_fails_one_item_only(tmp_path, questions, subject):
    questions[0].audio.write_bytes(b"not a wav")
    items = run(subject, FakeJudge(), tmp_path / "o", questions, ("s2t",))
    assert "question audio" in items["s2t", "web-1"]["error"] and not items["s2t", "web-2"]["error"]


def test_answers_that_are_not_numbers_fail_and_cut_ones_are_marked(tmp_path, questions, subject):
    real = subject.ask

    def ask(**asked):
        reply = real(**asked)
        if reply.text == "It is Paris.":
            reply.audio[5] = np.nan
        if reply.text == "The Pacific Ocean.":
            reply.finish = "length"
        return reply

    subject.ask = ask
    items = run(subject, FakeJudge(), tmp_path / "o", questions, ("s2s",))
    assert "finite" in items["s2s", "web-1"]["error"] and items["s2s", "web-1"]["score"] == 0
    assert items["s2s", "web-2"]["cut"] and not items["s2s", "tri-1"]["cut"]


def test_one_bad_question_in_a_batch_does_not_take_the_others_along(tmp_path, questions, subject):
    def ask_many(questions, text_only=False):
        raise RuntimeError("one of them is bad")

    subject.ask_many = ask_many
    subject.fail_on = frozenset({"Largest ocean?"})
    items = run(subject, None, tmp_path, questions, ("t2t",))
    assert [bool(items["t2t", q.id]["error"]) for q in questions] == [False, True, False]


def test_batches_go_through_ask_many(tmp_path, questions, subject):
    sizes = []

    def ask_many(questions, text_only=False):
        sizes.append(len(questions))
        return [subject.ask(typed=question.typed, text_only=text_only) for question in questions]

    subject.ask_many = ask_many
    run(subject, None, tmp_path, questions, ("t2t",), batch=2)
    assert sizes == [2]  # and the last one alone


def test_settings_may_not_change_under_a_results_file(tmp_path, questions, subject):
    run(subject, None, tmp_path, questions, ("t2t",))
    with pytest.raises(ConfigError, match="judge was 'fake judge' and is 'other'"):
        run(subject, None, tmp_path, questions, ("t2t",), settings=SETTINGS | {"judge": "other"})
    run(subject, None, tmp_path, questions, ("t2t", "t2t-off"), settings=SETTINGS | {"arms": ["t2t-off"], "limit": 9})


def test_a_torn_last_line_is_done_again(tmp_path, questions, subject):
    run(subject, None, tmp_path, questions, ("t2t",))
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    subject.asked.clear()
    items = run(subject, None, tmp_path, questions, ("t2t",))
    assert len(subject.asked) == 1 and len(items) == 3
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_arms_are_checked_and_ordered():
    assert choose_arms("teacher, s2s,t2t") == ("t2t", "t2t-off", "s2s", "teacher")
    assert choose_arms("t2t", adapters=False) == ("t2t",)
    with pytest.raises(ConfigError, match="s3s"):
        choose_arms("t2t,s3s")


def test_tables_and_report_hold_the_names_the_gap_and_the_audio(tmp_path, questions, subject):
    items = list(run(subject, FakeJudge(mishears={"Paris.": "Harris."}), tmp_path, questions, ARMS[:6]).values())
    gaps = {row[0]: row[2] for row in gap_table(items, "").rows}
    assert gaps["s2t - t2t"].startswith("-33.3 [") and gaps["s2s / t2t"].startswith("33.3 [")
    assert gaps["s2s - teacher"].startswith("0.0 [0.0, 0.0]")
    text = "\n".join(table.markdown() for table in qa_tables(SETTINGS, items))
    assert "qa-exist-match" in text and "fake judge" in text and "| tri |" in text and "| web |" in text
    write_report([tmp_path / "results.jsonl"], tmp_path, lambda line: None)
    page = (tmp_path / "report.html").read_text()
    assert "data:audio/wav;base64," in page and 'src="http' not in page and 'href="http' not in page
    assert "<svg" in page and page.index("Harris") > 0 and (tmp_path / "table.md").read_text().count("###") == 3


def test_ids_become_safe_and_distinct_file_names():
    assert safe_name("web-1") == "web-1"
    assert safe_name("a/b") != safe_name("a_b") and "/" not in safe_name("a/b")
    assert not safe_name("../x").startswith(".")
