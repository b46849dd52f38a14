"""Whisper's encoder block by block, and the attention that its decoder shares (listener.py); it knows no windows and no padding.

    mel --conv1, conv2--> + positions --[ norm, attention, + ; norm, MLP, + ] x layers--> norm --> states

Names of tensors and sizes are those of Hugging Face's WhisperEncoder, which is the slow twin: a test holds that both give the same
numbers. It stands here for the reason given in llama.py. How windows of any length are run through it stands in encoder.py.

Legend: B batch, D head width, F mel bins, H heads, N positions, T encoder frames, W width.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import gelu, relu, scaled_dot_product_attention, silu
from transformers import PreTrainedConfig

from echox.models.bounds import Classes, Heads, Layers, Positions, Wide, Width
from echox.models.io import Part

Keys = tuple[torch.Tensor, torch.Tensor]  # keys and values, (B, H, N, D)
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": gelu,
    "relu": relu,
    "silu": silu,
    "gelu_new": partial(gelu, approximate="tanh"),
}


class WhisperConfig(PreTrainedConfig):
    """What is read of a Whisper folder's config.json; the defaults are tiny's."""

    model_type = "whisper"
    d_model: Width = 384
    encoder_layers: Layers = 4
    encoder_attention_heads: Heads = 6
    encoder_ffn_dim: Wide = 1536
    num_mel_bins: Annotated[int, Field(strict=True, ge=1, le=512)] = 80
    max_source_positions: Positions = 1500
    activation_function: Literal["gelu", "relu", "silu", "gelu_new"] = "gelu"
    vocab_size: Classes = 51865
    decoder_layers: Layers = 4
    decoder_attention_heads: Heads = 6
    decoder_ffn_dim: Wide = 1536
    max_target_positions: Positions = 448


class Attention(nn.Module):
    """Multi-head attention with Whisper's names; keys and values are handed in, so that they can be kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def split(self, x_BNW: torch.Tensor) -> torch.Tensor:
        """Return (B, H, N, D) of (B, N, W)."""
        return x_BNW.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, x_BNW: torch.Tensor) -> Keys:
        """Return keys and values (B, H, N, D) of what may be attended to."""
        return self.split(self.k_proj(x_BNW)), self.split(self.v_proj(x_BNW))

    def forward(
        self, x_BNW: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return what each position gathers, shape (B, N, W); `mask` is True where it may look."""
        found = scaled_dot_product_attention(self.split(self.q_proj(x_BNW)), keys, values, attn_mask=mask)
        return self.out_proj(found.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """One block of Whisper's encoder."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        W = config.d_model
        self.self_attn = Attention(W, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(W)
        self.activation = ACTIVATIONS[config.activation_function]
        self.fc1, self.fc2 = nn.Linear(W, config.encoder_ffn_dim), nn.Linear(config.encoder_ffn_dim, W)
        self.final_layer_norm = nn.LayerNorm(W)

    def forward(self, x_BTW: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return new states (B, T, W); `mask` as in `Attention`."""
        normed = self.self_attn_layer_norm(x_BTW)
        x_BTW = x_BTW + self.self_attn(normed, *self.self_attn.keys_values(normed), mask)
        x_BTW = x_BTW + self.fc2(self.activation(self.fc1(self.final_layer_norm(x_BTW))))
        if x_BTW.dtype == torch.float16:  # as in Hugging Face's: large models overflow otherwise
            limit = torch.finfo(x_BTW.dtype).max - 1000
            x_BTW = x_BTW.clamp(-limit, limit)
        return x_BTW


class WhisperEncoder(Part[WhisperConfig]):
    """The encoder's parts, which encoder.py runs."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        W = config.d_model
        self.conv1 = nn.Conv1d(config.num_mel_bins, W, 3, padding=1)
        self.conv2 = nn.Conv1d(W, W, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, W)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(W)
