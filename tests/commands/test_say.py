"""`echox say`: texts of any length from arguments, files and pipes; what is written, what is refused."""

import io
import json
import sys

import numpy as np
import pytest
import soundfile

from echox.audio import load_audio, wav_header
from echox.commands import answers
from echox.errors import ModelError
from echox.generate.fake import WORD_SAMPLES

pytest.importorskip("kitten_text_processing", reason="a new dependency: install the package again")


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class Standard:
    """Standard output or input that is a pipe or a file: text in front, bytes behind."""

    def __init__(self, buffer):
        self.buffer = buffer

    def isatty(self):
        return False

    def write(self, text):
        return len(text)

    def flush(self):
        pass


class Pipe(io.BytesIO):
    def seekable(self):
        return False


def test_say_speaks_a_text(run):
    assert run("say", "Two words.") == (0, "speech: speech.wav (0.4 s)\n", "")
    line = json.loads(run("say", "Two words.", "--json")[1])
    assert line["question"] == "Two words." and line["audio"] == "speech.wav" and line["error"] is None
    assert line["audio_seconds"] == 0.4 and len(line["units"]) == 2 and line["left_out"] == ""
    status, _, err = run("say", " ")
    assert status == 1 and "empty" in err


def test_options_reach_the_loader(run, loads, tmp_path):
    run("say", "Hello.", "--model", "here", "--llm", "there", "--device", "cpu", "--dtype", "float32", "-o", "x.wav")
    assert [str(value) for value in loads[0]] == ["here", "there", "cpu", "float32"] and files(tmp_path) == ["x.wav"]


def test_numbers_become_words(run):
    line = json.loads(run("say", "It costs $5.50.", "--json")[1])
    assert line["text"] == "It costs five dollars fifty cents."


def test_what_cannot_be_said_is_left_out_with_a_warning_or_refused(run, loads, tmp_path):
    status, out, err = run("say", "Hello 中文 there 🎉.")
    assert status == 0 and "speech.wav" in out and err.count("\n") == 1 and "中文🎉" in err
    loads.clear()
    status, out, err = run("say", "🎉 中文", "-o", "x.wav")
    assert (status, out, loads) == (1, "", []) and "nothing that can be said" in err
    assert json.loads(run("say", "🎉", "--json")[1])["error"] and files(tmp_path) == ["speech.wav"]


def test_a_long_file_is_said_in_pieces_and_sounds_as_one(run, tmp_path):
    text = "\n".join("The line has some words, and more of them. " * 4 + f"Line {number}." for number in range(26))
    (tmp_path / "book.txt").write_text(text, encoding="utf-8")
    status, out, err = run("say", "--file", "book.txt", "-o", "book.wav", "--json")
    line = json.loads(out)
    assert (status, err) == (0, "") and len(line["text"]) > 4_000
    sound = soundfile.info(tmp_path / "book.wav")
    assert sound.frames == WORD_SAMPLES * len(line["text"].split()) == WORD_SAMPLES * len(line["units"])
    status, out, _ = run("say", "-f", "book.txt", "--max-seconds", "7.5")
    assert status == 0 and out == "speech: speech.wav (7.5 s) [cut at the limit]\n"
    assert soundfile.info(tmp_path / "speech.wav").frames == 120_000


@pytest.mark.parametrize("given", [["-"], ["--file", "-"]], ids=["text", "file"])
@pytest.mark.parametrize("buffer", [Pipe, io.BytesIO], ids=["pipe", "file"])
def test_from_a_pipe_into_a_pipe(run, monkeypatch, tmp_path, buffer, given):
    monkeypatch.setattr(sys, "stdin", Standard(io.BytesIO(b"Two words.")))
    out = buffer()
    monkeypatch.setattr(sys, "stdout", Standard(out))
    assert run("say", *given, "-o", "-")[0] == 0
    content = out.getvalue()
    assert len(load_audio(content)) == 2 * WORD_SAMPLES and len(content) == 44 + 4 * WORD_SAMPLES
    assert files(tmp_path) == []


def test_the_header_is_the_one_that_libsndfile_writes(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(100, np.int16), 16_000, subtype="PCM_16")
    assert (tmp_path / "a.wav").read_bytes() == wav_header(16_000, 200) + bytes(200)


def test_what_is_wrong_with_texts_is_one_sentence(run, monkeypatch, tmp_path, loads):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for arguments in (["-f", "missing.txt"], ["-f", "latin.txt"], ["-f", "."], ["Hi", "-o", "no/a.wav"]):
        status, out, err = run("say", *arguments)
        assert (status, out) == (1, "") and err.startswith("echox: ") and err.count("\n") == 1
    for content in (b"", b"\xff\xfe\xff"):
        monkeypatch.setattr(sys, "stdin", Standard(io.BytesIO(content)))
        assert run("say", "-")[0] == 1
    for arguments in (
        [],
        ["a", "-f", "b.txt"],
        ["a", "--json", "-o", "-"],
        ["a", "--max-seconds", "0"],
        ["a", "--seed", "1"],
    ):
        assert run("say", *arguments)[0] == 2  # a voice draws nothing: there is no seed
    assert loads == []


def test_a_model_that_does_not_load_is_one_sentence(run, tmp_path, monkeypatch):
    def fail(*_):
        raise ModelError("unknown model 'huge': give mini.")

    monkeypatch.setattr(answers, "load_assistant", fail)
    assert run("say", "Hello.") == (1, "", "echox: unknown model 'huge': give mini.\n")
    assert files(tmp_path) == []
