"""`echox ask` with an assistant that needs no weights: files, lines, exit statuses."""

import gc
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from echox import cli
from echox.audio import save_wav
from echox.commands import answers, transcribe
from echox.commands.ask import in_words
from echox.commands.recordings import stem_of
from echox.errors import ModelError

FIELDS = {
    "question",
    "heard",
    "text",
    "audio",
    "audio_seconds",
    "wall_seconds",
    "first_audio_seconds",
    "units",
    "error",
}


def record(path, seconds=0.5):
    path.parent.mkdir(exist_ok=True)
    save_wav(path, 0.4 * np.sin(np.arange(int(seconds * 16_000)) / 9), 16_000)
    return path


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_one_question_is_answered_in_text_and_speech(run, tmp_path):
    record(tmp_path / "question.wav")
    status, out, err = run("ask", "question.wav")
    assert (status, err) == (0, "")
    assert (
        out
        == "question: question.wav\nheard: 0.5 seconds\nanswer: You asked about 0.5 seconds.\nspeech: answer.wav (1.0 s)\n"
    )
    sound = soundfile.info(tmp_path / "answer.wav")
    assert (sound.samplerate, sound.channels, sound.subtype, sound.frames) == (16_000, 1, "PCM_16", 16_000)


def test_json_lines_hold_every_field_and_nothing_else_is_printed(run, tmp_path, loads):
    record(tmp_path / "a.wav")
    record(tmp_path / "deep" / "a.wav")
    status, out, err = run(
        "ask", "a.wav", "deep/a.wav", "--typed", "Why?", "--typed", "Why?", "--out-dir", "answers", "--json"
    )
    lines = [json.loads(line) for line in out.splitlines()]
    assert (status, err, len(loads)) == (0, "", 1)
    assert all(set(line) >= FIELDS and line["error"] is None for line in lines)
    assert [line["question"] for line in lines] == ["a.wav", "deep/a.wav", "Why?", "Why?"]
    assert [line["audio"] for line in lines] == [f"answers/{name}.wav" for name in ("a", "a-2", "why", "why-2")]
    for line in lines:
        assert soundfile.info(tmp_path / line["audio"]).duration == pytest.approx(line["audio_seconds"], abs=1e-3)
        assert line["units"] and all(isinstance(unit, int) for unit in line["units"])


def test_text_only_makes_no_speech(run, tmp_path):
    record(tmp_path / "question.wav")
    status, out, _ = run("ask", "question.wav", "--typed", "Why?", "--text-only")
    assert status == 0 and out.count("answer: ") == 2 and "speech" not in out
    assert files(tmp_path) == ["question.wav"]
    line = json.loads(run("ask", "--typed", "Why?", "--text-only", "--json")[1])
    assert [line[name] for name in ("audio", "audio_seconds", "first_audio_seconds", "units")] == [None] * 4
    assert line["text"] == "You asked about Why."


def test_a_bad_question_does_not_stop_the_others(run, tmp_path):
    record(tmp_path / "good.wav")
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    status, out, err = run("ask", "bad.wav", "good.wav", "missing.wav", "--out-dir", "answers", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and err == ""
    assert [line["error"] is None for line in lines] == [False, True, False]
    assert "bad.wav" in lines[0]["error"] and "missing.wav" in lines[2]["error"] and lines[0]["text"] is None
    assert [path for path in files(tmp_path) if path.startswith("answers")] == ["answers/good.wav"]
    status, out, err = run("ask", "bad.wav", "good.wav", "--out-dir", "answers")
    assert status == 1 and "answer: You asked" in out and err.startswith("echox: bad.wav") and err.count("\n") == 1


def test_what_can_be_refused_is_refused_before_the_model_is_loaded(run, tmp_path, loads):
    record(tmp_path / "question.wav")
    assert run("ask", "missing.wav")[0] == 1
    status, _, err = run("ask", "question.wav", "-o", "none/answer.wav")
    assert status == 1 and "none" in err
    assert run("ask", "question.wav", "-o", "answer.mp3")[0] == 1
    assert loads == [] and files(tmp_path) == ["question.wav"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask"],
        ["ask", "a.wav", "b.wav"],
        ["ask", "a.wav", "b.wav", "-o", "answer.wav"],
        ["ask", "a.wav", "-o", "answer.wav", "--out-dir", "answers"],
        ["ask", "a.wav", "-o", "a.wav"],
        ["ask", "a.wav", "--text-only", "-o", "answer.wav"],
        ["ask", "a.wav", "--text-only", "--play"],
        ["ask", "a.wav", "--max-seconds", "0"],
        ["translate", "a.wav", "--to", "text", "--max-seconds", "2"],
        ["talk", "--endpoint", "http://127.0.0.1:1/v1", "--llm", "other"],
        ["ask", "a.wav", "--nonsense"],
        ["nonsense"],
    ],
)
def test_wrong_usage_ends_with_2(run, tmp_path, arguments, loads):
    record(tmp_path / "a.wav")
    status, out, err = run(*arguments)
    assert status == 2 and out == "" and "Usage" in err and loads == [] and files(tmp_path) == ["a.wav"]


def test_an_answer_never_replaces_a_question(run, tmp_path):
    before = record(tmp_path / "a.wav").read_bytes()
    assert run("ask", "a.wav", "--out-dir", ".")[0] == 0
    assert (tmp_path / "a.wav").read_bytes() == before and files(tmp_path) == ["a-2.wav", "a.wav"]


def test_max_seconds_limits_the_speech_and_says_so(run, tmp_path):
    status, out, _ = run("ask", "--typed", "Why?", "--max-seconds", "0.3")
    assert status == 0 and "[cut at the limit]" in out
    assert soundfile.info(tmp_path / "answer.wav").frames == 4_800


def test_no_garbage_is_collected_while_a_model_loads_and_it_is_afterwards():
    with answers.loading("mini"):
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count()
    gc.unfreeze()
    with pytest.raises(ModelError), answers.loading("mini"):
        raise ModelError("it is broken.")
    assert gc.isenabled()


def test_a_model_that_does_not_load_is_one_sentence(run, tmp_path, monkeypatch):
    def fail(*_, **places):
        raise ModelError("unknown model 'huge': give mini.")

    monkeypatch.setattr(answers, "load_assistant", fail)
    assert run("ask", "--typed", "Why?") == (1, "", "echox: unknown model 'huge': give mini.\n")
    status, out, err = run("ask", "--typed", "Why?", "--json")
    assert (status, err, json.loads(out)["error"]) == (1, "", "unknown model 'huge': give mini.")
    assert files(tmp_path) == []


def test_answers_are_named_after_their_questions():
    assert stem_of("some/Question.one.wav", "answer") == "Question.one" and stem_of("-", "answer") == "answer"
    assert in_words("What is the capital of France?") == "what-is-the-capital-of-france"
    assert in_words("../../etc/passwd") == "etc-passwd" and in_words("???") == "typed"


def test_what_cannot_be_meant_is_refused_before_anything_is_loaded(run, loads, tmp_path):
    assert run("ask", "--typed", " ", "-o", "a.wav")[::2] == (
        1,
        "echox: the typed question is empty: write a few words.\n",
    )
    assert run("ask", "--typed", "Who?", "--seed", 10**20)[0] == 2
    assert run("ask", "--typed", "Who?", "--text-only", "--max-seconds", 2)[0] == 2
    assert loads == [] and files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_told_for_every_question(run, tmp_path):
    (tmp_path / "taken").write_text("a file")
    status, out, _ = run("ask", "--typed", "Who?", "--typed", "Where?", "--out-dir", "taken", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and [line["question"] for line in lines] == ["Who?", "Where?"]
    assert all("taken" in line["error"] and line["load_seconds"] is None for line in lines)


def test_where_nothing_was_understood_that_is_said_and_nothing_written(run, tmp_path):
    save_wav(tmp_path / "quiet.wav", 0.001 * np.sin(np.arange(16_000) / 9), 16_000)
    record(tmp_path / "loud.wav")
    status, out, err = run("ask", "quiet.wav", "loud.wav", "--out-dir", "answers")
    assert status == 1 and "nothing was understood in quiet.wav" in err and "You asked about" in out
    assert files(tmp_path / "answers") == ["loud.wav"]
    status, out, _ = run("ask", "quiet.wav", "--json", "--text-only")
    assert status == 1 and "nothing was understood" in json.loads(out)["error"]


def test_a_folder_stands_for_its_recordings(run, tmp_path):
    names = ["a.wav", "b.WAV", "c.caf", "d.oga"]  # whatever can be read, and by its content
    for name in reversed(names):
        record(tmp_path / "asked" / "made.wav").rename(tmp_path / "asked" / name)
    (tmp_path / "asked" / "notes.txt").write_text("no sound")
    status, out, _ = run("ask", "asked", "--text-only", "--json")
    assert status == 0 and [json.loads(line)["question"] for line in out.splitlines()] == [
        f"asked/{name}" for name in names
    ]
    (tmp_path / "empty").mkdir()
    status, _, err = run("ask", "empty", "--text-only")
    assert status == 1 and "holds no recording" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_folder_that_may_not_be_entered_is_one_sentence(run, tmp_path, mode):
    closed = tmp_path / "closed"
    closed.mkdir()
    record(closed / "a.wav")
    closed.chmod(mode)
    try:
        for arguments in (
            ("ask", closed),
            ("ask", closed / "a.wav"),
            ("ask", "--typed", "Hi?", "-o", closed / "b.wav"),
        ):
            status, _, err = run(*arguments)
            assert status == 1 and "closed" in err and err.startswith("echox: ") and err.count("\n") == 1, err
    finally:
        closed.chmod(0o700)
    assert sorted(path.name for path in closed.iterdir()) == ["a.wav"]


def test_a_recording_comes_and_speech_goes_through_pipes(loads, tmp_path, monkeypatch, capsysbinary):
    content = record(tmp_path / "question.wav").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    monkeypatch.setattr(sys, "argv", ["echox", "ask", "-", "-o", "-"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsysbinary.readouterr()
    wave, rate = soundfile.read(io.BytesIO(out))
    assert not ended.value.code and rate == 16_000 and len(wave) == 16_000
    assert b"question: standard input" in err and b"You asked about 0.5 seconds." in err


def test_a_recording_comes_through_the_pipe_of_a_shell(run, tmp_path):
    for content, words in (
        (record(tmp_path / "question.wav").read_bytes(), "0.5 seconds"),
        (b"no sound", "cannot be read"),
    ):
        end, begin = os.pipe()
        os.write(begin, content)
        os.close(begin)
        status, out, err = run("ask", f"/dev/fd/{end}", "--text-only")
        os.close(end)
        assert status == (words == "cannot be read") and words in out + err


def test_a_pipe_in_a_folder_is_refused_and_nobody_waits(run, tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    status, _, err = run("ask", tmp_path / "pipe.wav", "--text-only")
    assert status == 1 and "is a pipe" in err


def test_an_empty_or_broken_pipe_is_one_sentence(run, monkeypatch):
    for content, words in ((b"", "is empty"), (b"no sound at all", "cannot be read as audio")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        status, _, err = run("ask", "-", "--text-only")
        assert status == 1 and words in err and err.count("\n") == 1


def test_microphone_and_loudspeaker(run, tmp_path, monkeypatch):
    played = []
    device = SimpleNamespace(
        query_devices=lambda kind: {"name": kind},
        rec=lambda count, **_: 0.3 * np.ones((count, 1), np.float32) * np.sin(np.arange(count) / 9)[:, None],
        wait=lambda: None,
        play=lambda wave, rate: played.append((len(wave), rate)),
    )
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    status, out, _ = run("ask", "--mic", "1", "--play")
    assert status == 0 and "question: microphone" in out and played == [(16_000, 16_000)]

    def none(kind):
        raise ValueError(f"no default {kind} device")

    device.query_devices = none
    for option, words in ((("--mic", "1"), "no microphone"), (("--typed", "Hi.", "--play"), "no loudspeaker")):
        status, _, err = run("ask", *option)
        assert status == 1 and words in err and err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    status, _, err = run("ask", "--mic", "1")
    assert status == 1 and "openechox[audio]" in err


def test_names_that_are_loops_too_long_or_no_text_do_not_lose_the_batch(run, tmp_path):
    record(tmp_path / "good.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    bad = os.fsdecode(b"\xff\xfe.wav")
    record(tmp_path / bad)
    long = "n" * 300 + ".wav"
    status, out, err = run("ask", "loop.wav", long, bad, "good.wav", "--out-dir", "answers", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (1, "") and [line["error"] is None for line in lines] == [False, False, True, True]
    assert "loop.wav" in lines[0]["error"] and "nnn" in lines[1]["error"]
    assert (tmp_path / "answers" / bad).stat().st_size > 44 and (tmp_path / "answers" / "good.wav").exists()
    status, out, _ = run("ask", bad, "--out-dir", "plain")
    assert status == 0 and "\\udcff" in out


def test_typed_bytes_that_are_no_text_are_refused(run, tmp_path, loads):
    status, _, err = run("ask", "--typed", os.fsdecode(b"What \xff?"), "-o", "a.wav")
    assert status == 1 and "UTF-8" in err and loads == [] and files(tmp_path) == []


def test_a_place_that_cannot_be_is_one_sentence(run, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for place in ("loop/a.wav", "n" * 300 + ".wav", "n" * 300 + "/a.wav"):
        status, _, err = run("ask", "--typed", "Why?", "-o", place)
        assert status == 1 and err.startswith("echox: ") and err.count("\n") == 1


HERE = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
PROGRAM = """
import sys
from echox import cli
from echox.commands import answers, transcribe
from echox.generate.fake import FakeAssistant
answers.load_assistant = lambda *_, **places: FakeAssistant()
sys.argv = ["echox", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence_and_no_success(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "ask", "--typed", "Why?", "--text-only"],
            cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=HERE,
        )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "No space left" in done.stderr


LIMITED = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n" + PROGRAM


def test_a_disk_that_fills_up_while_speech_is_written_is_one_sentence_and_no_file(tmp_path):
    pytest.importorskip("resource", reason="Windows limits no file")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "ask", "--typed", "Why?", "-o", "speech.wav"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=HERE,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "speech.wav cannot be written" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_disk_that_fills_up_behind_standard_output_is_no_success(tmp_path, unbuffered):
    pytest.importorskip("resource", reason="Windows limits no file")
    with (tmp_path / "speech.wav").open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, "ask", "--typed", "Why?", "-o", "-"],
            stdout=file, stderr=subprocess.PIPE, text=True, check=False, env=HERE | {"PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("echox: standard output cannot be written")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_told_to_end_leaves_nothing_half_written(tmp_path, number):
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("whoever runs this test ignores the signal, and so do its processes")
    wait = "import time, wave\nwrite = wave.Wave_write.writeframesraw\n"
    wait += "def slow(*a, **k):\n    write(*a, **k)\n    print('half', flush=True)\n    time.sleep(30)\n"
    program = wait + "wave.Wave_write.writeframesraw = slow\n" + PROGRAM
    command = [sys.executable, "-c", program, "ask", "--typed", "Hello.", "--json", "-o", "speech.wav"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=HERE) as process:
        assert process.stdout and process.stdout.readline() == "half\n"
        assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
        process.send_signal(number)
    assert process.returncode == 128 + number and files(tmp_path) == []


def test_the_help_of_say_names_its_own_default(run):
    _, out, _ = run("say", "--help")
    assert "speech.wav" in out and "answer.wav" not in out


@pytest.mark.parametrize(
    ("model", "option", "why"),
    [("mini", ["--beam", "4"], "hears with one text in view"), ("mini-st", ["--llm", "x"], "without a chat model")],
)
def test_an_option_that_a_hearing_model_has_not_is_refused(run, tmp_path, model, option, why):
    record(tmp_path / "a.wav")
    status, out, err = run("transcribe", "a.wav", "--model", model, *option)
    assert status == 1 and out == "" and f"echox: {model} " in err and why in err and option[0] in err


def test_what_is_not_understood_is_no_transcript(run, tmp_path, monkeypatch):
    record(tmp_path / "a.wav")
    record(tmp_path / "b.wav")
    monkeypatch.setattr(transcribe, "load_hearing", lambda *_: lambda sound: "" if "a.wav" in str(sound) else "tea")
    status, out, err = run("transcribe", "a.wav", "b.wav")
    assert (status, out) == (1, "tea\n") and "nothing was understood in a.wav" in err
