"""int8 weights: half the size, close to what they were, and small or integer tensors untouched."""

import torch

from echox.models.weights import dequantize, quantize


def test_large_matrices_come_back_within_half_a_step_and_the_rest_as_it_was():
    torch.manual_seed(0)
    state = {
        "wide": torch.randn(64, 128) * torch.logspace(-4, 1, 64)[:, None],
        "kernel": torch.randn(32, 16, 9),
        "zero": torch.zeros(64, 64),
        "bias": torch.randn(64),
        "small": torch.randn(8, 8),
        "ids": torch.arange(10_000).view(100, 100),
        "table.scale": torch.randn(3),  # a name like a scale's, which is none
    }
    packed = quantize(state)
    assert packed["wide"].dtype == torch.int8 and packed["kernel"].dtype == torch.int8
    found = dequantize(packed)
    assert set(found) == set(state)
    for name in ("bias", "small", "ids", "table.scale"):
        assert torch.equal(found[name], state[name])
    for name in ("wide", "kernel", "zero"):
        rows, again = state[name].flatten(1), found[name].flatten(1).float()
        step = rows.abs().amax(1, keepdim=True) / 127
        assert ((rows - again).abs() <= 0.5 * step + 1e-3 * rows.abs() + 1e-7).all()
