"""Weights of a part in int8 with a scale a row, for parts that ship: half of float16's size; it knows no model and no file.

A matrix `NAME` is stored as int8 `NAME` and float32 `NAME.scale`, one for each entry of its first dimension. Everything small
(biases, norms, gates) stays in float16, where it is exact enough and costs nothing.
"""

import torch

SCALE = ".scale"
SMALL = 4096  # elements; smaller tensors stay as they are


def quantize(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return `state` with every large floating-point matrix as int8 and its scales, all else as it is."""
    packed = {}
    for name, value in state.items():
        if not value.is_floating_point() or value.ndim < 2 or value.numel() < SMALL:
            packed[name] = value
            continue
        rows = value.float().flatten(1)
        scale = (rows.abs().amax(1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        packed[name] = (rows / scale).round().to(torch.int8).view(value.shape)
        packed[name + SCALE] = scale[:, 0].contiguous()
    return packed


def dequantize(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the float16 state behind what `quantize` made; tensors without scales are returned as they are."""
    found = {}
    for name, value in state.items():
        scale = state.get(name + SCALE)
        if value.dtype == torch.int8 and scale is not None:
            found[name] = value.flatten(1).float().mul_(scale[:, None]).view(value.shape).to(torch.float16)
        elif not is_scale(name, state):
            found[name] = value
    return found


def header_behind(header: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return {name: (dtype, shape)} of a stored file as `dequantize` will give it back: no scales, float16 instead of int8."""
    found = dict(header)
    for name, (kind, shape) in header.items():
        if kind == "I8" and header.get(name + SCALE) == ("F32", shape[:1]):
            found[name] = ("F16", shape)
            del found[name + SCALE]
    return found


def is_scale(name: str, state: dict[str, torch.Tensor]) -> bool:
    """Say whether `name` holds the scales of an int8 tensor of `state`."""
    owner = state.get(name.removesuffix(SCALE)) if name.endswith(SCALE) else None
    return owner is not None and owner.dtype == torch.int8
