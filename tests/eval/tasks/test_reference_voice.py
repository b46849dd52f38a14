"""The voice beside a reference voice, and clicks where streamed pieces meet."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from eval_fakes import RATE, FakeJudge, call, voice

from echox.audio import save_wav
from echox.errors import ConfigError, InputError
from echox.eval.results import read_results
from echox.eval.tasks import speech
from echox.eval.tasks.speech import (
    ReferenceVoice,
    changes,
    joins_tables,
    measure_joins,
    pitch,
    run_joins,
    run_speech,
    streamed,
)
from echox.generate.fake import FakeAssistant
from echox.generate.types import Piece

SECOND = np.arange(RATE) / RATE


def tone(hertz, seconds=1.0):
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)


class Teacher:
    """Speaks as the fakes do."""

    sample_rate, styles = RATE, ("teacher",)

    def speak(self, text, style, speed, seed):
        return voice(text)


@pytest.fixture
def results(tmp_path):
    """Two spoken answers, of which the judge misheard one word of five, and one that is empty."""
    texts = {"a": ("salt and bread", "salt and red"), "b": ("black tea", "black tea"), "c": ("", "")}
    lines = [{"type": "settings", "task": "qa", "model": "m", "judge": "fake judge", "shard": "0/1"}]
    for id, (text, heard) in texts.items():
        item = {"type": "item", "arm": "s2s", "id": id, "text": text, "transcript": heard, "question": f"what is {id}"}
        edits = sum(a != b for a, b in zip(text.split(), heard.split(), strict=True))
        item |= {
            "words": len(text.split()),
            "word_edits": edits,
            "characters": 9,
            "character_edits": edits,
            "error": "",
        }
        if text:
            save_wav(tmp_path / f"{id}.wav", np.tile(voice(text), 2), RATE)
            seconds = {"speech_seconds": 2.0, "words_per_second": 1.0, "pause_seconds": 0.0, "clipped": 0.0, "dc": 0.0}
            item |= {"audio": f"{id}.wav", "signal": seconds}
        lines.append(item)
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_same_texts_in_the_reference_voice_stand_beside_with_paired_differences(tmp_path, results, monkeypatch):
    monkeypatch.setattr("echox.eval.tasks.speech.dnsmos", lambda: lambda wave: {"dnsmos": 1.0 + len(wave) / RATE})
    beside = ReferenceVoice("hibari", Teacher(), FakeJudge())
    tables = run_speech([results], "dnsmos", None, tmp_path / "o", print, beside)
    quality, errors, table = tables
    assert [row[0] for row in quality.rows] == ["m s2s", "m s2s, said by hibari"] and len(errors.rows) == 2
    rows = {row[1]: row for row in table.rows}
    lengths = np.array([len(voice(text)) for text in ("salt and bread", "black tea")]) / RATE
    assert rows["dnsmos"][2] == "2" and rows["dnsmos"][5].startswith(
        f"{lengths.mean():+.2f} ["
    )  # ours is twice as long
    assert rows["WER %"][3:6:2] == ("20.00", rows["WER %"][5]) and rows["WER %"][5].startswith("+20.00 [")
    assert rows["speaking rate"][2] == "2" and "(hibari)" in rows["speaking rate"][4]
    (folder,) = (tmp_path / "o" / "audio").iterdir()
    assert folder.name.startswith("m_s2s__said_by_hibari") and (folder / "a.wav").is_file()
    before = (tmp_path / "o" / "speech.jsonl").read_bytes()
    run_speech([results], "dnsmos", None, tmp_path / "o", print, beside)
    assert (tmp_path / "o" / "speech.jsonl").read_bytes() == before
    (few, *_) = run_speech([results], "dnsmos", None, tmp_path / "few", print, None, 1)
    assert few.rows[0][1] == "1"


def test_runs_of_one_model_are_measured_apart_and_never_for_each_other(tmp_path, results, monkeypatch):
    """Clean and noise of one model, whose items have the same ids."""
    monkeypatch.setattr("echox.eval.tasks.speech.dnsmos", lambda: lambda wave: {"dnsmos": len(wave) / RATE})
    paths = []
    for condition, times in (("clean", 1), ("noise", 2)):
        folder = tmp_path / condition
        folder.mkdir()
        for id in "ab":
            save_wav(folder / f"{id}.wav", tone(200, times), RATE)
        settings, *items = results.read_text().splitlines()
        settings = json.dumps(json.loads(settings) | {"questions": f"set, {condition}"})
        paths.append(folder / "results.jsonl")
        paths[-1].write_text("\n".join([settings, *items]) + "\n")
    quality = run_speech(paths, "dnsmos", None, tmp_path / "both", print)[0]
    assert [row[::2] for row in quality.rows] == [
        ("m, set, clean s2s", "1.00 [1.00, 1.00]"),
        ("m, set, noise s2s", "2.00 [2.00, 2.00]"),
    ]
    run_speech(paths[:1], "dnsmos", None, tmp_path / "one", print)
    with pytest.raises(ConfigError, match="questions_mark was"):
        run_speech(paths[1:], "dnsmos", None, tmp_path / "one", print)


def test_what_failed_is_nothing_said_on_both_sides(tmp_path, results, monkeypatch):
    """A failed answer is said by its s2t text, of which both lose every word; a voice that cannot speak stops nothing."""
    lines = results.read_text().splitlines()
    failed = {
        "type": "item",
        "arm": "s2s",
        "id": "d",
        "text": "",
        "transcript": "",
        "question": "d",
        "error": "no voice",
    }
    said = {"type": "item", "arm": "s2t", "id": "d", "text": "three more words", "transcript": None, "error": ""}
    results.write_text("\n".join([*lines, json.dumps(failed), json.dumps(said)]) + "\n")
    voice_of = Teacher()

    def speak(text, *style):
        if text == "black tea":
            raise InputError("the voice cannot say this.")
        return voice(text)

    voice_of.speak = speak
    beside = ReferenceVoice("hibari", voice_of, FakeJudge())
    run_speech([results], "", None, tmp_path / "o", print, beside)
    _, items = read_results(tmp_path / "o" / "speech.jsonl")
    found = {(item["arm"], item["id"]): (item["words"], item["word_edits"], item["error"]) for item in items}
    assert found["m s2s", "d"] == (3, 3, "no voice") and found["m s2s, said by hibari", "d"] == (3, 0, "")
    words, edits, error = found["m s2s, said by hibari", "b"]
    assert (words, edits) == (2, 2) and "cannot say this" in error


def test_the_speaking_rate_is_ours_over_theirs():
    signal = {"pause_seconds": 0.0, "clipped": 0.0, "dc": 0.0, "words_per_second": 2.0}
    common = {"id": "a", "measures": {}, "words": 2, "word_edits": 0}
    items = [
        common | {"arm": "m", "signal": signal | {"speech_seconds": 2.0}},
        common | {"arm": "m, said by x", "signal": signal | {"speech_seconds": 1.0}},
    ]
    (_, row) = speech.reference_table(items).rows
    assert row[1] == "speaking rate" and row[5].startswith("50.0 [")  # twice as long for the same words: half as fast


def test_mistakes_about_the_reference_are_told(tmp_path, results):
    other = ReferenceVoice("hibari", Teacher(), FakeJudge("another"))
    with pytest.raises(ConfigError, match="heard by fake judge, not by another"):
        run_speech([results], "dnsmos", None, tmp_path / "o", print, other)
    with pytest.raises(ConfigError, match="give --judge"):
        ReferenceVoice.load("hibari", "", 15)
    with pytest.raises(ConfigError, match="--reference: .*nobody.*hibari"):
        ReferenceVoice.load("nobody", "whisper-base", 15)


def test_pitch_is_that_of_the_wave():
    for hertz in (90.0, 200.0, 350.0):
        assert pitch(tone(hertz, 0.04), RATE) == pytest.approx(hertz, rel=0.04)
    assert pitch(np.random.default_rng(0).standard_normal(640), RATE) == 0.0
    assert pitch(np.zeros(640), RATE) == 0.0 == pitch(tone(100, 0.01), RATE)


def test_a_cut_in_a_smooth_wave_is_no_click_and_a_jump_is():
    smooth = tone(150)
    whole = measure_joins([smooth[:8000], smooth[8000:]], RATE)
    torn = measure_joins([smooth[:8000], smooth[8000:] + 0.2], RATE)
    assert max(whole["at"]["step, times"]) < 1.2 < 5 < torn["at"]["step, times"][0]
    louder = changes(np.concatenate([smooth[:8000], 10 ** (6 / 20) * smooth[8000:]]), 8000, RATE)
    assert louder["energy, dB"] == pytest.approx(6, abs=1)
    higher = changes(np.concatenate([tone(150, 0.5), tone(300, 0.5)]), 8000, RATE)
    assert higher["pitch, st"] == pytest.approx(12, abs=0.5)
    assert "pitch, st" not in changes(np.zeros(RATE), 8000, RATE)


def test_joins_beyond_are_counted_over_answers():
    clean = [measure_joins([tone(150)[:8000], tone(150)[8000:]], RATE) | {"error": ""} for _ in range(3)]
    torn = measure_joins([tone(150)[:8000], tone(150)[8000:] + 0.2], RATE) | {"error": ""}
    (table,) = joins_tables({"model": "m"}, [*clean, torn])
    (row,) = [row for row in table.rows if row[0].startswith("step")]
    assert row[1] == "4" and row[5].startswith("25.0 [")
    assert joins_tables({"model": "m"}, []) == []


def test_the_interval_of_joins_beyond_is_over_answers():
    """Ten clicks of one answer and none of another are two draws, not twenty."""
    one, other = ({"step, times": [value] * 10} for value in (9.0, 0.0))
    elsewhere = {"step, times": [float(n % 2) for n in range(100)]}
    items = [{"at": at, "elsewhere": elsewhere, "error": ""} for at in (one, other)]
    assert joins_tables({"model": "m"}, items)[0].rows[0][5] == "50.0 [0.0, 100.0]"


def test_joins_are_those_of_the_streamed_pieces(tmp_path, results):
    (table,) = run_joins(FakeAssistant(), "fake", [results], 2, tmp_path)
    assert table.rows[0][1] == str(2 * 5)  # six words, so five joins, in each of two answers
    assert "fake: Joins" in call("report", tmp_path / "joins.jsonl", "-o", tmp_path / "r.html")
    broken = SimpleNamespace(stream=lambda typed: iter([Piece(audio=1 / 0)]), sample_rate=RATE)
    with pytest.raises(ZeroDivisionError):
        streamed(broken, "x")
    assert "InputError" in streamed(FakeAssistant(), "")["error"]
