"""The one decoding loop: rows in the middle of decoding as a value, and how a next token is chosen as pure functions.

    prefill: rows of inputs --decoder--> Slots, the state that predicts each row's next token
    step:    Slots, one input a row --decoder--> Slots, the next states
    decode:  both in a loop, until every row has ended; a stream is a batch of one row

A decoder is any Hugging Face body that takes `inputs_embeds`. Rows are padded on the left, every row counts its own places, so a
row says the same alone and in any company; rows that have ended leave, and rows may join between two steps.

Legend: B rows, N positions, V vocabulary, W decoder width.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from echox.errors import ConfigError, ModelError
from echox.models.ragged import pad_left

NUCLEUS = 1024  # candidates that are sorted first; the whole vocabulary only where they do not cover top_p


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen: greedy (temperature 0) or by nucleus sampling, and without repeated runs if asked for."""

    temperature: float = 0.0
    top_p: float = 1.0
    no_repeat_ngram: int = 0  # no run of so many tokens is said twice in a row's answer; 0: no such rule
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.no_repeat_ngram < 0:
            raise ConfigError(
                f"temperature {self.temperature:g}, top_p {self.top_p:g} and no_repeat_ngram {self.no_repeat_ngram} do not fit: "
                "give temperature >= 0, 0 < top_p <= 1, no_repeat_ngram >= 0."
            )

    def generators(self, rows: int) -> list[torch.Generator | None]:
        """Return a generator for each row, so that a seed gives the same answer in any company; None where greedy."""
        return [torch.Generator().manual_seed(self.seed) if self.temperature else None for _ in range(rows)]


GREEDY = Sampling()


class Decoder(Protocol):
    """What the loop asks of a model: a body, the inputs of tokens, and the scores of states."""

    @property
    def body(self) -> Any:
        """The Hugging Face decoder."""
        ...

    def embed_tokens(self, tokens_B: torch.Tensor) -> torch.Tensor:
        """Return the decoder's inputs (B, W) of tokens (B,)."""
        ...

    def token_logits(self, hidden_BW: torch.Tensor) -> torch.Tensor:
        """Return scores (B, V) of the next token; one that may never come has minus infinity."""
        ...


@dataclass
class Row:
    """What a row starts with: inputs (N, W), and, where they differ from 0, 1, 2 ..., the places of these inputs and of the next
    one, and which of them may be looked at.
    """

    inputs_NW: torch.Tensor
    places_N: torch.Tensor | None = None
    next_place: int | None = None
    seen_N: torch.Tensor | None = None


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

    def keep(self, rows: Sequence[int]) -> "Slots":
        """Return the slots of some rows, in the order given; a row may be named twice (beams)."""
        index = torch.tensor(list(rows), device=self.next_B.device)
        cache = _cache([(layer.keys[index], layer.values[index]) for layer in self.cache.layers])
        return Slots(cache, self.seen_BN[index], self.next_B[index], self.plain)

    def join(self, other: "Slots") -> "Slots":
        """Return these rows and those of `other` in one batch, the shorter ones padded on the left."""
        longest = max(self.seen_BN.shape[1], other.seen_BN.shape[1])
        layers = []
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            pairs = zip((mine.keys, mine.values), (theirs.keys, theirs.values), strict=True)
            layers.append(tuple(torch.cat([_grown(a, longest, 2), _grown(b, longest, 2)]) for a, b in pairs))
        seen_BN = torch.cat([_grown(self.seen_BN, longest, 1), _grown(other.seen_BN, longest, 1)])
        return Slots(_cache(layers), seen_BN, torch.cat([self.next_B, other.next_B]), bool(seen_BN.all()))


def _grown(x: torch.Tensor, length: int, dim: int) -> torch.Tensor:
    """Return `x` with zeros in front along `dim`, up to `length`."""
    return nn.functional.pad(x, (0, 0) * (x.ndim - 1 - dim) + (length - x.shape[dim], 0))


def _cache(layers: list[Any]) -> DynamicCache:
    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()
        layer.update(keys, values)
        cache.layers.append(layer)
    return cache


def prefill(body: Any, rows: Sequence[Row]) -> tuple[Slots, torch.Tensor]:
    """Return the slots of rows that `body` has read, and the state (B, W) after the last input of each."""
    inputs_BNW, real_BN = pad_left([row.inputs_NW for row in rows])
    lengths_B = real_BN.sum(1)
    seen_BN, places_BN = real_BN, (real_BN.cumsum(1) - 1).clamp(min=0)
    if any(row.seen_N is not None for row in rows):
        seen = [row.seen_N if row.seen_N is not None else real[real] for row, real in zip(rows, real_BN, strict=True)]
        seen_BN = pad_left([one.to(real_BN.device) for one in seen])[0]
    if any(row.places_N is not None for row in rows):
        places = [row.places_N if row.places_N is not None else torch.arange(len(row.inputs_NW)) for row in rows]
        places_BN = pad_left([one.to(real_BN.device) for one in places])[0]
    following = [int(n) if row.next_place is None else row.next_place for row, n in zip(rows, lengths_B, strict=True)]
    slots = Slots(DynamicCache(), seen_BN, torch.tensor(following, device=real_BN.device), bool(seen_BN.all()))
    return _run(body, slots, inputs_BNW, places_BN)


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


@dataclass
class Step:
    """One more token of every row that goes on: which rows, their tokens, and the states (B, W) that predict them."""

    rows: list[int]
    tokens: list[int]
    states_BW: torch.Tensor


@torch.inference_mode()
def decode(
    model: Decoder,
    rows: Sequence[Row],
    stops: Collection[int],
    is_over: Callable[[int, list[int]], bool],
    sampling: Sampling = GREEDY,
) -> Iterator[Step]:
    """Yield a step at a time until each row has chosen a stop token, which is not yielded, or `is_over(row, said)`.

    ModelError when the numbers overflow.
    """
    said: list[list[int]] = [[] for _ in rows]
    generators = sampling.generators(len(rows))
    going = [row for row in range(len(rows)) if not is_over(row, [])]
    if not going:
        return
    slots, hidden_BW = prefill(model.body, [rows[row] for row in going])
    while True:
        logits_BV = model.token_logits(hidden_BW)
        tokens = choose(logits_BV, [said[row] for row in going], sampling, [generators[row] for row in going])
        alive = [place for place, token in enumerate(tokens) if token not in stops]
        if not alive:
            return
        going, tokens = [going[place] for place in alive], [tokens[place] for place in alive]
        for row, token in zip(going, tokens, strict=True):
            said[row].append(token)
        yield Step(list(going), tokens, hidden_BW[alive])
        on = [place for place, row in enumerate(going) if not is_over(row, said[row])]
        if not on:
            return
        if len(on) < len(slots):
            slots = slots.keep([alive[place] for place in on])
        going, tokens = [going[place] for place in on], [tokens[place] for place in on]
        device = hidden_BW.device
        slots, hidden_BW = step(model.body, slots, model.embed_tokens(torch.tensor(tokens, device=device)))


def choose(
    logits_BV: torch.Tensor, said: Sequence[list[int]], sampling: Sampling, generators: Sequence[torch.Generator | None]
) -> list[int]:
    """Return each row's next token from its scores and what it has said; ModelError when the scores overflow."""
    if sampling.no_repeat_ngram:
        for row, tokens in enumerate(said):
            if never := repeats(tokens, sampling.no_repeat_ngram):
                logits_BV[row, torch.tensor(sorted(never), device=logits_BV.device)] = -torch.inf
    best_B, token_B = logits_BV.max(-1)
    if not torch.isfinite(best_B).all():
        raise ModelError("the model's numbers overflow (NaN or infinity): fetch it again, or try --dtype float32.")
    if not sampling.temperature:
        return token_B.tolist()
    return [sample(row, sampling, generator) for row, generator in zip(logits_BV, generators, strict=True)]


def repeats(said: list[int], size: int) -> set[int]:
    """Return the tokens that would end a run of `size` tokens that has been said before."""
    if len(said) < size:
        return set()
    run = said[len(said) - size + 1 :]
    starts = range(len(said) - size + 1)
    return {said[start + size - 1] for start in starts if said[start : start + size - 1] == run}


def sample(logits_V: torch.Tensor, sampling: Sampling, generator: torch.Generator | None) -> int:
    """Return a token drawn from the nucleus of one row's scores: the likeliest until they cover top_p (spec section 9)."""
    scaled = logits_V.float().cpu() / sampling.temperature
    total = scaled.logsumexp(-1)
    for count in (min(NUCLEUS, len(scaled)), len(scaled)):
        values, tokens = scaled.topk(count)
        probabilities = (values - total).exp()
        before = probabilities.cumsum(-1) - probabilities
        if count == len(scaled) or float(before[-1] + probabilities[-1]) > sampling.top_p:
            break
    kept = max(int((before <= sampling.top_p).sum()), 1)
    return int(tokens[torch.multinomial(probabilities[:kept], 1, generator=generator)])
