"""Linear layers that compute with weights as they were stored, in 4 or 8 bits, wherever a step reads few rows.

One token passes every weight once, so a step lasts as long as it takes to fetch them: a weight of 4 bits comes four times
sooner than in bfloat16, eight times sooner than in float32. `pack` finds the grid again on which weights lie that came from a file
of 4 or 8 bits, and leaves a matrix that lies on none as it is. `round_to_bits` rounds to such a grid and keeps nothing else.

    nibbles      16 levels between the least and the greatest of 32 neighbours in a row   (GGUF's Q4_1)
    bytes        255 levels around zero, one step a row                                   (models/weights.py)
    two nibbles  255 levels around zero, one step for 32 neighbours                       (GGUF's Q8_0)

What goes into a layer and comes out of it, and the steps of nibbles, are rounded to bfloat16; sums are float32. Many rows are
multiplied in the layer's own numbers, since there arithmetic is what lasts. The twin is the layer itself (`nn.Linear`), on the same
weights.

Layers that read the same input (`reads_same` of the module that owns them) are packed as one matrix, which `together` multiplies by
once: a step is mostly the cost of its many small operations.

Legend: B neighbours in a block, G blocks in a row, K inputs, N outputs, R rows.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, chain
from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import linear

BLOCK = 32
ROWS = {"AVX2": 48, "AVX512": 192}  # what torch has such kernels for, and up to how many rows they beat float32
PIECE = 512  # rows that are looked at together: whatever stays in the processor's own memory is found fast
JOINT = 64  # rows that torch packs together
NIBBLE_ROWS = 16  # torch's kernel wants a multiple of so many
TOP, MIDDLE = 15, 8  # the last level of a nibble, and the one that stands for the middle of its block
FARTHEST = 127  # the last level of a byte
LEAST = torch.finfo(torch.float32).tiny  # a step where all weights are zero
NEAR = 0.125  # of a step: what float16 or bfloat16 may have moved a weight off its grid

Multiply = Callable[[torch.Tensor], torch.Tensor]  # bfloat16 (R, K) to (R, N) in bfloat16 or float32


class PackedLinear(nn.Linear):
    """A linear layer with a second way to multiply, taken for few rows, or for all where nothing is kept but the bits."""

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


def few_rows(
    multiply: Multiply | None, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return what `linear` does, by `multiply` where there are few rows or no weight."""
    if multiply is None or (weight is not None and not are_few(x)):
        return linear(x, cast("torch.Tensor", weight).to(x.dtype), bias)
    found = multiply(x.reshape(-1, x.shape[-1]).to(torch.bfloat16).contiguous())
    found = found.to(x.dtype).view(*x.shape[:-1], found.shape[-1])
    return found if bias is None else found + bias


def are_few(x: torch.Tensor) -> bool:
    """Say whether packed weights beat the layer's own numbers at as many rows as `x` has."""
    return 0 < x.numel() <= most_rows() * x.shape[-1]


def together(x: torch.Tensor, *layers: nn.Module) -> Sequence[torch.Tensor]:
    """Return what each of some layers makes of the same input (..., K)."""
    ways = [way for layer in layers if isinstance(way := getattr(layer, "multiply", None), Rows)]
    if len(ways) < len(layers) or not are_few(x) or any(way.whole is not ways[0].whole for way in ways):
        return [layer(x) for layer in layers]
    return few_rows(ways[0].whole, x, None).split([way.last - way.first for way in ways], -1)


def pack(module: nn.Module) -> float:
    """Give every linear layer and head table whose weights lie on a grid its second way; return the share of weights that have one.

    Where this machine has no fast kernels none has. Who changes weights afterwards packs again.
    """
    packed = every = 0
    for layers in matrices(module):
        hand_out(layers, *multipliers([layer.weight.detach() for layer in layers]))
        every += sum(layer.weight.numel() for layer in layers)
        packed += sum(layer.weight.numel() for layer in layers if getattr(layer, "multiply", None))
    return packed / every if every else 0.0


def hand_out(layers: Sequence[Any], *ways: Multiply | None) -> None:
    """Give layers that `matrices` put together their second ways: each its own, or rows of the one there is for all."""
    if len(ways) < len(layers):
        ends = accumulate(len(layer.weight) for layer in layers)
        ways = tuple(Rows(ways[0], last - len(layer.weight), last) for layer, last in zip(layers, ends, strict=True))
    for layer, multiply in zip(layers, ways, strict=True):
        if isinstance(layer, Table):
            layer.multiply = multiply
        else:
            give(layer, multiply)


def matrices(module: nn.Module) -> Iterator[list[Any]]:
    """Yield layers that have weights: those without biases that read the same input together, all others alone."""
    seen: set[nn.Module] = set()
    for owner in module.modules():
        groups = [[getattr(owner, name) for name in names] for names in getattr(owner, "reads_same", ())]
        groups = [layers for layers in groups if all(getattr(layer, "bias", None) is None for layer in layers)]
        for layers in (*groups, [owner]):
            if all(type(layer) in (nn.Linear, PackedLinear, Table) for layer in layers) and seen.isdisjoint(layers):
                seen.update(layers)
                yield layers


def multipliers(weights: Sequence[torch.Tensor]) -> Sequence[Multiply | None]:
    """Return how to multiply by each of some matrices, or the one way by all at once where all lie on the same kind of grid."""
    if not most_rows() or weights[0].device.type != "cpu":
        return [None] * len(weights)
    several = len(weights) > 1 and not any(len(weight) % JOINT for weight in weights[:-1])
    whole = multiplier(*weights) if several else None
    return [multiplier(weight) for weight in weights] if whole is None else [whole]


def give(layer: nn.Linear, multiply: Multiply | None) -> None:
    """Give a linear layer its second way, or take it; the very object stays, since others may hold it too."""
    layer.__class__ = nn.Linear if multiply is None else PackedLinear
    if multiply is None:
        vars(layer).pop("multiply", None)  # `together` would go on with it
    else:
        cast("PackedLinear", layer).multiply = multiply


def round_to_bits(module: nn.Module, bits: int, head: nn.Linear | None = None) -> None:
    """Round the linear layers of `module` to grids of 4 or 8 bits and drop their weights; sizes that do not fit are left.

    A `head` keeps its weight, which others read, and has 8 bits for its second way.
    """
    if head is not None:
        give(head, multiplier(head.weight.detach(), bits=8))
    for child in module.modules():
        if type(child) is nn.Linear and (multiply := multiplier(child.weight.detach(), bits=bits)):
            give(child, multiply)
            child.register_parameter("weight", None)


@cache
def most_rows() -> int:
    """Return up to how many rows packed weights are taken; none where torch would loop over single numbers."""
    wanted = ("_weight_int4pack_mm_for_cpu", "_convert_weight_to_int4pack_for_cpu", "_weight_int8pack_mm")
    if sys.platform == "win32" or not all(hasattr(torch.ops.aten, name) for name in wanted):
        return 0  # what Microsoft's compiler makes has no such kernels
    return ROWS.get(torch.backends.cpu.get_cpu_capability(), 0)


def multiplier(*weights: torch.Tensor, bits: int | None = None) -> Multiply | None:
    """Return how to multiply by matrices (N, K), one below the other, in the bits that they were stored in.

    None where they lie on no grid. With `bits`, 4 or 8, they are rounded to a grid; None where their size fits none.
    """
    N, K = sum(map(len, weights)), weights[0].shape[1]
    ways: dict[int | None, list[Any]] = {None: [nibbles, bytes_by_row, two_nibbles], 4: [nibbles], 8: [bytes_by_row]}
    if not N or not K or K % BLOCK:
        return None
    for find in ways[bits]:
        if N % NIBBLE_ROWS and find is not bytes_by_row:
            continue
        pieces = []
        for rows_NK in chain.from_iterable(weight.split(PIECE) for weight in weights):
            piece = find(rows_NK.float(), NEAR if bits is None else 1.0)
            if piece is None:
                break
            pieces.append(piece)
        else:
            return type(pieces[0]).join(pieces)
    return None


def nibbles(weight_NK: torch.Tensor, near: float) -> "Nibbles | None":
    """Return the way of sixteen levels between the ends of 32 neighbours, None where one is farther than `near` from its level."""
    blocks_NGB = weight_NK.unflatten(1, (-1, BLOCK))
    low, high = (way(-1, keepdim=True) for way in (blocks_NGB.amin, blocks_NGB.amax))  # aminmax: five times as long
    step_NG1 = as_bfloat16(((high - low) / TOP).clamp_(min=LEAST))
    middle_NG1 = as_bfloat16(low + MIDDLE * step_NG1)
    place_NGB = (blocks_NGB - middle_NG1).div_(step_NG1).add_(MIDDLE)
    level_NGB = place_NGB.round().clamp_(0, TOP)
    return None if is_far(place_NGB, level_NGB, near) else Nibbles.of(level_NGB, step_NG1, middle_NG1)


def two_nibbles(weight_NK: torch.Tensor, near: float) -> "TwoNibbles | None":
    """Return the way of 255 levels around zero, one step for 32 neighbours, None where one is farther than `near`."""
    blocks_NGB = weight_NK.unflatten(1, (-1, BLOCK))
    step_NG1 = (blocks_NGB.abs().amax(-1, keepdim=True) / FARTHEST).clamp_(min=LEAST)
    place_NGB = blocks_NGB / step_NG1
    level_NGB = place_NGB.round()
    if is_far(place_NGB, level_NGB, near):
        return None
    above_NGB, size = level_NGB + (FARTHEST + 1), TOP + 1
    high_NGB = (above_NGB / size).floor_()
    low = Nibbles.of(above_NGB - size * high_NGB, step_NG1, torch.zeros_like(step_NG1))
    return TwoNibbles(Nibbles.of(high_NGB, size * step_NG1, MIDDLE * step_NG1), low)


def bytes_by_row(weight_NK: torch.Tensor, near: float) -> "Bytes | None":
    """Return the way of 255 levels around zero, one step a row, None where one is farther than `near`."""
    step_N1 = (weight_NK.abs().amax(1, keepdim=True) / FARTHEST).clamp_(min=LEAST)
    place_NK = weight_NK / step_N1
    level_NK = place_NK.round()
    return None if is_far(place_NK, level_NK, near) else Bytes.of(level_NK, step_N1[:, 0])


def is_far(places: torch.Tensor, levels: torch.Tensor, near: float) -> bool:
    """Say whether a place is farther than `near` from its level, or no number."""
    least, greatest = (places - levels).aminmax()
    return not (-near <= float(least) and float(greatest) <= near)


def as_bfloat16(x: torch.Tensor) -> torch.Tensor:
    """Return float32 numbers as bfloat16 holds them."""
    return x.to(torch.bfloat16).float()


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
        """Return (R, N), bfloat16."""
        return torch.ops.aten._weight_int4pack_mm_for_cpu(x_RK, self.packed, BLOCK, self.scales_GN2)

    @classmethod
    def join(cls, pieces: Sequence["Nibbles"]) -> "Nibbles":
        """Return the way through the rows of all of them; of all but the last, a multiple of JOINT."""
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
    one_N: torch.Tensor  # for the kernel, whose own steps would be bfloat16

    @classmethod
    def of(cls, level_NK: torch.Tensor, step_N: torch.Tensor) -> "Bytes":
        """Return the way through whole levels."""
        return cls(level_NK.to(torch.int8), step_N, torch.ones_like(step_N, dtype=torch.bfloat16))

    def __call__(self, x_RK: torch.Tensor) -> torch.Tensor:
        """Return (R, N), float32."""
        return torch.ops.aten._weight_int8pack_mm(x_RK, self.level_NK, self.one_N) * self.step_N

    @classmethod
    def join(cls, pieces: Sequence["Bytes"]) -> "Bytes":
        """Return the way through the rows of all of them."""
        return cls.of(torch.cat([piece.level_NK for piece in pieces]), torch.cat([piece.step_N for piece in pieces]))


@dataclass(frozen=True)
class Rows:
    """One layer's rows of a matrix that several layers are."""

    whole: Any
    first: int
    last: int

    def __call__(self, x_RK: torch.Tensor) -> torch.Tensor:
        """Return (R, N) of these rows."""
        return self.whole(x_RK)[:, self.first : self.last]
