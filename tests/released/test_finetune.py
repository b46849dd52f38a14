"""A released checkpoint goes on learning: converted, then every stage of stage I and III takes steps from it."""

import pytest
import torch
from safetensors.torch import load_file

from echox.released.convert import convert_checkpoint
from echox.train.run import run_recipe
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
    assert echo["t2c.head.weight"].shape == load_file(converted / "t2c" / "model.safetensors")["head.weight"].shape
