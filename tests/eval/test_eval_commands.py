"""The command line from end to end with the fake assistant and a fake judge: what is printed, written and refused."""

import json

import numpy as np
import pytest
from eval_fakes import call
from typer.testing import CliRunner

from echox.audio import save_wav
from echox.commands.eval import app
from echox.errors import ConfigError, InputError
from echox.eval import judges as judge_module
from echox.eval.model_under_test import ModelChoice, load_subject
from echox.eval.tasks import hearing as hearing_module
from echox.generate.fake import FakeAssistant


class Judge:
    """Hears the fake assistant's tones as so many words."""

    name = "ears (fake)"

    def transcribe(self, waves):
        return [" ".join(["asked"] * (len(wave) // 3200)) for wave in waves]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rows = ["id\tquestion\tanswers\taudio"]
    for place, answer in enumerate(("asked", "never")):
        save_wav(tmp_path / f"web-{place}.wav", 0.4 * np.sin(np.arange(16_000) * 0.2), 16_000)
        rows.append(f"web-{place}\tWhat is number {place}?\t{answer}\t")
    (tmp_path / "q.tsv").write_text("\n".join(rows) + "\n")
    ears = tmp_path / "ears"
    ears.mkdir()
    (ears / "model.bin").write_bytes(b"x")
    (ears / "tokenizer.json").write_text("{}")
    for module in (judge_module, hearing_module):
        monkeypatch.setattr(module, "load_judge", lambda *a, **k: Judge())
    return tmp_path


def qa(folder, *more):
    """Runs the qa verb on the folder's questions with the fake assistant."""
    here = ("--questions", folder / "q.tsv", "--audio-dir", folder, "--model", "fake", "--out", folder / "out")
    return call("qa", *here, *more)


def test_one_command_gives_the_table_and_the_report(folder):
    shown = qa(folder, "--arms", "t2t,s2t,s2s,teacher,cascade", "--judge", folder / "ears")
    assert "qa-exist-match" in shown and "ears (fake)" in shown and "s2s - s2t" in shown
    lines = [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]
    assert lines[0]["type"] == "settings" and lines[0]["model"] == "fake" and len(lines) == 1 + 5 * 2
    assert all({"arm", "id", "text", "transcript", "score", "error"} <= line.keys() for line in lines[1:])
    assert (folder / "out" / "report.html").is_file() and (folder / "out" / "table.md").is_file()
    before = (folder / "out" / "results.jsonl").read_bytes()
    qa(folder, "--arms", "t2t,s2t,s2s,teacher,cascade", "--judge", folder / "ears")
    assert (folder / "out" / "results.jsonl").read_bytes() == before  # resumed: nothing left to do
    shown = call("report", folder / "out" / "results.jsonl", "-o", folder / "both.html")
    assert "Accuracy" in shown and (folder / "both.html").stat().st_size > 2000


def test_what_is_sent_to_a_file_or_a_pipe_begins_with_a_table(folder):
    """Bars are for a terminal, and stand on standard error."""
    assert qa(folder, "--arms", "t2t").startswith("### fake: Accuracy")
    here = ("--questions", folder / "q.tsv", "--audio-dir", folder, "--out", folder / "out")
    assert call("latency", *here, "--model", "fake").startswith("### Latency")


def test_the_folder_that_a_verb_wrote_stands_for_its_results(folder):
    qa(folder, "--arms", "t2t")
    here = ("--questions", folder / "q.tsv", "--audio-dir", folder, "--out", folder / "out")
    call("latency", *here, "--model", "fake")
    shown = call("report", folder / "out", "-o", folder / "r.html")
    assert shown == call("report", folder / "out" / "results.jsonl", "-o", folder / "r.html")
    assert shown.startswith("### fake: Accuracy") and "### fake: Latency" in shown
    exported = call("export", folder / "out", "--format", "ultraeval", "--arm", "t2t", "-o", folder / "of")
    assert "ultraeval.jsonl" in exported
    with pytest.raises(InputError, match=r"ears holds no results of `echox eval`: give the folder"):
        call("report", folder / "ears", "-o", folder / "r.html")


def test_a_server_takes_no_chat_model_of_ours():
    with pytest.raises(ConfigError, match="--llm is for a model on this machine"):
        load_subject(ModelChoice("any", "http://127.0.0.1:1/v1", llm="other"))


def test_shards_are_joined_in_a_report(folder):
    for shard in ("0/2", "1/2"):
        qa(folder, "--arms", "t2t", "--shard", shard)
    paths = sorted((folder / "out").glob("results.*of2.jsonl"))
    shown = call("report", *paths, "-o", folder / "r.html")
    assert "| t2t | all | 2 |" in shown


def test_export_puts_shards_in_question_order_and_refuses_gaps(folder):
    rows = ["id\tquestion\tanswers"] + [f"q{place}\tWhat is number {place}?\tx" for place in range(5)]
    (folder / "q.tsv").write_text("\n".join(rows) + "\n")
    for shard in ("0/2", "1/2"):
        qa(folder, "--arms", "t2t", "--shard", shard)
    odd, even = folder / "out" / "results.1of2.jsonl", folder / "out" / "results.0of2.jsonl"
    call("export", odd, even, "--format", "ultraeval", "--arm", "t2t", "-o", folder / "u")
    lines = [json.loads(line) for line in (folder / "u" / "ultraeval.jsonl").read_text().splitlines()]
    assert [line["data"]["content"] for line in lines] == [f"You asked about What is number {i}." for i in range(5)]
    with pytest.raises(InputError, match="2 questions of the arm 't2t' have no answer, the first at place 1"):
        call("export", even, "--format", "ultraeval", "--arm", "t2t")
    kept = even.read_text().splitlines()[:3]  # q0 and q2 are there, q4 is not
    even.write_text("\n".join(kept) + "\n")
    with pytest.raises(InputError, match="1 questions of the arm 't2t' have no answer, the first at place 4"):
        call("export", even, odd, "--format", "ultraeval", "--arm", "t2t")
    other = folder / "speech.jsonl"
    other.write_text('{"type": "settings", "task": "speech"}\n')
    with pytest.raises(InputError, match="no run of `echox eval qa` is in .*speech.jsonl"):
        call("export", other, "--format", "ultraeval", "--arm", "t2t")


def test_a_server_runs_the_arms_it_can_have(folder, monkeypatch):
    import echox.eval.tasks.qa as program

    asked = []
    monkeypatch.setattr(program, "load_subject", lambda choice: (asked.append(choice), (FakeAssistant(), "served"))[1])
    here = ("--endpoint", "http://127.0.0.1:9/v1", "--system", "Be brief.")
    shown = qa(folder, "--arms", "t2t,t2t-off,teacher", *here)
    assert shown.count("left out t2t-off, teacher") == 1 and "| t2t | all | 2 |" in shown and "| teacher |" not in shown
    assert asked[0].system == "Be brief."
    with pytest.raises(ConfigError, match="system was 'Be brief.' and is None"):
        qa(folder, "--arms", "t2t", *here[:2])


def test_a_system_prompt_needs_a_server(folder):
    with pytest.raises(ConfigError, match="--system is sent to a server"):
        qa(folder, "--arms", "t2t", "--system", "Be brief.")


def test_a_judge_with_the_models_ear_is_told(folder, monkeypatch):
    whisper = {"model_type": "whisper", "d_model": 384, "encoder_layers": 4}
    for name in ("encoder", "ears"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(whisper))
    monkeypatch.setattr(ModelChoice, "folder", property(lambda choice: folder))
    assert "listens with whisper-tiny's encoder" in qa(folder, "--arms", "s2s", "--judge", folder / "ears")


def test_speech_prints_word_errors_and_checks_with_the_scores(folder, monkeypatch):
    qa(folder, "--arms", "s2s", "--judge", folder / "ears")
    monkeypatch.setattr("echox.eval.tasks.speech.dnsmos", lambda: lambda wave: {"dnsmos": 3.5})
    shown = call("speech", folder / "out" / "results.jsonl", "--networks", "dnsmos", "--out", folder / "out")
    assert "3.50 [3.50, 3.50]" in shown and "WER %" in shown and "DC over 0.01 %" in shown and "ears (fake)" in shown
    shown = call("report", folder / "out" / "results.jsonl", "-o", folder / "r.html")
    assert "Speech quality" in shown and "3.50 [3.50" in (folder / "r.html").read_text()


def test_items_of_other_harnesses_are_asked_from_the_command_line(folder):
    record = {"prompt": "Capital?", "reference": "asked", "audio": "web-0.wav"}
    (folder / "v.jsonl").write_text(json.dumps(record) + "\n")
    here = ("--questions", folder / "v.jsonl", "--format", "voicebench", "--model", "fake", "--out", folder / "v")
    assert "| s2t | all | 1 | 100.0" in call("qa", *here, "--arms", "s2t")


def test_mistakes_are_told_before_a_model_is_loaded(folder, monkeypatch):
    def no_model(choice):
        raise AssertionError("a model was loaded")

    import echox.eval.tasks.qa as program

    monkeypatch.setattr(program, "load_subject", no_model)
    with pytest.raises(ConfigError, match="give --judge"):
        qa(folder, "--arms", "s2s")
    with pytest.raises(InputError, match="is not a judge"):
        (folder / "empty").mkdir()
        qa(folder, "--arms", "s2s", "--judge", folder / "empty")
    with pytest.raises(ConfigError, match="s9s"):
        qa(folder, "--arms", "s9s")
    with pytest.raises(ConfigError, match="no scorer"):
        qa(folder, "--arms", "t2t", "--scorer", "rouge")
    with pytest.raises(ConfigError, match="--scorer is empty"):
        qa(folder, "--arms", "t2t", "--scorer", "")
    with pytest.raises(ConfigError, match="neither a teacher"):
        qa(folder, "--arms", "teacher", "--judge", folder / "ears", "--endpoint", "http://127.0.0.1:9/v1")
    (folder / "web-1.wav").unlink()
    with pytest.raises(InputError, match=r"web-1\.wav is missing"):
        qa(folder, "--arms", "s2t")


@pytest.mark.parametrize("verb", ["qa", "latency"])
@pytest.mark.parametrize("given", [[], ["--questions", "q.tsv", "--suite", "web-questions"]])
def test_no_set_of_questions_and_two_are_wrong_usage(verb, given):
    found = CliRunner().invoke(app, [verb, *given])
    assert found.exit_code == 2 and "give either --questions FILE or --suite NAME" in " ".join(found.stderr.split())


def test_hearing_latency_and_export(folder):
    records = [{"id": f"web-{n}", "audio": f"web-{n}.wav", "samples": 16_000, "sample_rate": 16_000} for n in (0, 1)]
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(record | {"text": "asked twice"}) + "\n" for record in records))
    heard = ("hearing", "--manifest", manifest, "--nothing", 0, "--reference", folder / "ears", "--model", "fake")
    heard += ("--out", folder / "out")
    assert f"| {folder.name} | 2 | 4 |" in call(*heard)
    for shard in ("0/2", "1/2"):
        call(*heard, "--shard", shard)
    joined = call("report", *sorted((folder / "out").glob("hearing.*of2.jsonl")), "-o", folder / "r.html")
    assert f"| {folder.name} | 2 | 4 |" in joined
    manifest.write_text(manifest.read_text().replace("asked twice", "asked once"))
    with pytest.raises(ConfigError, match="questions_mark was"):  # another file of the same name
        call(*heard)
    here = ("--questions", folder / "q.tsv", "--audio-dir", folder, "--out", folder / "out")
    shown = call("latency", *here, "--model", "fake")
    assert "first audio, s" in shown and "answers with underruns" in shown
    qa(folder, "--arms", "s2s", "--judge", folder / "ears")
    for form in ("voicebench", "ultraeval", "uro"):
        for _ in range(2):  # its own files are written again
            call("export", folder / "out" / "results.jsonl", "--format", form, "-o", folder / form)
    (line, _) = (folder / "voicebench" / "fake-sd-qa-usa-audio.jsonl").read_text().splitlines()
    assert json.loads(line)["response"] == "asked asked asked asked asked" and json.loads(line)["prompt"]
    record = json.loads((folder / "ultraeval" / "ultraeval.jsonl").read_text().splitlines()[1])
    spoken = json.loads(record["data"]["content"])
    assert record["type"] == "inference" and record["id"] == 1 and spoken["audio"].endswith("web-1.wav")
    assert json.loads((folder / "uro" / "gt_text.jsonl").read_text().splitlines()[0]) == {"0000": "asked"}
    assert (folder / "uro" / "audio" / "0001.wav").is_file()


def test_a_run_whose_every_item_failed_does_not_succeed(folder):
    for place in range(2):
        (folder / f"web-{place}.wav").write_bytes(b"no sound")
    here = ("--questions", folder / "q.tsv", "--audio-dir", folder, "--model", "fake", "--out", folder / "out")
    done = CliRunner().invoke(app, list(map(str, ("qa", *here, "--arms", "s2t"))))
    assert done.exit_code and isinstance(done.exception, InputError)
    assert "all 2 items" in str(done.exception) and "web-1.wav" in str(done.exception)
    assert "s2t" in done.stdout and (folder / "out" / "report.html").exists()  # what there is is told first


def test_a_run_with_one_answer_succeeds(folder):
    (folder / "web-0.wav").write_bytes(b"no sound")
    assert "s2t" in qa(folder, "--arms", "s2t")
