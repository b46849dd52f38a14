"""The `echox units` verbs end to end on a tiny encoder."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel
from typer.testing import CliRunner

from echox.commands.units import app, read_units
from echox.errors import ConfigError, EchoxError, InputError, MissingDependency, ModelError, OutputError
from echox.models.io import save_part
from echox.models.vocoder import UnitVocoder, VocoderConfig
from echox.units.extractor import load_centroids
from echox.units.tokenizer import UnitTokenizer


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    convolutions = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (5, 64), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "num_buckets": 16}
    config = WavLMConfig(**sizes, **convolutions, **positions, feat_extract_norm="layer")
    WavLMModel(config).save_pretrained(tmp_path / "encoder")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path / "encoder")
    return str(tmp_path / "encoder")


def sound(path: Path, seconds: float, seed: int) -> str:
    samples = np.random.default_rng(seed).normal(size=int(seconds * 16_000)) * 0.1
    soundfile.write(path, samples, 16_000)
    return str(path)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, EchoxError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
def test_sounds_become_units_become_words_become_sounds(tmp_path: Path, encoder: str) -> None:
    sounds = [sound(tmp_path / f"{name}.wav", 0.4 + 0.1 * i, i) for i, name in enumerate("abc")]
    units, lines = str(tmp_path / "units"), tmp_path / "units.jsonl"
    run("fit", *sounds, "--encoder", encoder, "--layer", "1", "--k", "6", "-o", units)
    centroids, meta = load_centroids(units)
    assert centroids.shape == (6, 16)
    assert (meta.encoder, meta.layer, meta.frame_samples, meta.window) == ("encoder", 1, 320, "own")
    assert meta.revision.startswith("sha256:")

    run("extract", *sounds, sounds[0], "--encoder", encoder, "--units", units, "-o", str(lines))
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record["id"] for record in records] == ["a", "b", "c", "a-2"]
    assert records[0]["units"] == records[3]["units"]
    assert sum(records[1]["durations"]) == ((8000 - 10) // 5 + 1 - 8) // 64 + 1

    report = run("words", str(lines), "--units", "6", "--vocabulary", "20", "-o", units)
    assert "bits/unit" in report
    tokenizer = UnitTokenizer.load(units)
    assert tokenizer.decode(tokenizer.encode(records[0]["units"])) == records[0]["units"]

    torch.manual_seed(0)
    small = {"trunk_width": 8, "trunk_layers": 1, "head_width": 8, "head_layers": 1, "embedding_dim": 8}
    save_part(tmp_path / "vocoder", UnitVocoder(VocoderConfig(num_units=6, duration_width=8, **small)))
    out = str(tmp_path / "speech")
    run("speak", str(lines), "--vocoder", str(tmp_path / "vocoder"), "--out-dir", out, "--keep-durations")
    samples, rate = soundfile.read(tmp_path / "speech" / "b.wav")
    assert (len(samples), rate) == (sum(records[1]["durations"]) * 320, 16_000)

    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="is a folder"):  # before the sounds are read
        run("extract", "none.wav", "--encoder", encoder, "--units", units, "-o", str(tmp_path / "folder"))
    with pytest.raises(OutputError, match="is one of the sounds"):
        run("extract", *sounds, "--encoder", encoder, "--units", units, "-o", sounds[0])
    for durations, says in ({}, "no durations"), ({"durations": [1, 10**9]}, "more than 500000 frames"):
        lines.write_text(json.dumps({"id": "a", "units": [0, 1], **durations}) + "\n")
        with pytest.raises(InputError, match=says):
            run("speak", str(lines), "--vocoder", str(tmp_path / "vocoder"), "--out-dir", out, "--keep-durations")

    assert "other weights" not in run("extract", *sounds, "--encoder", encoder, "--units", units, "-o", str(lines))
    other = WavLMModel.from_pretrained(encoder)
    other.encoder.layers[0].final_layer_norm.weight.data += 1
    other.save_pretrained(encoder)
    assert "other weights" in run("extract", *sounds, "--encoder", encoder, "--units", units, "-o", str(lines))


def test_bpe_is_a_decoder_too(tmp_path: Path) -> None:
    path = tmp_path / "u.jsonl"
    path.write_text(json.dumps({"id": "a", "units": [0, 1, 2] * 20}) + "\n")
    run("words", str(path), "--decoder", "bpe", "--vocabulary", "5", "-o", str(tmp_path / "units"))
    assert UnitTokenizer.load(tmp_path / "units").decoder == "bpe"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"id": "../a", "units": [1]}, "plain file name"),
        ({"units": [1]}, "plain file name"),
        ({"id": "a"}, "flat list"),
        ({"id": "a", "units": "12"}, "flat list"),
        ({"id": "a\0b", "units": [1]}, "plain file name"),
        ({"id": "a\ud800b", "units": [1]}, "plain file name"),
        ({"id": "a", "units": [1, [2]]}, "flat list"),
        ({"id": "a", "units": [2**63]}, "nor above"),
        ({"id": "a", "units": [1, -2]}, "never negative"),
        ({"id": "a", "units": [1, 2], "durations": [1]}, "2 units came with 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: dict, says: str) -> None:
    path = tmp_path / "u.jsonl"
    path.write_text('{"id": "good", "units": []}\n' + json.dumps(line) + "\n")
    with pytest.raises(InputError, match=says) as caught:
        list(read_units([str(path)]))
    assert "u.jsonl line 2" in str(caught.value)


def test_without_faiss_the_extra_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependency, match=r"faiss is needed .*openechox\[train\]"):
        run("fit", "a.wav", "--encoder", "none", "--layer", "1")


def test_settings_that_cannot_be_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="magic"):
        run("words", "u.jsonl", "--decoder", "magic")
    with pytest.raises(ConfigError, match="window 'shrot' is unknown"):
        run("fit", "a.wav", "--encoder", "none", "--layer", "1", "--window", "shrot")
    for option, value in (("--seed", "-1"), ("--seed", str(2**63)), ("--k", "0")):
        arguments = ["fit", "a.wav", "--encoder", "none", "--layer", "1", option, value]
        assert CliRunner().invoke(app, arguments).exit_code == 2  # of a wrong option
    (tmp_path / "config.json").write_text("an LLM's")
    with pytest.raises(OutputError, match=r"config\.json of something else"):
        run("fit", "a.wav", "--encoder", "none", "--layer", "1", "-o", str(tmp_path))
    (tmp_path / "config.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(OutputError, match=r"tokenizer\.json of something else"):
        run("words", "u.jsonl", "-o", str(tmp_path))
    with pytest.raises(OutputError, match="it is a file"):
        run("words", "u.jsonl", "-o", str(tmp_path / "tokenizer.json"))
    with pytest.raises(ConfigError, match="max_length"):
        run("words", "u.jsonl", "--max-length", "65")
    with pytest.raises(ModelError, match=r"config\.json does not exist"):
        run("extract", "a.wav", "--encoder", "none", "--units", str(tmp_path))
    with pytest.raises(InputError, match=r"u\.jsonl is missing"):
        run("words", str(tmp_path / "u.jsonl"))
