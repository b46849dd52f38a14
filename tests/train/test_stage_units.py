"""Units from states that were encoded before are those that the sound itself gives; states of another layer are refused."""

import numpy as np
import pytest

from echox.audio import save_wav
from echox.data.manifest import read_manifest, write_manifest
from echox.data.states import read_ragged
from echox.errors import ConfigError, InputError
from echox.prepare import encode
from echox.train import stage_units
from echox.train.toy import write_encoder
from echox.units.extractor import load_centroids


@pytest.fixture
def world(tmp_path):
    random, corpus = np.random.default_rng(0), tmp_path / "corpus"
    corpus.mkdir()
    for shard in range(2):
        records = []
        for number, seconds in enumerate((0.5, 0.9, 0.6)):
            wave = 0.1 * random.standard_normal(int(16_000 * seconds)).astype(np.float32)
            save_wav(corpus / f"{shard}-{number}.wav", wave, 16_000)
            records.append(
                {
                    "id": f"u{shard}{number}",
                    "audio": f"{shard}-{number}.wav",
                    "samples": len(wave),
                    "sample_rate": 16_000,
                }
            )
        write_manifest(corpus / f"shard-{shard:05d}.jsonl", records)
    (corpus / "0-2.wav").write_bytes(b"RIFF")  # left out by both ways
    write_encoder(tmp_path / "encoder")
    return tmp_path


def parse(world, recipe, **changes):
    return recipe.parse({"encoder": world / "encoder", "layer": 1} | changes, "test")


def test_units_of_states_are_those_of_the_sound(world):
    encode.run(
        parse(
            world, encode.Recipe, stage="encode", out=world / "states", corpora=[world / "corpus"], precision="float32"
        )
    )
    found = []
    for name, changes in (("heard", {}), ("read", {"states": world / "states"})):
        recipe = parse(
            world,
            stage_units.Recipe,
            stage="units",
            out=world / name,
            corpus=world / "corpus",
            k=4,
            iterations=3,
            fit_utterances=2,
            language={"units": 4, "vocabulary_size": 12, "min_count": 1},
            **changes,
        )
        out = stage_units.run(recipe)
        units = [(r["id"], row.tolist()) for r, row in read_ragged(out / "frames" / "corpus", world / "corpus")]
        found.append((units, load_centroids(out)[0].tolist(), (out / "unit_language.json").read_text()))
    assert found[0] == found[1] and [name for name, _ in found[0][0]] == ["u00", "u01", "u10", "u11", "u12"]


def test_a_run_that_was_killed_between_its_centroids_and_their_settings_goes_on(world):
    language = {"units": 4, "vocabulary_size": 12, "min_count": 1}
    small = {"k": 4, "iterations": 3, "fit_utterances": 2, "language": language}
    recipe = parse(world, stage_units.Recipe, stage="units", out=world / "units", corpus=world / "corpus", **small)
    stage_units.run(recipe)
    before, _ = load_centroids(world / "units")
    (world / "units" / "config.json").unlink()
    stage_units.run(recipe)
    np.testing.assert_array_equal(load_centroids(world / "units")[0], before)


def test_states_of_another_layer_or_of_no_encoder_are_refused(world):
    encode.run(parse(world, encode.Recipe, stage="encode", out=world / "states", corpora=[world / "corpus"]))
    for changes, words in (
        ({"layer": 2}, "this recipe's layer"),
        ({"precision": "bfloat16"}, "this recipe's precision"),
        ({"states": world / "corpus"}, "recipe's stage"),
    ):
        values = {"stage": "units", "out": world / "units", "corpus": world / "corpus", "states": world / "states"}
        with pytest.raises(ConfigError, match=words):
            stage_units.run(parse(world, stage_units.Recipe, **(values | changes)))


def test_states_of_other_utterances_are_refused_before_anything_is_written(world):
    encode.run(parse(world, encode.Recipe, stage="encode", out=world / "states", corpora=[world / "corpus"]))
    manifest = world / "corpus" / "shard-00001.jsonl"
    write_manifest(manifest, [record | {"id": f"{record['id']}x"} for record in read_manifest(manifest)])
    with pytest.raises(InputError, match="other utterances"):
        stage_units.convert_shards(
            world / "corpus", world / "states" / "corpus", world / "units", lambda states: states
        )
    assert not (world / "units" / "shard-00001.npz").exists()
