"""A released checkpoint goes on learning: converted, then every stage of stage I and III takes steps from it."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from echox.data.manifest import write_manifest
from echox.data.states import write_ragged
from echox.errors import ConfigError
from echox.files import write_text
from echox.released.convert import convert_checkpoint
from echox.train.stages import run_recipe
from tests.released import tiny
from tests.released.test_fairseq import write_vocoder
from tests.toy_model import RECIPES, toy_model  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    root = tmp_path_factory.mktemp("converted")
    tiny.write_checkpoint(root / "hub" / "EchoX-tiny", tiny.settings(adapter_size=16))
    write_vocoder(root / "hub" / "EchoX-tiny", num_embeddings=1000)
    convert_checkpoint(root / "hub" / "EchoX-tiny", root / "echox")
    return root / "echox"


def test_hearing_adapters_and_echo_decoder_of_a_released_checkpoint_learn(converted, toy_model, monkeypatch):  # noqa: F811
    monkeypatch.chdir(toy_model.parents[2])
    out, llm = converted.parent, f"llm={converted / 'llm'}"
    run_recipe(RECIPES / "s2t.yaml", [f"out={out / 's2t'}", llm, f"start={converted / 's2t'}", "lora.rank=2"])
    before, after = (load_file(folder / "model.safetensors") for folder in (converted / "s2t", out / "s2t" / "final"))
    assert torch.equal(before["adapter.head.weight"].half(), after["adapter.head.weight"])  # the CTC head stays
    assert not torch.equal(before["adapter.linear.weight"].half(), after["adapter.linear.weight"])
    assert any(name.startswith("lora.") and value.any() for name, value in after.items() if name.endswith("B"))
    s2t, t2c = f"s2t={out / 's2t' / 'final'}", f"t2c={converted / 't2c'}"
    run_recipe(RECIPES / "echo.yaml", [f"out={out / 'echo'}", llm, s2t, t2c, "max_unit_words=8", "train.steps=2"])
    echo = load_file(out / "echo" / "final" / "model.safetensors")
    first, then = (
        json.loads((folder / "config.json").read_text()) for folder in (converted / "echo", out / "echo" / "final")
    )
    assert first["before"][-1] == 77 and all(
        first.get(name) == then.get(name) for name in ("before", "after", "unseen")
    )
    assert echo["t2c.head.weight"].shape == load_file(converted / "t2c" / "model.safetensors")["head.weight"].shape


def test_the_text_to_codec_decoder_of_a_released_checkpoint_learns_its_own_unit_tokens(converted, tmp_path):
    base = {"audio": "a.wav", "samples": 1, "sample_rate": 16_000}
    records = [base | {"id": f"a{n}", "text": text} for n, text in enumerate(("user", "speaker", "user system") * 3)]
    write_manifest(tmp_path / "shard-00000.jsonl", records)
    rows = [np.array([5, 5, 12, 9, 998, 1, 7] if n % 3 else [7, 40, 40, 9], np.int32) for n in range(len(records))]
    write_ragged(tmp_path / "frames" / "shard-00000.npz", [record["id"] for record in records], rows)
    start = converted / "t2c"
    recipe = {"stage": "t2c", "out": str(tmp_path / "t2c"), "llm": str(converted / "llm"), "start": str(start)}
    recipe["data"] = {"corpora": [str(tmp_path)], "frames": [str(tmp_path / "frames")], "held_out": 2}
    recipe["train"] = {"steps": 6, "log_every": 1, "precision": "fp32", "optim": {"lr": 3e-3, "warmup_steps": 1}}
    write_text(tmp_path / "t2c.yaml", json.dumps(recipe))
    run_recipe(tmp_path / "t2c.yaml")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "t2c" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 6 and losses[-1] < 0.9 * losses[0]
    before, after = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "t2c" / "final"))
    assert torch.equal(before["text_embedding.weight"].half(), after["text_embedding.weight"])  # the LLM's stay
    assert not torch.equal(before["unit_embedding.weight"].half(), after["unit_embedding.weight"])
    with pytest.raises(ConfigError, match="a released `start` has none"):
        run_recipe(tmp_path / "t2c.yaml", [f"data.units={tmp_path}", f"out={tmp_path / 'other'}"])
