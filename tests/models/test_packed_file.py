"""What is packed of the text model is kept for the next process, and found again where it may be another."""

import os
from pathlib import Path

import pytest
import torch

from echox.models import packed_file
from echox.models.llm import Place, load_llm, settle_llm
from echox.models.lora import LoraSettings, LoraWeights
from echox.models.packed import PackedLinear, TwoNibbles, pack
from tests.models.test_packed import bytes_around_zero, lora_free_llm, needs_kernels, sixteen_levels

pytestmark = needs_kernels
PLACE = Place(packed=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the folder of a tiny LLM of sixteen levels in echox's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = tmp_path / "echox" / "llm" / "tiny"
    place.mkdir(parents=True)
    return lora_free_llm(place, sixteen_levels)


@pytest.fixture
def searches(monkeypatch):
    """Return a list that grows whenever something is packed anew."""
    seen = []
    monkeypatch.setattr(packed_file, "pack", lambda module: (seen.append(module), pack(module))[1])
    return seen


def loaded(folder: Path):
    llm = load_llm(folder, PLACE)
    settle_llm(llm, PLACE)
    return llm


def outputs(llm):
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    attention, mlp = llm.model.layers[1].self_attn, llm.model.layers[0].mlp
    return [llm.lm_head(x), *(layer(x) for layer in (attention.q_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj))]


@pytest.mark.parametrize("weight", [sixteen_levels, lambda *shape: bytes_around_zero(*shape, shape[1])])
def test_what_is_kept_computes_as_what_is_found(folder, searches, weight):
    lora_free_llm(folder, weight)
    first, second = loaded(folder), loaded(folder)
    assert searches == [first]
    assert [type(module) for module in second.modules()] == [type(module) for module in first.modules()]
    assert any(type(module) is PackedLinear for module in second.modules())
    for found, kept in zip(outputs(first), outputs(second), strict=True):
        assert torch.equal(found, kept)
    mlp = second.model.layers[0].mlp
    assert mlp.gate_proj.multiply.whole is mlp.up_proj.multiply.whole


def test_halves_come_back_as_halves():
    layer = torch.nn.Linear(64, 64, bias=False)
    layer.weight.data = bytes_around_zero(64, 64, 32)
    pack(torch.nn.Sequential(layer))
    way = layer.multiply
    again = packed_file.way_of(packed_file.tensors_of(way))
    assert isinstance(way, TwoNibbles) and isinstance(again, TwoNibbles)
    x = torch.randn(2, 64).bfloat16()
    assert torch.equal(way(x), again(x))


def test_other_weights_another_torch_and_broken_files_are_packed_anew(folder, searches, monkeypatch):
    loaded(folder)
    lora_free_llm(folder, lambda *shape: sixteen_levels(*shape, seed=1))
    os.utime(folder / "model.safetensors", ns=(1, 1))
    plain, llm = load_llm(folder, Place()), loaded(folder)
    assert len(searches) == 2
    for found, wanted in zip(outputs(llm), outputs(plain), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)
    monkeypatch.setattr(torch, "__version__", "2.0.0")
    loaded(folder)
    assert len(searches) == 3
    place = packed_file.place_of(folder)
    place.write_bytes(place.read_bytes()[:5000])
    loaded(folder)
    loaded(folder)
    assert len(searches) == 4


def test_changed_weights_are_packed_anew_and_not_kept(folder, searches):
    loaded(folder)
    kept = packed_file.place_of(folder).read_bytes()
    llm = load_llm(folder, PLACE)
    lora = LoraWeights.for_llm(LoraSettings(rank=2, targets=("q_proj",)), llm)
    for buffer in lora.buffers():
        buffer.normal_(0, 0.1)
    lora.merge_into(llm)
    settle_llm(llm, PLACE)
    assert len(searches) == 2 and packed_file.place_of(folder).read_bytes() == kept
    assert type(llm.model.layers[0].self_attn.q_proj) is torch.nn.Linear


def test_nothing_is_written_beside_what_is_not_ours(folder, searches, tmp_path):
    other = tmp_path / "other"
    folder.rename(other)
    loaded(other)
    loaded(other)
    assert len(searches) == 2 and [path.name for path in tmp_path.rglob("*packed*")] == []


def test_a_cache_that_cannot_be_written_is_no_fault(folder, searches):
    packed_file.place_of(folder).mkdir()
    assert type(loaded(folder).lm_head) is PackedLinear and len(searches) == 1
