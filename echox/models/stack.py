"""Layers of one kind in a row: a `ModuleList` that says of which kind, so that a type checker follows whoever walks along it."""

from collections.abc import Iterator
from typing import Generic, TypeVar, cast

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


class Stack(nn.ModuleList, Generic[Layer]):
    """What it is given, in order; tensors are named as in any `ModuleList`."""

    def __iter__(self) -> Iterator[Layer]:
        return cast("Iterator[Layer]", super().__iter__())
