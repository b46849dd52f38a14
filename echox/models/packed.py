"""Linear layers that compute with weights as they were stored, in 4 or 8 bits, wherever a step reads few rows.

One token passes every weight once, so a step lasts as long as it takes to fetch them: a weight of 4 bits comes four times
sooner than in bfloat16, eight times sooner than in float32. `pack` quantises nothing: weights that came from a file of 4 or 8 bits
lie on a grid, which is found again, and a matrix on none stays as it is. `quantise` rounds to such a grid and keeps nothing else.

    nibbles      16 levels between the least and the greatest of 32 neighbours in a row   (GGUF's Q4_1)
    bytes        255 levels around zero, one step a row                                   (models/int8.py)
    two nibbles  255 levels around zero, one step for 32 neighbours                       (GGUF's Q8_0)

What comes in and goes out of a layer is rounded to bfloat16, sums are float32; many rows are multiplied in the layer's own
numbers, since there arithmetic is what lasts. The twin is the layer itself (`nn.Linear`), on the same weights.

Legend: G blocks of 32 neighbours in a row, K inputs, N outputs, R rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import linear

BLOCK = 32
ROWS = {"AVX2": 48, "AVX512": 192}  # what torch has such kernels for, and up to how many rows they beat float32
PIECE = 512  # rows that are looked at together; torch packs 64 by 64
LEAST = torch.finfo(torch.float32).tiny  # a step where all weights are zero
NIBBLE_ROWS = 16  # torch's kernel wants a multiple of so many
NEAR = 0.125  # of a step: what float16 or bfloat16 may have moved a weight off its grid

Multiply = Callable[[torch.Tensor], torch.Tensor]  # bfloat16 (R, K) to bfloat16 (R, N)


class PackedLinear(nn.Linear):
    """A linear layer with a second way to multiply, taken for few rows."""

    multiply: Multiply

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return (..., N)."""
        return few_rows(self.multiply, input, self.weight, self.bias)


class Table(nn.Embedding):
    """A token table that is a head too."""

    multiply: Multiply | None = None

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """Return states (..., K) against every row of the table, (..., N)."""
        return few_rows(self.multiply, states, self.weight)


class StoredLinear(nn.Module):
    """A linear layer that holds nothing but the bits that it multiplies by."""

    def __init__(self, plain: nn.Linear, multiply: Multiply) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.bias, self.multiply = plain.bias, multiply

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., N)."""
        return stored_product(self.multiply, x, self.bias)


def few_rows(
    multiply: Multiply | None, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return what `linear` does, by `multiply` where there are few rows."""
    if multiply is None or not 0 < x.numel() <= most_rows() * x.shape[-1]:
        return linear(x, weight.to(x.dtype), bias)
    return stored_product(multiply, x, bias)


def stored_product(multiply: Multiply, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return what `linear` does, by `multiply`."""
    found = multiply(x.reshape(-1, x.shape[-1]).to(torch.bfloat16).contiguous()).to(x.dtype).unflatten(0, x.shape[:-1])
    return found if bias is None else found + bias


def pack(module: nn.Module, stored: Mapping[str, torch.Tensor] | None = None) -> int:
    """Give every linear layer and head table of `module` whose weights lie on a grid its second way; return how many have one.

    `stored` holds weights by name as their file has them, where the module's own are rounded. Where this machine has no fast
    kernels none has one. Who changes weights afterwards packs again.
    """
    count = 0
    for name, child in module.named_modules():
        if not isinstance(child, nn.Linear | Table) or type(child) not in (nn.Linear, PackedLinear, Table):
            continue
        weight = (stored or {}).get(f"{name}.weight", child.weight).detach()
        multiply = multiplier(weight) if most_rows() and weight.device.type == "cpu" else None
        count += multiply is not None
        if isinstance(child, Table):
            child.multiply = multiply
        else:
            give(child, multiply)
    return count


def give(layer: nn.Linear, multiply: Multiply | None) -> None:
    """Give a linear layer its second way, or take it; the very object stays, since others may hold it too."""
    layer.__class__ = nn.Linear if multiply is None else PackedLinear
    if multiply is not None:
        cast("PackedLinear", layer).multiply = multiply


def quantise(module: nn.Module, bits: int, head: nn.Linear | None = None) -> None:
    """Round the linear layers of `module` to grids of 4 or 8 bits and drop their weights; sizes that do not fit are left.

    A `head` keeps its weight, which others read, and has 8 bits for its second way.
    """
    if head is not None:
        give(head, multiplier(head.weight.detach(), 8))
    for owner in list(module.modules()):
        for name, child in owner.named_children():
            if isinstance(child, nn.Linear) and (multiply := multiplier(child.weight.detach(), bits)):
                setattr(owner, name, StoredLinear(child, multiply))


@cache
def most_rows() -> int:
    """Return up to how many rows packed weights are taken; none where torch would loop over single numbers."""
    wanted = ("_weight_int4pack_mm_for_cpu", "_convert_weight_to_int4pack_for_cpu", "_weight_int8pack_mm")
    there = all(hasattr(torch.ops.aten, name) for name in wanted)
    return ROWS.get(torch.backends.cpu.get_cpu_capability(), 0) if there else 0


def multiplier(weight_NK: torch.Tensor, bits: int | None = None) -> Multiply | None:
    """Return how to multiply by a matrix in the bits that it was stored in; None where it lies on no grid.

    With `bits`, 4 or 8, it is rounded to a grid; None where its size fits none.
    """
    N, K = weight_NK.shape
    finds: list[Any] = [nibbles, bytes_by_row, two_nibbles]
    if bits is not None:
        finds = [nibbles] if bits == 4 else [bytes_by_row]
    for find in finds:
        if K % BLOCK or (N % NIBBLE_ROWS and find is not bytes_by_row):
            continue
        pieces = []
        for rows_MK in weight_NK.split(PIECE):  # whatever stays in the processor's own memory is found fast
            piece = find(rows_MK.float(), NEAR if bits is None else 1.0)
            if piece is None:
                break
            pieces.append(piece)
        else:
            return type(pieces[0]).join(pieces)
    return None


def on_grid(levels: torch.Tensor, near: float) -> torch.Tensor | None:
    """Return whole levels, or None where one is further than `near` from any."""
    whole = levels.round()
    return whole if float((levels - whole).abs_().max()) <= near else None


def nibbles(weight_NK: torch.Tensor, near: float) -> "Nibbles | None":
    """Return the way of sixteen levels between the least and the greatest of 32 neighbours."""
    blocks_NGB = weight_NK.unflatten(1, (-1, BLOCK))
    low, high = blocks_NGB.aminmax(dim=-1, keepdim=True)
    step_NG1 = ((high - low) / 15).clamp_(min=LEAST)
    level_NGB = on_grid((blocks_NGB - low).div_(step_NG1), near)
    return None if level_NGB is None else Nibbles.of(level_NGB, step_NG1, low + 8 * step_NG1)


def two_nibbles(weight_NK: torch.Tensor, near: float) -> "TwoNibbles | None":
    """Return the way of 255 levels around zero, one step for 32 neighbours, as 16 * high - 128 + low."""
    blocks_NGB = weight_NK.unflatten(1, (-1, BLOCK))
    step_NG1 = (blocks_NGB.abs().amax(-1, keepdim=True) / 127).clamp_(min=LEAST)
    level_NGB = on_grid(blocks_NGB / step_NG1, near)
    if level_NGB is None:
        return None
    high_NGB = ((level_NGB + 128) / 16).floor_()
    low = Nibbles.of(level_NGB + 128 - 16 * high_NGB, step_NG1, torch.zeros_like(step_NG1))
    return TwoNibbles(Nibbles.of(high_NGB, 16 * step_NG1, 8 * step_NG1), low)


def bytes_by_row(weight_NK: torch.Tensor, near: float) -> "Bytes | None":
    """Return the way of 255 levels around zero, one step a row."""
    step_N1 = (weight_NK.abs().amax(1, keepdim=True) / 127).clamp_(min=LEAST)
    level_NK = on_grid(weight_NK / step_N1, near)
    return None if level_NK is None else Bytes(level_NK.to(torch.int8), step_N1[:, 0].to(torch.bfloat16))


@dataclass(frozen=True)
class Nibbles:
    """Levels from 0 to 15: a weight is its block's middle and so many steps from level 8."""

    packed: torch.Tensor
    scales_GN2: torch.Tensor  # a step, and the middle

    @classmethod
    def of(cls, level_NGB: torch.Tensor, step_NG1: torch.Tensor, middle_NG1: torch.Tensor) -> "Nibbles":
        """Return the way through whole levels."""
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(level_NGB.flatten(1).int(), 1)
        scales_NG2 = torch.cat([step_NG1, middle_NG1], -1).to(torch.bfloat16)
        return cls(packed, scales_NG2.transpose(0, 1).contiguous())

    def __call__(self, x_RK: torch.Tensor) -> torch.Tensor:
        """Return (R, N)."""
        return torch.ops.aten._weight_int4pack_mm_for_cpu(x_RK, self.packed, BLOCK, self.scales_GN2)

    @classmethod
    def join(cls, pieces: Sequence["Nibbles"]) -> "Nibbles":
        """Return the way through the rows of all of them; of all but the last, a multiple of 64."""
        scales_GN2 = torch.cat([piece.scales_GN2 for piece in pieces], 1)
        return cls(torch.cat([piece.packed for piece in pieces]), scales_GN2)


@dataclass(frozen=True)
class TwoNibbles:
    """Levels from -128 to 127 in two halves."""

    high: Nibbles
    low: Nibbles

    def __call__(self, x_RK: torch.Tensor) -> torch.Tensor:
        """Return (R, N), float32."""
        return self.high(x_RK).float() + self.low(x_RK).float()

    @classmethod
    def join(cls, pieces: Sequence["TwoNibbles"]) -> "TwoNibbles":
        """Return the way through the rows of all of them."""
        return cls(Nibbles.join([piece.high for piece in pieces]), Nibbles.join([piece.low for piece in pieces]))


@dataclass(frozen=True)
class Bytes:
    """Levels from -127 to 127: a weight is so many steps of its row."""

    level_NK: torch.Tensor
    step_N: torch.Tensor

    def __call__(self, x_RK: torch.Tensor) -> torch.Tensor:
        """Return (R, N)."""
        return torch.ops.aten._weight_int8pack_mm(x_RK, self.level_NK, self.step_N)

    @classmethod
    def join(cls, pieces: Sequence["Bytes"]) -> "Bytes":
        """Return the way through the rows of all of them."""
        return cls(torch.cat([piece.level_NK for piece in pieces]), torch.cat([piece.step_N for piece in pieces]))
