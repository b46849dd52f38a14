import pytest
import torch
from torch import nn

from echox.models import packed
from echox.models.int8 import dequantize, quantize
from echox.models.llama import LlamaConfig, LlamaLm
from echox.models.packed import BLOCK, PackedLinear, StoredLinear, Table, most_rows, multiplier, pack, quantise
from echox.models.slots import Row, prefill, step

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
    layers = nn.Sequential(*plain)
    quantise(layers, bits)
    assert isinstance(layers[0], StoredLinear)
    assert [name for name, _ in layers[0].named_parameters()] == ["bias"]
    assert layers[1] is plain[1]  # fits no grid
    found = torch.cat([layers[0](torch.eye(K)[at : at + 8]) for at in range(0, K, 8)]) - plain[0].bias
    width = K if bits == 8 else BLOCK
    neighbours = plain[0].weight.unflatten(1, (-1, width))
    span = 2 * neighbours.abs().amax(-1) if bits == 8 else neighbours.amax(-1) - neighbours.amin(-1)
    error = (found.T - plain[0].weight).unflatten(1, (-1, width)).abs().amax(-1)
    assert (error < 0.5 * span / levels + 0.02).all()  # and what bfloat16 rounds
    assert float(error.mean()) > 0.2 * float(span.mean()) / levels
