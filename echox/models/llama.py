"""Llama's decoder: RMS norm, rotary places, grouped heads, gated MLP; it knows no text, no loop and no cache of its own.

    inputs --[ norm, attention, + ; norm, gated MLP, + ] x layers--> norm --> states --(head, in a causal LM)--> logits

Names of tensors and of arguments are those of Hugging Face's LlamaModel, so its checkpoints load as they are, its cache is the
cache here, and any of its other decoders can stand in this one's place. Theirs is the slow twin: importing it takes as long as
hearing, thinking and speaking a short answer (benchmarks/cold.py), and a test holds that both give the same numbers.

Legend: B rows, D head width, H heads, K keys (past and new), N new positions, V vocabulary, W width.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu
from transformers import PreTrainedConfig

from echox.errors import ModelError
from echox.models.bounds import Classes, Flag, Heads, Layers, Share, Wide, Width, check_values
from echox.models.packed import together

CONFIG_OF_OTHERS = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "rope_scaling": None}


class LlamaConfig(PreTrainedConfig):
    """Sizes of a decoder, named as in Hugging Face's configuration of the same kind."""

    model_type = "llama"
    vocab_size: Classes = 1
    hidden_size: Width = 384
    intermediate_size: Wide = 1024
    num_hidden_layers: Layers = 4
    num_attention_heads: Heads = 6
    num_key_value_heads: Heads = 6
    head_dim: Width = 64
    rms_norm_eps: Share = 1e-6
    rope_theta: Annotated[float, Field(strict=True, ge=1, le=1e9, allow_inf_nan=False)] = 10_000.0
    tie_word_embeddings: Flag = False

    @classmethod
    def from_values(cls, values: dict[str, Any], source: object = "config.json") -> "LlamaConfig | None":
        """Return the sizes in a Hugging Face config.json, or None where it describes what is not computed here.

        ModelError names `source` and a size that is missing or cannot be.
        """
        places = values.get("rope_parameters") or {"rope_theta": values.get("rope_theta", 10_000.0)}
        usual = all(values.get(name, usual) == usual for name, usual in CONFIG_OF_OTHERS.items())
        if values.get("model_type") != "llama" or not usual or places.get("rope_type", "default") != "default":
            return None
        named = {name: values[name] for name in cls.__annotations__ if values.get(name) is not None}
        check_values(cls, named | {"rope_theta": places.get("rope_theta")}, source)
        width, heads = named.get("hidden_size", 0), named.get("num_attention_heads", 1)
        implied = {"num_key_value_heads": heads, "head_dim": width // heads}
        named = implied | named | {"rope_theta": places["rope_theta"]}
        if named["head_dim"] < 2 or named["head_dim"] % 2 or heads % named["num_key_value_heads"]:
            raise ModelError(
                f"{source}: {heads} heads ({named['num_key_value_heads']} of keys) do not fit the width {width}."
            )
        return cls(**named)


@dataclass
class LlamaOutput:
    """States (B, N, W) after the final norm, the cache, if asked for the inputs and every layer's states; a causal LM's logits."""

    last_hidden_state: torch.Tensor
    past_key_values: Any = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    logits: torch.Tensor | None = None


class Norm(nn.Module):
    """Scale to unit mean square, in float32 whatever comes in."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x_BNW: torch.Tensor) -> torch.Tensor:
        """Return (B, N, W)."""
        width = x_BNW.shape[-1:]
        if x_BNW.dtype == self.weight.dtype == torch.float32:
            return rms_norm(x_BNW, width, self.weight, self.eps)
        return self.weight * rms_norm(x_BNW.float(), width, eps=self.eps).to(x_BNW.dtype)


def rotations(places_BN: torch.Tensor, width: int, base: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines (B, 1, N, D), float32, by which a head's numbers at these places are turned.

    Number i is turned with number i + D/2; the sines of the first half are negative, as the turn has them.
    """
    steps = torch.arange(0, width, 2, dtype=torch.float32, device=places_BN.device)
    angles = places_BN[:, None, :, None].float() * (1.0 / base ** (steps / width))
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x_BHND: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return heads turned by their places."""
    return x_BHND * cos + x_BHND.roll(x_BHND.shape[-1] // 2, -1) * sin


class Attention(nn.Module):
    """Causal attention; several heads read one head of keys and values."""

    reads_same = (("q_proj", "k_proj", "v_proj"),)

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        W, D = config.hidden_size, config.head_dim
        self.layer, self.head_width = layer, D
        self.groups = config.num_attention_heads // config.num_key_value_heads
        self.q_proj = nn.Linear(W, config.num_attention_heads * D, bias=False)
        self.k_proj = nn.Linear(W, config.num_key_value_heads * D, bias=False)
        self.v_proj = nn.Linear(W, config.num_key_value_heads * D, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * D, W, bias=False)

    def forward(
        self, x_BNW: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor | None, cache: Any
    ) -> torch.Tensor:
        """Return what each position gathers (B, N, W); without a mask, new positions see themselves and all before."""
        q, k, v = (
            part.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for part in together(x_BNW, self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, *rotary), rotate(k, *rotary)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        if q.shape[2] == 1:  # the heads of a group are queries of one head: nothing is repeated
            q = q.view(*k.shape[:2], self.groups, self.head_width)
            return self.o_proj(scaled_dot_product_attention(q, k, v, attn_mask=mask).reshape(len(q), 1, -1))
        if mask is not None and self.groups > 1:
            k, v = k.repeat_interleave(self.groups, 1), v.repeat_interleave(self.groups, 1)
        found_BHND = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=mask is None
        )
        return self.o_proj(found_BHND.transpose(1, 2).flatten(2))


class GatedMlp(nn.Module):
    """Position by position: a gate times a value, back to the width."""

    reads_same = (("gate_proj", "up_proj"),)

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        W, inner = config.hidden_size, config.intermediate_size
        self.gate_proj, self.up_proj = nn.Linear(W, inner, bias=False), nn.Linear(W, inner, bias=False)
        self.down_proj = nn.Linear(inner, W, bias=False)

    def forward(self, x_BNW: torch.Tensor) -> torch.Tensor:
        """Return (B, N, W)."""
        gate, value = together(x_BNW, self.gate_proj, self.up_proj)
        return self.down_proj(silu(gate) * value)


class Layer(nn.Module):
    """One block: attention, then the MLP, each on normed inputs and added to them."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(config, layer), GatedMlp(config)
        self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x_BNW: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor | None, cache: Any
    ) -> torch.Tensor:
        """Return new states (B, N, W)."""
        x_BNW = x_BNW + self.self_attn(self.input_layernorm(x_BNW), rotary, mask, cache)
        return x_BNW + self.mlp(self.post_attention_layernorm(x_BNW))


class Llama(nn.Module):
    """The decoder without its head; `embed_tokens` may be None where inputs are always given."""

    embed_tokens: nn.Embedding | None

    def __init__(self, config: LlamaConfig, embedded: bool = True) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size) if embedded else None
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        output_hidden_states: bool = False,
    ) -> LlamaOutput:
        """Return the states of new positions (B, N, W).

        `attention_mask` (B, K) is nonzero where there is something to look at, past and new; `position_ids` (B, N) are by
        default counted from the cache's length. With `use_cache` the cache (a transformers Cache) grows in place.
        """
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        N, device = inputs_embeds.shape[1], inputs_embeds.device
        if position_ids is None:
            position_ids = torch.arange(past, past + N, device=device)[None]
        cos, sin = rotations(position_ids, self.config.head_dim, self.config.rope_theta)
        rotary = cos.to(inputs_embeds.dtype), sin.to(inputs_embeds.dtype)
        mask, states = visible(attention_mask, N, past, device), [inputs_embeds]
        for layer in self.layers:
            states.append(layer(states[-1], rotary, mask, past_key_values if use_cache else None))
        last_BNW = self.norm(states[-1])
        every = (*states[:-1], last_BNW) if output_hidden_states else None
        return LlamaOutput(last_BNW, past_key_values, every)


def visible(mask_BK: torch.Tensor | None, new: int, past: int, device: torch.device) -> torch.Tensor | None:
    """Return where each new position may look (B, 1, N, K), or None where causality says it all."""
    if (mask_BK is None or bool(mask_BK.all())) and (new == 1 or past == 0):
        return None
    causal_NK = torch.ones(new, past + new, dtype=torch.bool, device=device).tril(past)
    return causal_NK[None, None] if mask_BK is None else causal_NK & mask_BK[:, None, None].bool()


class LlamaLm(nn.Module):
    """A causal LM: the decoder, and a head that may be its token table."""

    all_tied_weights_keys = ("lm_head.weight",)  # where the configuration ties them
    folder: Path | None = None  # whose weights these are, to the last bit
    generation_config: Any = None  # with `eos_token_id`, the tokens that end a text

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config, self.model = config, Llama(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie()

    def tie(self) -> None:
        """Let the head be the token table where the configuration says so."""
        if self.config.tie_word_embeddings and self.model.embed_tokens is not None:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self, input_ids: torch.Tensor | None = None, inputs_embeds: torch.Tensor | None = None, **options: Any
    ) -> LlamaOutput:
        """Return the decoder's output with logits (B, N, V), of token ids (B, N) or of inputs (B, N, W)."""
        if input_ids is not None and self.model.embed_tokens is not None:
            inputs_embeds = self.model.embed_tokens(input_ids)
        output = self.model(inputs_embeds, **options)
        return replace(output, logits=self.lm_head(output.last_hidden_state))

    def get_decoder(self) -> Llama:
        """Return the decoder."""
        return self.model

    def get_input_embeddings(self) -> nn.Embedding | None:
        """Return the token table."""
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Linear:
        """Return the head."""
        return self.lm_head
