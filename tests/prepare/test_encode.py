"""Corpora to states: broken clips are left out up to a bound, rates are checked, another layer needs another folder."""

import numpy as np
import pytest

from echox.audio import save_wav
from echox.data.manifest import read_manifest, write_manifest
from echox.data.states import read_ragged
from echox.errors import ConfigError, InputError
from echox.prepare.encode import Recipe, encode_shards, in_batches, run
from echox.train.stages import load_recipe
from echox.train.toy import write_encoder


@pytest.fixture
def corpus(tmp_path):
    random, records = np.random.default_rng(0), []
    for number, seconds in enumerate((0.5, 0.9, 0.6, 0.5)):
        wave = 0.1 * random.standard_normal(int(16_000 * seconds)).astype(np.float32)
        save_wav(tmp_path / f"{number}.wav", wave, 16_000)
        records.append({"id": f"u{number}", "audio": f"{number}.wav", "samples": len(wave), "sample_rate": 16_000})
    write_manifest(tmp_path / "shard-00000.jsonl", records)
    return tmp_path


def mean_and_length(waves):
    return [np.full((len(wave) // 320, 1), wave.mean(), np.float32) for wave in waves]


def test_broken_clips_are_left_out_and_named_up_to_a_bound(corpus, caplog):
    (corpus / "1.wav").write_bytes(b"RIFF")
    whole = (corpus / "2.wav").read_bytes()
    (corpus / "2.wav").write_bytes(whole[: len(whole) // 2])  # its header still promises all of it
    encode_shards(corpus, corpus / "states", mean_and_length, most_skipped=2)
    assert [record["id"] for record, _ in read_ragged(corpus / "states", corpus)] == ["u0", "u3"]
    assert "u1 is left out" in caplog.text and "u2 is left out" in caplog.text
    with pytest.raises(InputError, match="2 clips of .* cannot be used"):
        encode_shards(corpus, corpus / "other", mean_and_length, most_skipped=1)
    assert not list(corpus.glob("other/*"))


def test_a_shard_of_samples_at_another_rate_is_refused(corpus):
    np.save(corpus / "pcm.npy", np.ones(24_000, np.int16))
    record = {"id": "u", "audio": "pcm.npy", "samples": 24_000, "sample_rate": 24_000, "start": 0}
    write_manifest(corpus / "shard-00000.jsonl", [record])
    with pytest.raises(InputError, match="24000 Hz where 16000 are needed"):
        encode_shards(corpus, corpus / "states", mean_and_length, most_skipped=0)


def test_a_sound_file_at_another_rate_is_resampled(corpus):
    noise = 0.1 * np.random.default_rng(0).standard_normal(24_000).astype(np.float32)
    save_wav(corpus / "0.wav", noise, 24_000)
    records = read_manifest(corpus / "shard-00000.jsonl")
    write_manifest(corpus / "shard-00000.jsonl", [records[0] | {"samples": 24_000, "sample_rate": 24_000}])
    encode_shards(corpus, corpus / "states", mean_and_length)
    assert [len(rows) for _, rows in read_ragged(corpus / "states", corpus)] == [50]


def test_batches_hold_so_many_seconds_and_every_wave_its_own_states():
    waves = [np.full(16_000 * seconds, seconds, np.float32) for seconds in (3, 1, 2, 1, 5)]
    sizes = []

    def encode(batch):
        sizes.append((len(batch), max(map(len, batch)) // 16_000))
        return mean_and_length(batch)

    found = in_batches(encode, 4.0)(waves)
    assert [float(states[0, 0]) for states in found] == [3, 1, 2, 1, 5]
    assert all(count == 1 or count * longest <= 4 for count, longest in sizes) and len(sizes) == 4


def test_another_layer_needs_another_folder_and_shards_join(corpus, tmp_path):
    write_encoder(tmp_path / "encoder")
    write_manifest(
        corpus / "shard-00001.jsonl", [r | {"id": f"{r['id']}b"} for r in read_manifest(corpus / "shard-00000.jsonl")]
    )
    values = {
        "stage": "encode",
        "out": tmp_path / "states",
        "encoder": tmp_path / "encoder",
        "layer": 1,
        "corpora": [corpus],
    }

    def made(**changes):
        return run(Recipe.parse(values | changes, "test"))

    made(shard=(1, 2))
    folder = tmp_path / "states" / corpus.name
    assert [path.stem for path in folder.glob("*.npz")] == ["shard-00001"]
    made(shard=(0, 2))
    parts = [rows for _, rows in read_ragged(folder, corpus)]
    made(out=tmp_path / "whole")
    whole = [rows for _, rows in read_ragged(tmp_path / "whole" / corpus.name, corpus)]
    assert all(np.array_equal(a, b) for a, b in zip(parts, whole, strict=True)) and len(whole) == 8
    with pytest.raises(ConfigError, match="another layer .1 before, 2 now"):
        made(layer=2)
    for wrong, words in (
        ({"shard": (2, 2)}, "is not I/N"),
        ({"corpora": [corpus, tmp_path / "dev" / corpus.name]}, f"two corpora are called {corpus.name}"),
        ({"device": "cuda:77", "out": tmp_path / "x"}, "cuda:77"),
    ):
        with pytest.raises(ConfigError, match=words):
            made(**wrong)


def test_toy_recipe_of_the_stage_loads():
    assert load_recipe("recipes/debug/encode.yaml").most_skipped == 20
