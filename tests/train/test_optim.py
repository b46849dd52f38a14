"""The optimizer in one pass over memory against torch's loop over parameters, and where it is not used."""

import pytest
import torch
from torch import nn

from echox.train.optim import OptimSettings, build_optimizer, clip_gradients


def test_one_pass_is_the_loop_over_parameters():
    made = []
    for fused in (True, None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3))
        optimizer = build_optimizer(dict(model.named_parameters()), OptimSettings(lr=1e-2))
        assert optimizer.defaults["fused"] is True
        for group in optimizer.param_groups:
            group["fused"] = fused
        for _ in range(20):
            optimizer.zero_grad()
            model(torch.randn(4, 5)).square().mean().backward()
            optimizer.step()
        made.append([parameter.detach().clone() for parameter in model.parameters()])
    torch.testing.assert_close(made[0], made[1], rtol=1e-5, atol=1e-6)


def test_matrices_alone_decay_and_gradients_are_clipped_together():
    weights = {name: nn.Parameter(torch.ones(shape)) for name, shape in (("m", (2, 2)), ("v", (2,)), ("s", ()))}
    optimizer = build_optimizer(weights, OptimSettings(lr=0.1, weight_decay=0.5, clip=1.0))
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert {name: weight.flatten()[0].item() for name, weight in weights.items()} == {
        "m": pytest.approx(0.95), "v": 1.0, "s": 1.0
    }  # fmt: skip
    weights["v"].grad, weights["s"].grad = torch.tensor([0.0, 3.0]), torch.tensor(4.0)
    assert clip_gradients(list(weights.values()), 10.0) == 5.0 and weights["s"].grad.item() == 4.0
    assert clip_gradients(list(weights.values()), 1.0) == 5.0
    assert [weights["v"].grad[1].item(), weights["s"].grad.item()] == pytest.approx([0.6, 0.8], rel=1e-4)


def test_a_parameter_that_is_no_single_piece_of_memory_takes_the_loop():
    turned = nn.Parameter(torch.randn(3, 4).T)
    assert build_optimizer({"turned": turned}, OptimSettings()).defaults["fused"] is None
