"""Word errors are counted right, and clips or voices above a limit are dropped."""

import json

import numpy as np
import pytest

from echox.audio import save_wav
from echox.data.manifest import read_manifest, write_manifest
from echox.errors import ConfigError, InputError, ModelError
from echox.prepare.filters import (
    drop_voices,
    error_by_voice,
    keep_clear,
    measure,
    transcribe_real,
    word_errors,
    write_filtered,
)
from echox.prepare.recogniser import Heard, Whisper
from echox.prepare.stretches import Word


class Script:
    """A recogniser that reads its lines in turn."""

    def __init__(self, *lines: str, log_probability: float = -0.1) -> None:
        self.lines, self.log_probability = list(lines), log_probability

    def hear(self, wave: np.ndarray) -> Heard:
        return Heard(self.lines.pop(0), self.log_probability)


@pytest.mark.parametrize(
    ("reference", "heard", "expected"),
    [
        ("Who is it?", "who is it", (0, 3)),
        ("Who is it?", "", (3, 3)),
        ("What is the capital of France?", "what's the capital in france now", (2, 6)),
        ("twenty two cats", "22 dogs", (1, 2)),
        ("", "noise", (1, 0)),
    ],
)
def test_word_errors(reference, heard, expected):
    assert word_errors(reference, heard) == expected


@pytest.fixture
def manifest(tmp_path):
    np.save(tmp_path / "s.npy", np.zeros(40, dtype=np.int16))
    rows = [("a", "flite-awb-p1.000"), ("b", "flite-awb-p0.950"), ("c", "kokoro-af_heart+am_adam@0.30-p1.000")]
    records = [
        {
            "id": key,
            "audio": "s.npy",
            "start": 10 * n,
            "samples": 10,
            "sample_rate": 16_000,
            "text": "one big cat",
            "speaker": voice,
        }
        for n, (key, voice) in enumerate(rows)
    ]
    write_manifest(tmp_path / "manifest.jsonl", records)
    return tmp_path / "manifest.jsonl"


def test_measured_errors_by_clip_and_by_voice(manifest):
    measured = measure(manifest, Script("one big cat", "a bit", "one big cat"))
    rates = error_by_voice(measured)
    assert rates == {"flite-awb": (0.5, 2), "kokoro-af_heart": (0.0, 1)}
    assert [record["id"] for record in keep_clear(measured, 0.25)] == ["a", "c"]
    assert "heard" not in keep_clear(measured, 0.25)[0]
    assert [record["id"] for record in drop_voices(read_manifest(manifest), rates, 0.25)] == ["c"]
    assert len(measure(manifest, Script("x"), sample=1)) == 1


def test_a_clip_without_a_text_is_named(manifest):
    records = read_manifest(manifest)
    del records[1]["text"]
    write_manifest(manifest, records)
    script = Script("one big cat", "one big cat", "one big cat")
    with pytest.raises(InputError, match="does not say what is said in b"):
        measure(manifest, script)
    assert len(script.lines) == 3  # nothing was heard


def test_filtered_manifest_stays_beside_its_audio(manifest, tmp_path):
    records = read_manifest(manifest)
    write_filtered(manifest, records[:1], manifest.with_name("clear.jsonl"))
    assert read_manifest(manifest.with_name("clear.jsonl")) == records[:1]
    with pytest.raises(InputError, match="must lie beside"):
        write_filtered(manifest, records, tmp_path / "elsewhere" / "clear.jsonl")


def test_real_recordings_need_a_sure_transcript(tmp_path, caplog):
    clips = tmp_path / "clips"
    clips.mkdir()
    rng = np.random.default_rng(0)
    for name, seconds in (("12-a", 0.5), ("13-b", 0.5), ("14-long", 29)):
        save_wav(clips / f"{name}.wav", 0.1 * rng.standard_normal(int(seconds * 16_000)), 16_000)
    (clips / "11-broken.wav").write_bytes(b"RIFF, and no more")
    for _ in range(2):  # its own files are written again
        assert transcribe_real(clips, tmp_path / "real", Script("Hello there.", ""), held_out=1) == (1, 4)
    assert "left out" in caplog.text and "11-broken.wav" in caplog.text
    (record,) = read_manifest(tmp_path / "real" / "manifest.jsonl")
    assert (record["text"], record["speaker"], record["samples"]) == ("Hello there.", "real-12", 8000)
    for name in ("one", "two"):
        (tmp_path / "nested" / name).mkdir(parents=True)
        (tmp_path / "nested" / name / "1.wav").write_bytes((clips / "12-a.wav").read_bytes())
    assert transcribe_real(tmp_path / "nested", tmp_path / "both", Script("Yes.", "No.")) == (2, 2)
    assert [record["id"] for record in read_manifest(tmp_path / "both" / "manifest.jsonl")] == [
        "one/1.wav",
        "two/1.wav",
    ]
    unsure = Script("Hello.", "Hello.", log_probability=-2.0)
    assert transcribe_real(clips, tmp_path / "none", unsure) == (0, 4)
    assert not (tmp_path / "none").exists()


def test_stretches_of_real_recordings_are_a_corpus_of_their_own(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    save_wav(clips / "12-a.wav", np.r_[np.zeros(8000), 0.2 * np.ones(8000), np.zeros(8000)], 16_000)
    recogniser = Script()
    recogniser.words = lambda wave: [Word(" hello.", 0.5, 1.0, 0.9)]
    assert transcribe_real(clips, tmp_path / "spans", recogniser, spans=30) == (1, 1)
    records = read_manifest(tmp_path / "spans" / "manifest.jsonl")
    assert records[0]["text"] == "hello." and records[0]["speaker"] == "real-12" and records[0]["samples"] == 14_400
    assert len({record["id"] for record in records}) == len(records)
    with pytest.raises(ConfigError, match="leave out --min-log-probability"):
        transcribe_real(clips, tmp_path / "both", recogniser, -0.5, spans=30)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="holds no recording"):
        transcribe_real(tmp_path, tmp_path / "out", Script())
    with pytest.raises(InputError, match=r"no model\.bin"):
        Whisper(tmp_path)
    (tmp_path / "m.jsonl").write_text(json.dumps({"id": "a"}))
    with pytest.raises(InputError, match="no `audio`"):
        measure(tmp_path / "m.jsonl", Script())


def test_a_recogniser_whose_weights_are_broken_is_named(tmp_path):
    pytest.importorskip("faster_whisper")
    (tmp_path / "model.bin").write_bytes(b"no weights")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=f"{tmp_path} cannot be loaded as a Whisper model .*: fetch it again"):
        Whisper(tmp_path)
