"""Manifests keep their records and their audio, and say what is wrong with a bad one."""

import numpy as np
import pytest

from echox.audio import save_wav
from echox.data.manifest import read_audio, read_manifest, write_jsonl, write_manifest
from echox.errors import InputError, OutputError

RECORD = {"id": "a", "audio": "shard.npy", "start": 3, "samples": 4, "sample_rate": 16_000, "answers": ["Évora"]}


def test_round_trip_keeps_everything(tmp_path):
    write_manifest(tmp_path / "m.jsonl", [RECORD])
    assert read_manifest(tmp_path / "m.jsonl") == [RECORD]
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl"]


def test_audio_is_the_slice_of_the_shard(tmp_path):
    np.save(tmp_path / "shard.npy", np.arange(10, dtype=np.int16) * 1000)
    wave = read_audio(RECORD, tmp_path)
    assert wave.dtype == np.float32
    np.testing.assert_allclose(wave * 32768, [3000, 4000, 5000, 6000])


def test_a_shard_of_the_same_name_elsewhere_or_made_again_is_another(tmp_path, monkeypatch):
    for folder, value in (("a", 100), ("b", 200), ("b", 300)):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        (tmp_path / folder / "new.npy").unlink(missing_ok=True)
        np.save("new.npy", np.full(RECORD["start"] + RECORD["samples"] + value, value, np.int16))
        wave = read_audio({**RECORD, "audio": "new.npy"}, ".")
        np.testing.assert_allclose(wave, value / 32768)


def test_a_sound_file_is_resampled_and_is_as_long_as_its_record(tmp_path):
    save_wav(tmp_path / "a.wav", 0.1 * np.sin(np.arange(8000)), 8000)
    record = {"id": "a", "audio": "a.wav", "samples": 8000, "sample_rate": 8000}
    assert len(read_audio(record, tmp_path)) == 8000 and len(read_audio(record, tmp_path, 16_000)) == 16_000
    with pytest.raises(InputError, match=r"a\.wav ends after 1\.00 s of 1\.50"):
        read_audio(record | {"samples": 12_000}, tmp_path, 16_000)
    with pytest.raises(InputError, match="16000 Hz where 24000 are needed"):
        read_audio(RECORD, tmp_path, 24_000)


def test_short_missing_and_broken_shards_are_named(tmp_path):
    with pytest.raises(InputError, match="missing"):
        read_audio(RECORD, tmp_path)
    np.save(tmp_path / "shard.npy", np.zeros(5, dtype=np.int16))
    with pytest.raises(InputError, match="ends before a"):
        read_audio(RECORD, tmp_path)
    (tmp_path / "broken.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"broken\.npy"):
        read_audio({**RECORD, "audio": "broken.npy"}, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": 1\n', "line 1 is not JSON"),
        (b"[1]\n", "line 1 is not a JSON object"),
        (b'{"id": "a"}\n', "line 1 has no `audio`"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"id": ' + b"9" * 5000 + b"}", "line 1 cannot be read"),
        (
            b'\xef\xbb\xbf{"id": "a", "audio": "a.wav", "samples": NaN, "sample_rate": 1}',
            "line 1 has no `samples`, a whole number from 0 on",
        ),
        (
            b'{"id": "a", "audio": "a.wav", "samples": 0, "sample_rate": 0}',
            "no `sample_rate`, a whole number from 1 on",
        ),
        (b'{"id": 7, "audio": "a.wav", "samples": 0, "sample_rate": 1}', "line 1 has no `id`, a text"),
    ],
)
def test_bad_manifests_are_explained(tmp_path, content, message):
    (tmp_path / "m.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path / "m.jsonl")


def test_missing_manifest_and_unwritable_place(tmp_path):
    with pytest.raises(InputError, match="is missing"):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_jsonl(tmp_path / "file" / "m.jsonl", [])


def test_incomplete_record_is_not_written(tmp_path):
    with pytest.raises(InputError, match="no `samples`"):
        write_manifest(tmp_path / "m.jsonl", [{"id": "a", "audio": "x"}])
    assert not list(tmp_path.iterdir())
