"""The vocoder stage through the one loop: files in, a loadable folder out, exact resume, strict settings."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from echox.data.manifest import read_manifest, write_manifest
from echox.data.states import write_ragged
from echox.errors import ConfigError
from echox.generate.parts import load_vocoder
from echox.models.io import settings_from
from echox.models.vocoder import VocoderConfig
from echox.train.loop import train
from echox.train.stage_vocoder import Recipe, build, read_speech
from echox.train.stages import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def corpus(tmp_path):
    random = np.random.default_rng(0)
    rows, waves, records, start = [], [], [], 0
    (tmp_path / "units").mkdir()
    for index in range(8):
        frames = random.integers(0, 9, 12).repeat(2)
        wave = (random.standard_normal(len(frames) * 320 + 5) * 3000).astype(np.int16)
        record = {"id": f"u{index}", "audio": "shard-00000.npy", "start": start, "samples": len(wave)}
        records.append(record | {"sample_rate": 16_000})
        rows.append(frames.astype(np.int16))
        waves.append(wave)
        start += len(wave)
    np.save(tmp_path / "shard-00000.npy", np.concatenate(waves))
    write_manifest(tmp_path / "shard-00000.jsonl", records)
    write_ragged(tmp_path / "units" / "shard-00000.npz", [record["id"] for record in records], rows)
    return tmp_path


def recipe(corpus: Path, steps: int, generator: str = "istft", **vocoder) -> Recipe:
    model = {"generator": generator, "num_units": 9, "embedding_dim": 8, "duration_width": 8}
    model |= {"trunk_width": 8, "trunk_layers": 1, "head_width": 8, "head_layers": 1}
    model |= {"upsample_channels": 32, "resblock_kernels": [3], "resblock_dilations": [[1]]}
    values = {
        "speech": corpus,
        "units": corpus / "units",
        "held_out": 2,
        "segment_frames": 12,
        "batch_size": 2,
        "model": model | {"weight_norm": generator == "hifigan"},
        "judges": {"periods": [2], "scales": 1, "spectra": [[64, 16]], "width": 0.03},
        "loss": {"stft": 1.0, "resolutions": [[256, 64, 20]], "gan_start": 1},
        "evaluate_every": 2,
    } | vocoder
    out = corpus / f"out-{generator}-{steps}"
    train_settings = {"steps": steps, "save_every": 2, "log_every": 1, "precision": "fp32"}
    return Recipe.parse({"stage": "vocoder", "out": out, "vocoder": values, "train": train_settings}, "test")


@pytest.mark.parametrize("generator", ["istft", "hifigan"])
def test_stage_writes_a_vocoder_that_speaks(corpus, generator):
    settings = recipe(corpus, 3, generator)
    folder = train(build(settings), settings.train, settings.out)
    vocoder = load_vocoder(folder)
    assert not vocoder.config.weight_norm
    wave = vocoder.speak([1, 2, 3], [1, 2, 1])
    assert wave.shape == (4 * 320,) and np.isfinite(wave).all() and wave.std() > 0


def test_a_resumed_run_ends_with_the_same_weights(corpus):
    whole = recipe(corpus, 4)
    train(build(whole), whole.train, whole.out)
    halves = whole.model_copy(update={"out": corpus / "halves"})
    first = build(halves)
    train(first, halves.train.model_copy(update={"steps": 2}), halves.out)
    train(build(halves), halves.train, halves.out)
    one, two = (torch.load(run / "step-4" / "state.pt")["model"] for run in (whole.out, halves.out))
    assert {name.partition(".")[0] for name in one} == {"vocoder", "judges"}
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], atol=0, rtol=0, msg=name)


def test_held_out_utterances_are_not_trained_on(corpus):
    settings = recipe(corpus, 1).vocoder
    held_out, training = read_speech(settings, settings_from(VocoderConfig, settings.model, "model"))
    assert len(held_out) == 2 and len(training) == 6
    assert not np.array_equal(held_out.utterance(0)[0], training.utterance(0)[0])


def test_settings_that_do_not_fit_are_named(corpus):
    with pytest.raises(ConfigError, match="unknown key 'widht'"):
        build(recipe(corpus, 1, model={"widht": 3}))
    with pytest.raises(ConfigError, match="raise vocoder.model.num_units"):
        build(recipe(corpus, 1, model={"num_units": 4}))
    with pytest.raises(ConfigError, match="lower it"):
        build(recipe(corpus, 1, held_out=8))


@pytest.mark.parametrize("name", ["mini", "hifigan"])
def test_shipped_recipes_load(name):
    settings = load_recipe(RECIPES / name / "vocoder.yaml")
    assert settings.vocoder.model["generator"] == {"mini": "istft", "hifigan": "hifigan"}[name]


def test_full_scale_in_a_sound_file_stays_full_scale(corpus):
    manifest = corpus / "shard-00000.jsonl"
    records = read_manifest(manifest)
    for record in records:
        wave = np.where(np.arange(record["samples"]) % 200 < 100, 1.2, -1.2).astype(np.float32)  # clipped when read
        soundfile.write(corpus / f"{record['id']}.wav", wave, 16_000, subtype="FLOAT")
    write_manifest(manifest, [record | {"audio": f"{record['id']}.wav"} for record in records])
    _, training = read_speech(recipe(corpus, 1).vocoder, settings_from(VocoderConfig, {"num_units": 9}, "test"))
    assert set(training.samples_S.tolist()) == {-32768, 32767}
