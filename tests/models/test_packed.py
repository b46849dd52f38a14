import json
import weakref
from copy import deepcopy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from echox.models import packed
from echox.models.llama import LlamaConfig, LlamaLm
from echox.models.llm import Place, load_llm, settle_llm
from echox.models.lora import LoraSettings, LoraWeights
from echox.models.packed import (
    BLOCK,
    PackedLinear,
    Rows,
    Table,
    most_rows,
    multiplier,
    pack,
    round_to_bits,
    together,
)
from echox.models.slots import Row, prefill, step
from echox.models.weights import dequantize, quantize

needs_kernels = pytest.mark.skipif(not most_rows(), reason="this processor or torch has no kernels for packed weights")
K, N = 3 * BLOCK, packed.PIECE + 208  # two pieces, the second of them no multiple of 64


def sixteen_levels(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Return weights as GGUF's Q4_1 gives them back: the least of 32 neighbours, and up to 15 steps more."""
    random = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 16, (rows, columns // BLOCK, BLOCK), generator=random)
    levels[..., 0], levels[..., 1] = 0, 15
    step, least = torch.rand(rows, columns // BLOCK, 1, generator=random) + 0.1, -7 - torch.rand(1, generator=random)
    return (step * (levels + least) / 50).flatten(1)


def bytes_around_zero(rows: int, columns: int, block: int, seed: int = 0) -> torch.Tensor:
    """Return 255 levels around zero with a step for each `block` neighbours: GGUF's Q8_0 where that is 32."""
    random = torch.Generator().manual_seed(seed)
    levels = torch.randint(-127, 128, (rows, columns // block, block), generator=random)
    levels[..., 0] = 127
    return ((torch.rand(rows, columns // block, 1, generator=random) + 0.1) * levels / 500).flatten(1)


STORED = {
    "nibbles": sixteen_levels(N, K),
    "bytes": bytes_around_zero(N, K, K),
    "two nibbles": bytes_around_zero(N, K, BLOCK),
}


def linear_of(weight: torch.Tensor, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias).requires_grad_(False)
    layer.weight.copy_(weight)
    return layer


@needs_kernels
@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize("rows", [1, 2, 5, 48])
def test_packed_layer_is_its_plain_twin_to_the_rounding_of_bfloat16(kind, rows):
    plain, layer = linear_of(STORED[kind]), nn.Sequential(linear_of(STORED[kind]))
    layer[0].bias.copy_(plain.bias)
    pack(layer)
    assert isinstance(layer[0], PackedLinear)
    x = torch.randn(1, rows, K, generator=torch.Generator().manual_seed(1))
    wanted, found = plain(x.bfloat16().float()), layer(x)
    assert found.dtype == x.dtype
    assert found.shape == wanted.shape
    assert 0 < float((found - wanted).abs().max()) < 0.01 * float(wanted.abs().max())


@needs_kernels
@pytest.mark.parametrize("kind", STORED)
def test_every_weight_comes_back_from_what_is_packed(kind):
    multiply = multiplier(STORED[kind])
    columns = [multiply(torch.eye(K)[at : at + 8].bfloat16()).float() for at in range(0, K, 8)]
    torch.testing.assert_close(torch.cat(columns).T, STORED[kind], rtol=0.01, atol=2e-3)


@needs_kernels
def test_more_rows_are_multiplied_in_the_layers_own_numbers():
    layer = nn.Sequential(linear_of(STORED["nibbles"]))
    x = torch.randn(most_rows() + 1, K)
    wanted = layer(x)
    pack(layer)
    assert torch.equal(layer(x), wanted)
    assert layer(x[:0]).shape == (0, N)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_grid_is_found_through_the_rounding_of_what_holds_it(dtype):
    assert multiplier(STORED["nibbles"].to(dtype)) is not None
    assert multiplier(dequantize(quantize({"w": torch.randn(N, K)}))["w"]) is not None


def test_weights_on_no_grid_stay_as_they_are():
    layer = nn.Sequential(
        linear_of(torch.randn(N, K)), linear_of(STORED["nibbles"][:, :40]), linear_of(torch.randn(8, K))
    )
    some = STORED["nibbles"].clone()
    some[-1, 5] += (some[-1, :BLOCK].max() - some[-1, :BLOCK].min()) / 30  # half a step, one weight of the last row
    layer.append(linear_of(some))
    pack(layer)
    assert [type(child) for child in layer] == [nn.Linear] * 4


@needs_kernels
def test_packing_again_after_a_change_forgets_what_was():
    layer = nn.Sequential(linear_of(STORED["nibbles"]))
    pack(layer)
    layer[0].weight.add_(torch.randn(N, K))
    pack(layer)
    assert type(layer[0]) is nn.Linear
    readers = Readers(STORED["nibbles"][:640], STORED["nibbles"][:64])
    pack(readers)
    for child in readers.children():
        child.weight.add_(torch.randn(child.weight.shape))
    pack(readers)
    x = torch.randn(1, K)
    for found, child in zip(together(x, *readers.children()), readers.children(), strict=True):
        assert torch.equal(found, nn.functional.linear(x, child.weight))


@needs_kernels
def test_a_table_scores_states_and_still_gives_its_rows():
    table = Table(N, K).requires_grad_(False)
    table.weight.copy_(STORED["bytes"])
    states = torch.randn(2, 3, K).bfloat16().float()
    wanted = table.scores(states)
    pack(nn.Sequential(table))
    assert table.multiply is not None
    assert 0 < float((table.scores(states) - wanted).abs().max()) < 0.01 * float(wanted.abs().max())
    assert torch.equal(table(torch.tensor([3])), STORED["bytes"][3:4])


@needs_kernels
def test_a_layer_that_stands_in_two_places_is_packed_in_both():
    one = linear_of(STORED["bytes"])
    first, second = nn.Sequential(one), nn.Sequential(one)
    pack(first)
    assert isinstance(second[0], PackedLinear)


class Readers(nn.Module):
    """Two layers that read the same input."""

    reads_same = (("first", "second"),)

    def __init__(self, first: torch.Tensor, second: torch.Tensor, bias: bool = False) -> None:
        super().__init__()
        self.first, self.second = linear_of(first, bias), linear_of(second, bias)


@needs_kernels
@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize("rows", [1, 3, 500])
def test_layers_that_read_the_same_are_multiplied_together_as_each_alone(kind, rows):
    readers = Readers(STORED[kind][:640], STORED[kind][:80].flip(0))
    assert pack(readers) == 1
    assert readers.first.multiply.whole is readers.second.multiply.whole
    x = torch.randn(2, rows, K, generator=torch.Generator().manual_seed(1))
    both = together(x, readers.first, readers.second)
    for found, alone in zip(both, (readers.first(x), readers.second(x)), strict=True):
        torch.testing.assert_close(found, alone)


@needs_kernels
def test_layers_of_two_makes_of_odd_sizes_or_with_biases_are_packed_alone():
    x = torch.randn(3, K)
    mixed = Readers(STORED["nibbles"], torch.randn(64, K))
    odd = Readers(STORED["nibbles"], STORED["nibbles"][:64])
    biased = Readers(STORED["nibbles"], STORED["nibbles"][:64], bias=True)
    for readers in (mixed, odd, biased):
        pack(readers)
        assert not isinstance(readers.first.multiply, Rows)
        for found, layer in zip(together(x, readers.first, readers.second), readers.children(), strict=True):
            torch.testing.assert_close(found, layer(x))
    assert [type(layer) for layer in mixed.children()] == [PackedLinear, nn.Linear]


@needs_kernels
def test_steps_of_a_packed_llm_follow_those_of_its_twin():
    torch.manual_seed(0)
    sizes = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2)
    sizes.num_key_value_heads, sizes.head_dim = 1, 32
    plain, llm = LlamaLm(sizes).requires_grad_(False), LlamaLm(sizes).requires_grad_(False)
    for seed, weight in enumerate(w for w in plain.parameters() if w.ndim == 2):
        weight.copy_(sixteen_levels(*weight.shape, seed))
    llm.load_state_dict(plain.state_dict())
    pack(llm)
    assert sum(isinstance(module, PackedLinear) for module in llm.modules()) == 15
    found = []
    with torch.inference_mode():
        for model in (plain, llm):
            slots, state = prefill(model.get_decoder(), [Row(torch.ones(most_rows() + 4, 64))])
            states = [state]
            for number in range(4):
                slots, state = step(model.get_decoder(), slots, model.get_input_embeddings()(torch.tensor([number])))
                states.append(model.lm_head(state))
            found.append(torch.cat([one.flatten() for one in states]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.999
    assert not torch.equal(*found)


def test_nothing_is_packed_where_it_would_be_slow(monkeypatch):
    layer = nn.Sequential(linear_of(STORED["nibbles"]))
    monkeypatch.setattr(packed, "most_rows", lambda: 0)
    pack(layer)
    assert type(layer[0]) is nn.Linear


@needs_kernels
@pytest.mark.parametrize(("bits", "levels"), [(8, 254), (4, 15)])
def test_rounded_weights_are_within_half_a_step_and_the_rest_is_gone(bits, levels):
    plain = nn.Sequential(linear_of(torch.randn(N, K)), linear_of(torch.randn(6, 40)))
    layers = deepcopy(plain)
    round_to_bits(layers, bits)
    assert type(layers[0]) is PackedLinear and layers[0].weight is None
    assert [name for name, _ in layers[0].named_parameters()] == ["bias"]
    assert type(layers[1]) is nn.Linear and torch.equal(layers[1].weight, plain[1].weight)  # fits no grid
    found = torch.cat([layers[0](torch.eye(K)[at : at + 8]) for at in range(0, K, 8)]) - plain[0].bias
    width = K if bits == 8 else BLOCK
    neighbours = plain[0].weight.unflatten(1, (-1, width))
    span = 2 * neighbours.abs().amax(-1) if bits == 8 else neighbours.amax(-1) - neighbours.amin(-1)
    error = (found.T - plain[0].weight).unflatten(1, (-1, width)).abs().amax(-1)
    assert (error < 0.5 * span / levels + 0.02).all()  # and what bfloat16 rounds
    assert float(error.mean()) > 0.2 * float(span.mean()) / levels


def test_a_matrix_without_numbers_or_of_no_numbers_is_left():
    for weight in (
        torch.zeros(0, 32),
        torch.zeros(16, 0),
        torch.full((16, 32), torch.nan),
        torch.full((16, 32), torch.inf),
    ):
        assert multiplier(weight) is None


@needs_kernels
def test_the_weights_of_a_rounded_layer_are_freed_one_after_the_other(monkeypatch):
    layers = nn.Sequential(*(linear_of(torch.randn(64, 64)) for _ in range(3)))
    first, alive = weakref.ref(layers[0].weight), []
    find = packed.multiplier
    seen = lambda *given, **bits: (alive.append(first() is not None), find(*given, **bits))[1]  # noqa: E731
    monkeypatch.setattr(packed, "multiplier", seen)
    round_to_bits(layers, 4)
    assert alive == [True, False, False]


@needs_kernels
def test_a_head_that_is_rounded_keeps_its_weight():
    body, head = nn.Sequential(linear_of(torch.randn(64, 64))), linear_of(torch.randn(N, K))
    x = torch.randn(2, K).bfloat16().float()
    wanted = head(x)
    round_to_bits(body, 4, head)
    assert isinstance(head, PackedLinear)
    assert 0 < float((head(x) - wanted).abs().max()) < 0.02 * float(wanted.abs().max())


def lora_free_llm(folder, weight):
    """Write the folder of a tiny LLM all of whose matrices are of one make, and return it."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2)
    sizes |= dict(num_key_value_heads=1, head_dim=32, rms_norm_eps=1e-6, tie_word_embeddings=False)
    llm = LlamaLm(LlamaConfig(**sizes))
    state = {name: weight(*value.shape) if value.ndim == 2 else value for name, value in llm.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    described = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_theta": 10000.0, **sizes}
    (folder / "config.json").write_text(json.dumps(described))
    return folder


@needs_kernels
@pytest.mark.parametrize(
    ("place", "weight", "dtype", "layer"),
    [
        (Place(dtype=torch.bfloat16, packed=True), sixteen_levels, torch.float32, PackedLinear),
        (Place(dtype=torch.bfloat16, packed=True), torch.randn, torch.bfloat16, nn.Linear),
        (Place(dtype=torch.bfloat16), sixteen_levels, torch.bfloat16, nn.Linear),
        (Place(dtype=torch.float32), sixteen_levels, torch.float32, nn.Linear),
        (Place(quantize="int4", packed=True), torch.randn, torch.float32, PackedLinear),
    ],
    ids=["on a grid", "on none", "dtype named", "float32", "rounded"],
)
def test_an_llm_computes_as_its_place_says(tmp_path, place, weight, dtype, layer):
    llm = load_llm(lora_free_llm(tmp_path, weight), place)
    settle_llm(llm, place)
    assert llm.get_input_embeddings().weight.dtype == dtype
    assert type(llm.get_decoder().layers[0].mlp.up_proj) is layer


@needs_kernels
def test_merged_adapters_are_computed_with(tmp_path):
    """A matrix that adapters were merged into lies on no grid any more; the others still do."""
    place = Place(dtype=torch.bfloat16, packed=True)
    llm = load_llm(lora_free_llm(tmp_path, sixteen_levels), place)
    lora = LoraWeights.for_llm(LoraSettings(rank=2, targets=("q_proj",)), llm)
    for buffer in lora.buffers():
        buffer.normal_(0, 0.1)
    lora.merge_into(llm)
    settle_llm(llm, place)
    attention = llm.get_decoder().layers[0].self_attn
    assert type(attention.q_proj) is nn.Linear
    assert type(attention.k_proj) is PackedLinear
