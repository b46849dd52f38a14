"""Corpora are the same however they are split or resumed, and their manifests point at their samples."""

import shutil

import numpy as np
import pytest

from echox.audio import resample, save_wav
from echox.config.shard import shard_of
from echox.data.manifest import read_audio, read_manifest, save_shard, write_jsonl
from echox.errors import ConfigError, InputError, MissingDependency, OutputError
from echox.prepare.recipe import VoiceChoice
from echox.prepare.speak import Speaker, speak_corpus
from echox.prepare.texts import write_texts
from echox.prepare.voices import ToneVoice, make_voice


@pytest.fixture
def texts(recipe, tmp_path):
    write_texts(recipe, tmp_path / "texts")
    return tmp_path / "texts" / "qa_train.jsonl"


def spoken(recipe, texts, folder, *parts, corpus="user"):
    for part in parts or ("0/1",):
        speaker = Speaker(recipe.corpus(corpus), make_voice, recipe.sample_rate)
        speak_corpus(texts, folder, speaker, recipe.shard_texts, shard_of(part))
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_split_and_resumed_corpora_are_equal_to_the_whole(recipe, texts, tmp_path):
    whole = contents(spoken(recipe, texts, tmp_path / "whole"))
    assert "manifest.jsonl" in whole and len([name for name in whole if name.endswith(".npy")]) == 5
    halves = spoken(recipe, texts, tmp_path / "halves", "1/2")
    assert "manifest.jsonl" not in contents(halves)
    assert contents(spoken(recipe, texts, halves, "0/2")) == whole
    (halves / "shard-00001.jsonl").unlink()
    (halves / "shard-00001.npy").write_bytes(b"cut off")
    assert contents(spoken(recipe, texts, halves)) == whole


def test_records_describe_their_samples(recipe, texts, tmp_path):
    folder = spoken(recipe, texts, tmp_path / "user")
    records = read_manifest(folder / "manifest.jsonl")
    assert len({record["speaker"] for record in records}) > 3
    for record in records:
        wave = read_audio(record, folder)
        assert len(wave) == record["samples"] and record["role"] == "user" and record["split"] == "train"
        peak = 20 * np.log10(np.abs(wave).max())
        assert abs(peak - record["perturbed"]["peak_dbfs"]) < 0.2
        assert record["answer"] == record["answers"][0]


def test_pitch_moves_the_tone_and_tempo_sets_the_length(recipe, texts, tmp_path):
    folder = spoken(recipe, texts, tmp_path / "plain", corpus="plain")
    for record in read_manifest(folder / "manifest.jsonl")[:4]:
        pitch = float(record["speaker"].rpartition("-p")[2])
        expected = 0.04 * 16_000 * len(record["text"]) / record["tempo"]
        assert abs(record["samples"] / expected - 1) < 0.02
        first = read_audio(record, folder)[: int(0.04 * 16_000 / record["tempo"])]
        spectrum = np.abs(np.fft.rfft(first * np.hanning(len(first)), 16_000))
        assert abs(spectrum.argmax() / (ord(record["text"][0].lower()) * 10 * pitch) - 1) < 0.03


def test_single_files_come_with_a_table(recipe, texts, tmp_path):
    pytest.importorskip("echox.audio")
    corpus = recipe.corpus("plain").model_copy(update={"files": True, "take": 4})
    speak_corpus(texts, tmp_path / "files", Speaker(corpus, make_voice), 3)
    header, *rows = (tmp_path / "files" / "questions.tsv").read_text().splitlines()
    assert header.split("\t") == ["id", "question", "answers", "audio"]
    records = read_manifest(tmp_path / "files" / "manifest.jsonl")
    assert [row.split("\t")[3] for row in rows] == [record["audio"] for record in records]
    assert len(rows) == 4 and all((tmp_path / "files" / row.split("\t")[3]).is_file() for row in rows)
    assert len(read_audio(records[0], tmp_path / "files")) == records[0]["samples"]


def test_single_files_of_somebody_else_stay_and_those_of_a_killed_run_are_made_again(recipe, tmp_path):
    corpus, out, texts = (
        recipe.corpus("plain").model_copy(update={"files": True}),
        tmp_path / "out",
        tmp_path / "t.jsonl",
    )
    write_jsonl(texts, [{"id": str(number), "question": f"Is it {number}?"} for number in range(4)])
    whole = tmp_path / "whole"
    speak_corpus(texts, whole, Speaker(corpus, make_voice), 2)
    out.mkdir()
    (out / "3.wav").write_bytes(b"my only recording")
    with pytest.raises(OutputError, match=r"out holds a 3\.wav of something else"):
        speak_corpus(texts, out, Speaker(corpus, make_voice), 2)
    assert contents(out) == {"3.wav": b"my only recording"}
    (out / "3.wav").unlink()
    killed, said = Speaker(corpus, make_voice), []

    def dies(path, *arguments):
        said.append(path)
        if len(said) == 2:
            raise KeyboardInterrupt
        save_wav(path, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("echox.data.manifest.save_wav", dies)
        speak_corpus(texts, out, killed, 2)
    assert set(contents(out)) == {"0.wav", "run.json"}
    speak_corpus(texts, out, Speaker(corpus, make_voice), 2)
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("name", ["../a", "a/b", "..", ".hidden", "", "a\\b", "a" * 300])
def test_an_id_that_is_no_file_name_is_refused(recipe, tmp_path, name):
    corpus, texts = recipe.corpus("plain").model_copy(update={"files": True}), tmp_path / "t.jsonl"
    write_jsonl(texts, [{"id": name, "question": "Is it?"}])
    with pytest.raises(InputError, match="is no file name"):
        speak_corpus(texts, tmp_path / "deep" / "out", Speaker(corpus, make_voice), 2)
    assert not (tmp_path / "deep").exists() and not list(tmp_path.rglob("*.wav"))


def test_shards_of_other_texts_are_refused(recipe, tmp_path):
    speaker, texts = Speaker(recipe.corpus("plain"), make_voice), tmp_path / "t.jsonl"
    rows = [{"id": str(number), "question": f"Is it {number}?"} for number in range(4)]
    write_jsonl(texts, rows)
    speak_corpus(texts, tmp_path / "out", speaker, 2, (1, 2))
    write_jsonl(texts, [*rows[:3], {"id": "3", "question": "Is it so?"}])
    with pytest.raises(InputError, match="shard-00001.jsonl was made of other texts"):
        speak_corpus(texts, tmp_path / "out", speaker, 2)
    write_jsonl(texts, rows[:2])
    with pytest.raises(InputError, match="other texts"):
        speak_corpus(texts, tmp_path / "out", speaker, 2)


@pytest.mark.parametrize(("name", "value"), [("seed", 4), ("perturb", None), ("voices", [VoiceChoice(kind="tones")])])
def test_shards_of_other_voices_or_another_seed_are_refused(recipe, texts, tmp_path, name, value):
    folder = spoken(recipe, texts, tmp_path / "user", "0/2")
    before, other = contents(folder), recipe.corpus("user").model_copy(update={name: value})
    with pytest.raises(ConfigError, match=rf"user was made with another {name}"):
        speak_corpus(texts, folder, Speaker(other, make_voice), recipe.shard_texts)
    assert contents(folder) == before


def test_a_folder_of_recordings_and_answers_that_are_no_list_are_refused(recipe, tmp_path):
    speaker, texts, out = Speaker(recipe.corpus("plain"), make_voice), tmp_path / "t.jsonl", tmp_path / "out"
    write_jsonl(texts, [{"id": "a", "question": "Is it?", "answers": "Ann"}])
    with pytest.raises(InputError, match="answers of a are no list of texts"):
        speak_corpus(texts, out, speaker, 2)
    write_jsonl(texts, [{"id": "a", "question": "Is it?"}])
    write_jsonl(out / "shard-00000.jsonl", [{"id": "a", "audio": "a.wav"}])  # as of recordings without texts
    with pytest.raises(InputError, match="other texts"):
        speak_corpus(texts, out, speaker, 2)


def test_texts_without_the_field_and_silent_voices_are_refused(recipe, tmp_path):
    speaker = Speaker(recipe.corpus("plain"), make_voice)
    write_jsonl(tmp_path / "t.jsonl", [{"id": "a", "question": "ok?"}, {"id": "b", "text": "no question"}])
    with pytest.raises(InputError, match="line 2 has no `id` or no `question`"):
        speak_corpus(tmp_path / "t.jsonl", tmp_path / "out", speaker, 3)
    speaker.voices[0].speak = lambda *_: np.zeros(0, dtype=np.float32)
    write_jsonl(tmp_path / "t.jsonl", [{"id": "a", "question": "ok?"}])
    with pytest.raises(InputError, match="said nothing"):
        speak_corpus(tmp_path / "t.jsonl", tmp_path / "out", speaker, 3)


def test_missing_packages_programs_and_weights_are_named(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "hibari", None)
    with pytest.raises(MissingDependency, match="hibari"):
        make_voice(VoiceChoice(kind="hibari"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingDependency, match="apt-get install flite"):
        make_voice(VoiceChoice(kind="flite"))
    with pytest.raises(ConfigError, match="--kokoro"):
        make_voice(VoiceChoice(kind="kokoro", styles=("af_heart",)))


def test_resampling_keeps_a_tone():
    wave = ToneVoice().speak("aaaaaaaaaa", "tones", 1.0, 0)
    assert len(resample(wave, 16_000, 8_000)) == len(wave) // 2


def test_a_shard_whose_lines_are_all_left_out_is_empty_and_whole(tmp_path):
    save_shard(tmp_path, 3, [], files=False)
    assert read_manifest(tmp_path / "shard-00003.jsonl") == [] and len(np.load(tmp_path / "shard-00003.npy")) == 0
