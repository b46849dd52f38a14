"""Cheap masks: the same shares, gradients and seeds as torch's dropout, in the place of each of them."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from echox.models.transformer import Attention, Block
from echox.train.dropout import LANES, Dropout, use_cheap_masks


class Called(TorchDispatchMode):
    """The names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_the_share_is_dropped_in_every_lane_and_the_mean_stays(share):
    torch.manual_seed(0)
    entries = torch.ones(50_000, 2 * LANES)
    found = Dropout(share)(entries)
    spread = (share * (1 - share) / len(entries)) ** 0.5
    assert ((found == 0).float().mean(0) - share).abs().max() < 5 * spread
    assert found.unique().tolist() == pytest.approx([0.0, 1 / (1 - share)], rel=1e-4)
    assert found.mean() == pytest.approx(1.0, abs=0.01)


def test_gradients_flow_where_entries_were_kept_and_a_seed_repeats_them():
    layer, entries = Dropout(0.3), torch.randn(7, 3, 5, requires_grad=True)
    torch.manual_seed(1)
    found = layer(entries)
    gradient = torch.autograd.grad(found.sum(), entries)[0]
    torch.testing.assert_close(gradient * entries, found)
    torch.manual_seed(1)
    assert torch.equal(layer(entries), found) and not torch.equal(layer(entries), found)
    assert layer.eval()(entries) is entries
    assert Dropout(0.0)(entries) is entries and not Dropout(1.0)(entries).any()


def test_every_dropout_of_a_model_is_replaced_and_no_number_is_drawn_for_an_entry():
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True, norm_first=True)
    model = nn.ModuleDict(
        {"layer": layer, "lora": nn.ModuleDict({"default": nn.Dropout(0.2)}), "still": nn.Dropout(0.1)}
    )
    layer.self_attn.dropout = 0.0  # inside of attention torch draws
    model["still"].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    use_cheap_masks(model)
    kinds = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert len(kinds) == 5 and all(type(module) is Dropout for module in kinds)
    assert model["lora"]["default"].p == 0.2 and not model["still"].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with Called() as called:
        model["layer"](torch.randn(2, 3, 8)).sum().backward()
    assert "aten::random_.from" in called.names and not any("bernoulli" in name for name in called.names)


@pytest.mark.parametrize("kind", ["whole", "masked", "causal"])
def test_attention_that_learns_drops_weights_by_the_module_and_else_is_torchs(kind):
    torch.manual_seed(2)
    layer, x = Attention(Block(16, 4, 32, attention_dropout=0.2)), torch.randn(2, 5, 16)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])[:, None, None] if kind == "masked" else None
    wanted = layer.eval()(x, layer.keys(x), mask, kind == "causal")
    layer.train().dropout = Still()
    torch.testing.assert_close(layer(x, layer.keys(x), mask, kind == "causal"), wanted)
    model = nn.ModuleDict({"attention": Attention(Block(16, 4, 32, attention_dropout=0.2))})
    use_cheap_masks(model)
    with Called() as called:
        model["attention"](x, model["attention"].keys(x), mask, kind == "causal")
    assert "aten::random_.from" in called.names and not any("bernoulli" in name for name in called.names)


class Still(nn.Module):
    """A dropout that drops nothing."""

    p = 0.2

    def forward(self, x):
        return x
