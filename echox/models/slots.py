"""Rows in the middle of decoding as a value: what a decoder has read of them, kept, joined and continued.

    prefill: rows of inputs --decoder--> Slots, the state that predicts each row's next token
    resume:  the same for a row whose beginning has been read
    step:    Slots, one input a row --decoder--> Slots, the next states

A decoder is any Hugging Face body that takes `inputs_embeds`. Rows are padded on the left, every row counts its own places, so a
row is read the same alone and in any company.

Keys and values lie in buffers with room behind them, so that a step writes its own place and copies nothing.

Legend: B rows, H heads of keys, N positions, W decoder width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from echox.models.ragged import pad_left

ROOM = 64  # places by which buffers are lengthened at least, else by a quarter


@dataclass
class Row:
    """What a row starts with: inputs (N, W), and, where they differ from 0, 1, 2 ..., the places of these inputs and of the next
    one, and which of them may be looked at.
    """

    inputs_NW: torch.Tensor
    places_N: torch.Tensor | None = None
    next_place: int | None = None
    seen_N: torch.Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether its places are 0, 1, 2 ... and everything may be looked at."""
        return self.places_N is None and self.next_place is None and self.seen_N is None

    @property
    def laid_out(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The places of its inputs, and which of them may be looked at, both (N,)."""
        count = len(self.inputs_NW)
        places_N = torch.arange(count) if self.places_N is None else self.places_N
        return places_N, torch.ones(count, dtype=torch.bool) if self.seen_N is None else self.seen_N


@dataclass
class Slots:
    """Rows in the middle of decoding: keys and values, what may be looked at (B, N), the place of the next input (B,).

    `plain` says that everything may be looked at, so that no mask is needed.
    """

    cache: DynamicCache
    seen_BN: torch.Tensor
    next_B: torch.Tensor
    plain: bool

    def __len__(self) -> int:
        return len(self.next_B)

    @property
    def layers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of every layer."""
        layers = cast("list[Any]", self.cache.layers)  # none is of the linear kind
        return [(layer.keys, layer.values) for layer in layers]

    def keep(self, rows: Sequence[int]) -> "Slots":
        """Return the slots of some rows, in the order given, without the places in front that none of them looks at."""
        index = torch.tensor(list(rows), device=self.next_B.device)
        seen_BN = self.seen_BN[index]
        first = 0 if self.plain else int(seen_BN.any(0).int().argmax())
        cache = _cache([(keys[index, :, first:], values[index, :, first:]) for keys, values in self.layers])
        seen_BN = seen_BN[:, first:]
        return Slots(cache, seen_BN, self.next_B[index], self.plain or bool(seen_BN.all()))

    def first(self, count: int) -> "Slots":
        """Return the slots of the first places of one plain row."""
        cache = _cache([(keys[:, :, :count], values[:, :, :count]) for keys, values in self.layers])
        return Slots(cache, self.seen_BN[:, :count], torch.full_like(self.next_B, count), self.plain)

    def join(self, other: "Slots") -> "Slots":
        """Return these rows and those of `other` in one batch, the shorter ones padded on the left."""
        longest = max(self.seen_BN.shape[1], other.seen_BN.shape[1])
        layers = []
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            pairs = zip(mine, theirs, strict=True)
            layers.append(tuple(torch.cat([_grown(a, longest, 2), _grown(b, longest, 2)]) for a, b in pairs))
        seen_BN = torch.cat([_grown(self.seen_BN, longest, 1), _grown(other.seen_BN, longest, 1)])
        return Slots(_cache(layers), seen_BN, torch.cat([self.next_B, other.next_B]), bool(seen_BN.all()))


def _grown(x: torch.Tensor, length: int, dim: int) -> torch.Tensor:
    """Return `x` with zeros in front along `dim`, up to `length`."""
    return nn.functional.pad(x, (0, 0) * (x.ndim - 1 - dim) + (length - x.shape[dim], 0))


class _Layer(DynamicLayer):
    """Keys and values of a layer, as views of what is written so far of their buffers (B, H, N and room, width).

    What a cache begins with may belong to others: it has no buffers, and is copied before anything is written behind it.
    """

    buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return all keys and values after those of new places, which are written behind them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        done, new = self.get_seq_length(), (key_states, value_states)
        count = done + key_states.shape[2]
        buffers = self.buffers
        if buffers is None or count > buffers[0].shape[2] or not _is_of(self.keys, buffers[0]):
            size = count + max(ROOM, count // 4)
            buffers = (
                _lengthened(self.keys, key_states, done, size),
                _lengthened(self.values, value_states, done, size),
            )
            self.buffers = buffers
        for buffer, states in zip(buffers, new, strict=True):
            buffer[:, :, done:count] = states
        self.keys, self.values = (buffer[:, :, :count] for buffer in buffers)
        return self.keys, self.values


def _is_of(keys: torch.Tensor | None, buffer: torch.Tensor) -> bool:
    """Say whether keys are still a view of their buffer: transformers puts others in their place when it moves rows."""
    return keys is not None and keys.data_ptr() == buffer.data_ptr()


def _lengthened(old: torch.Tensor | None, like: torch.Tensor, done: int, size: int) -> torch.Tensor:
    """Return a buffer of `size` places that begins with what is `done` of the old one."""
    buffer = like.new_empty(*like.shape[:2], size, like.shape[3])
    if done and old is not None:
        buffer[:, :, :done] = old
    return buffer


def _cache(layers: Sequence[Any] = ()) -> DynamicCache:
    """Return a cache of these keys and values of every layer; nothing is written into them, and they take no room before a step."""
    cache = DynamicCache()
    cache.layer_class_to_replicate = _Layer
    for keys, values in layers:
        layer = _Layer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def prefill(body: Any, rows: Sequence[Row]) -> tuple[Slots, torch.Tensor]:
    """Return the slots of rows that `body` has read, and the state (B, W) after the last input of each."""
    inputs_BNW, real_BN = pad_left([row.inputs_NW for row in rows])
    lengths_B = real_BN.sum(1)
    seen_BN, places_BN = real_BN, (real_BN.cumsum(1) - 1).clamp(min=0)
    if any(row.seen_N is not None for row in rows):
        seen_BN = pad_left([row.laid_out[1].to(real_BN.device) for row in rows])[0]
    if any(row.places_N is not None for row in rows):
        places_BN = pad_left([row.laid_out[0].to(real_BN.device) for row in rows])[0]
    following = [int(n) if row.next_place is None else row.next_place for row, n in zip(rows, lengths_B, strict=True)]
    slots = Slots(_cache(), seen_BN, torch.tensor(following, device=real_BN.device), bool(seen_BN.all()))
    return _run(body, slots, inputs_BNW, places_BN)


def resume(body: Any, past: Slots, row: Row) -> tuple[Slots, torch.Tensor]:
    """Return what `prefill` returns of one plain row, `past` being the slots of its first places, which are used up."""
    done, count = past.seen_BN.shape[1], len(row.inputs_NW)
    places_BN = torch.arange(done, count, device=row.inputs_NW.device)[None]
    seen_BN = nn.functional.pad(past.seen_BN, (0, count - done), value=True)
    slots = Slots(past.cache, seen_BN, torch.full_like(past.next_B, count), past.plain)
    return _run(body, slots, row.inputs_NW[None, done:], places_BN)


def step(body: Any, slots: Slots, inputs_BW: torch.Tensor) -> tuple[Slots, torch.Tensor]:
    """Return the slots after one input a row, and the states (B, W); the slots that were given are used up."""
    seen_BN = nn.functional.pad(slots.seen_BN, (0, 1), value=True)
    after = replace(slots, seen_BN=seen_BN, next_B=slots.next_B + 1)
    return _run(body, after, inputs_BW[:, None], slots.next_B[:, None])


def _run(body: Any, slots: Slots, inputs_BNW: torch.Tensor, places_BN: torch.Tensor) -> tuple[Slots, torch.Tensor]:
    mask = None if slots.plain else slots.seen_BN.long()
    output = body(
        inputs_embeds=inputs_BNW,
        attention_mask=mask,
        position_ids=places_BN,
        past_key_values=slots.cache,
        use_cache=True,
    )
    return slots, output.last_hidden_state[:, -1]
