"""Pre-norm transformer encoders and decoders from speech to sequences; they know no objective and no search.

    encoder   x ──[ norm, attention, + ; norm, feed-forward, + ] x layers──► states (no final norm: taps read them as they are)
    decoder   tokens ──embed──[ norm, causal attention, + ; norm, attention to memory, + ; norm, feed-forward, + ]──norm──► logits

A decoder that searches keeps a `DecoderState`: keys of what was said for every hypothesis, keys of the memory once a sentence. The
hypotheses of a sentence are queries of one attention, so choosing among them never moves the memory. `forward` over whole
sequences is the slow twin of `step`.

Legend: B sentences, D width, E width of a head, H heads, K hypotheses of a sentence, N positions so far, T memory, U tokens, V
vocabulary.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import nn
from torch.nn.functional import glu, scaled_dot_product_attention

from echox.models.bounds import check_heads
from echox.models.io import Stack
from echox.models.packed import Table
from echox.models.ragged import within

Keys = tuple[torch.Tensor, torch.Tensor]  # keys and values, (rows, H, N, E)


@dataclass(frozen=True)
class Block:
    """Sizes of one transformer layer; dropouts of the residual branches, of attention weights and inside the feed-forward."""

    width: int
    heads: int
    ffn: int
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads, self.heads, "a transformer layer")


class Attention(nn.Module):
    """Multi-head attention whose keys may be kept."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.heads, self.dropout = block.heads, nn.Dropout(block.attention_dropout)
        self.query, self.key, self.value, self.out = (nn.Linear(block.width, block.width) for _ in range(4))

    def keys(self, memory_BTD: torch.Tensor) -> Keys:
        """Return keys and values (B, H, T, E) of what is attended to."""
        return self._split(self.key(memory_BTD)), self._split(self.value(memory_BTD))

    def forward(self, x_BUD: torch.Tensor, keys: Keys, mask: torch.Tensor | None, causal: bool = False) -> torch.Tensor:
        """Return (B, U, D); `mask` is true where a key may be seen, broadcast to (B, H, U, T)."""
        query_BHUE, dropout = self._split(self.query(x_BUD)), self.dropout.p if self.training else 0.0
        if dropout and x_BUD.device.type == "cpu":
            seen = self._with_dropout(query_BHUE, keys, mask, causal)
        else:
            seen = scaled_dot_product_attention(query_BHUE, *keys, mask, dropout, is_causal=causal)
        return self.out(seen.transpose(1, 2).flatten(2))

    def _with_dropout(
        self, query_BHUE: torch.Tensor, keys: Keys, mask: torch.Tensor | None, causal: bool
    ) -> torch.Tensor:
        """Return what torch's attention does, its weights dropped by a module, whose masks the loop makes cheap."""
        scores_BHUT = query_BHUE @ keys[0].mT / math.sqrt(query_BHUE.shape[-1])
        if causal:
            mask = torch.ones(scores_BHUT.shape[-2:], dtype=torch.bool, device=scores_BHUT.device).tril()
        if mask is not None:
            scores_BHUT = scores_BHUT.masked_fill(~mask, -torch.inf)
        return self.dropout(scores_BHUT.softmax(-1)) @ keys[1]

    def _split(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return x_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Sequential):
    """Two linear layers with a ReLU between."""

    def __init__(self, block: Block) -> None:
        inner = [nn.Linear(block.width, block.ffn), nn.ReLU(), nn.Dropout(block.activation_dropout)]
        super().__init__(*inner, nn.Linear(block.ffn, block.width))


class EncoderLayer(nn.Module):
    """One pre-norm encoder layer."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(block.width), Attention(block)
        self.ffn_norm, self.ffn, self.dropout = nn.LayerNorm(block.width), FeedForward(block), nn.Dropout(block.dropout)

    def forward(self, x_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D); `mask_BT` is true at real positions."""
        normed_BTD = self.attention_norm(x_BTD)
        seen_BTD = self.attention(normed_BTD, self.attention.keys(normed_BTD), mask_BT[:, None, None])
        x_BTD = x_BTD + self.dropout(seen_BTD)
        return x_BTD + self.dropout(self.ffn(self.ffn_norm(x_BTD)))


class DecoderLayer(nn.Module):
    """One pre-norm decoder layer."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(block.width), Attention(block)
        self.memory_norm, self.memory = nn.LayerNorm(block.width), Attention(block)
        self.ffn_norm, self.ffn, self.dropout = nn.LayerNorm(block.width), FeedForward(block), nn.Dropout(block.dropout)

    def forward(self, x_BUD: torch.Tensor, memory: Keys, mask_BT: torch.Tensor) -> torch.Tensor:
        """Return (B, U, D) of whole sequences."""
        normed_BUD = self.attention_norm(x_BUD)
        said_BUD = self.attention(normed_BUD, self.attention.keys(normed_BUD), None, causal=True)
        x_BUD = x_BUD + self.dropout(said_BUD)
        return self._rest(x_BUD, memory, mask_BT)

    def step(
        self, x_BKD: torch.Tensor, memory: Keys, mask_BT: torch.Tensor, said: Keys | None
    ) -> tuple[torch.Tensor, Keys]:
        """Return (B, K, D) of one more token a hypothesis, and the keys with it, (B * K, H, N, E)."""
        normed_R1D = self.attention_norm(x_BKD).flatten(0, 1)[:, None]
        new = self.attention.keys(normed_R1D)
        keys = new if said is None else (torch.cat([said[0], new[0]], 2), torch.cat([said[1], new[1]], 2))
        x_BKD = x_BKD + self.attention(normed_R1D, keys, None).view_as(x_BKD)
        return self._rest(x_BKD, memory, mask_BT), keys

    def _rest(self, x_BUD: torch.Tensor, memory: Keys, mask_BT: torch.Tensor) -> torch.Tensor:
        seen_BUD = self.memory(self.memory_norm(x_BUD), memory, mask_BT[:, None, None])
        x_BUD = x_BUD + self.dropout(seen_BUD)
        return x_BUD + self.dropout(self.ffn(self.ffn_norm(x_BUD)))


@dataclass
class DecoderState:
    """Everything one running search owns."""

    memory: list[Keys]  # of every layer, (B, H, T, E)
    mask_BT: torch.Tensor
    said: list[Keys | None] = field(default_factory=list)  # of every layer, (B * K, H, N, E)
    length: int = 0


class TransformerDecoder(nn.Module):
    """Tokens so far and a memory to the logits of the next token; input and output embeddings are one."""

    def __init__(self, vocabulary: int, layers: int, block: Block, pad: int) -> None:
        super().__init__()
        self.scale, self.width = math.sqrt(block.width), block.width
        self.embedding = Table(vocabulary, block.width, pad)
        nn.init.normal_(self.embedding.weight, std=block.width**-0.5)
        self.dropout = nn.Dropout(block.dropout)
        self.layers: Stack[DecoderLayer] = Stack(DecoderLayer(block) for _ in range(layers))
        self.norm = nn.LayerNorm(block.width)

    def forward(self, tokens_BU: torch.Tensor, memory_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """Return logits (B, U, V) of the token after each."""
        places_UD = sinusoids(tokens_BU.shape[1], self.width).to(self.embedding.weight)
        x_BUD = self.dropout(self.embedding(tokens_BU) * self.scale + places_UD)
        for layer in self.layers:
            x_BUD = layer(x_BUD, layer.memory.keys(memory_BTD), mask_BT)
        return self.embedding.scores(self.norm(x_BUD))

    def start(self, memory_BTD: torch.Tensor, mask_BT: torch.Tensor) -> DecoderState:
        """Return the state before the first token."""
        memory = [layer.memory.keys(memory_BTD) for layer in self.layers]
        return DecoderState(memory, mask_BT, [None] * len(self.layers))

    def step(self, state: DecoderState, tokens_BK: torch.Tensor, parents_BK: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K, V) of the token after `tokens_BK`, which hypothesis k says after what `parents_BK`[k] had said."""
        B, device = len(tokens_BK), self.embedding.weight.device
        x_BKD = self.embedding(tokens_BK.to(device)) * self.scale
        x_BKD = x_BKD + sinusoids(1, self.width, state.length)[0].to(self.embedding.weight)
        if state.length:
            before = len(state.said[0][0]) // B  # type: ignore[index]
            rows_R = (parents_BK.to(device) + before * torch.arange(B, device=device)[:, None]).flatten()
            state.said = [(k[rows_R], v[rows_R]) for k, v in state.said]  # type: ignore[misc]
        for number, layer in enumerate(self.layers):
            x_BKD, state.said[number] = layer.step(x_BKD, state.memory[number], state.mask_BT, state.said[number])
        state.length += 1
        return self.embedding.scores(self.norm(x_BKD))


def shorten(
    convolutions: Iterable[nn.Module], x_BTD: torch.Tensor, lengths_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what strided convolutions with gated linear units make of (B, T, D), and its lengths (B,); zeros beyond each.

    Padding reaches no real frame: a row is the same alone and in any batch.
    """
    x_BDT = x_BTD.transpose(1, 2) * within(lengths_B, x_BTD.shape[1])[:, None]
    for convolution in convolutions:
        x_BDT = glu(convolution(x_BDT), dim=1)
        lengths_B = (lengths_B - 1) // cast("nn.Conv1d", convolution).stride[0] + 1
        x_BDT = x_BDT * within(lengths_B, x_BDT.shape[2])[:, None]
    return x_BDT.transpose(1, 2), lengths_B


def sinusoids(length: int, width: int, first: int = 0) -> torch.Tensor:
    """Return fixed positions (length, width): sines in the first half, cosines in the second."""
    rates = torch.exp(-math.log(10_000) / max(width // 2 - 1, 1) * torch.arange(width // 2))
    angles = torch.arange(first, first + length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)
