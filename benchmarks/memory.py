"""How much memory a released layout takes, counted from its shapes; it reads no weights.

    weights   parameters x bytes; 8- and 4-bit storage for the LLM's linear layers only (nf4: one float32 per 64 values; int4: two
              bfloat16 per 32)
    cache     2 x layers x kv heads x head width x bytes, for each position of a conversation
    step      bytes that one token must read: the layers, one head, one table row, and the cache

Used by docs/released.md and benchmarks/released.py.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

from transformers import LlamaConfig

from echox.released.config import ReleasedConfig
from echox.released.keymap import expected_shapes

WIDTHS = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "int4": 0.5 + 4 / 32, "nf4": 0.5 + 4 / 64}
WHISPER_LARGE_V3 = 636_968_960  # parameters of its encoder, table of positions included
_BASE: dict[str, Any] = {
    "model_type": "EchoX", "vocab_size": 128_257, "num_key_value_heads": 8, "head_dim": 128, "adapter_size": 1280,
    "rope_theta": 500_000.0, "rms_norm_eps": 1e-5, "unit_output": "finetune_kd", "unit_vocab_size": 8000,
    "max_position_embeddings": 131_072,
}  # fmt: skip
ECHOX_8B: dict[str, Any] = {
    **_BASE, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "unit_model": "medium",
}  # fmt: skip
ECHOX_3B: dict[str, Any] = {
    **_BASE, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
    "tie_word_embeddings": True,
}  # fmt: skip
SOUNDWAVE_8B: dict[str, Any] = {
    **{k: v for k, v in ECHOX_8B.items() if not k.startswith("unit")}, "model_type": "Soundwave"
}  # fmt: skip
SIZES = {"EchoX-3B": ECHOX_3B, "EchoX-8B": ECHOX_8B, "Soundwave-8B": SOUNDWAVE_8B}


@dataclass(frozen=True)
class Memory:
    """Bytes of the checkpoint's weights, of its encoder, and of the LLM's cache per 1,000 positions."""

    weights: int
    encoder: int
    cache_per_1000: int

    @property
    def total(self) -> int:
        """Bytes of weights and encoder together."""
        return self.weights + self.encoder


def count_memory(config: ReleasedConfig, precision: str) -> Memory:
    """Return the bytes of a layout stored in `precision`: a dtype, or int8, int4, nf4 for the LLM's linear layers."""
    quantized = precision in ("int8", "int4", "nf4")
    plain = 2.0 if quantized else WIDTHS[precision]
    weights = 0.0
    for name, shape in expected_shapes(config).items():
        inner = quantized and name.startswith("model.layers.") and len(shape) == 2
        weights += prod(shape) * (WIDTHS[precision] if inner else plain)
    return Memory(round(weights), round(WHISPER_LARGE_V3 * plain), round(1000 * cache_bytes(config.llm, plain)))


def cache_bytes(llm: LlamaConfig, width: float) -> float:
    """Return the bytes that one position adds to the cache of keys and values."""
    heads = llm.num_key_value_heads or llm.num_attention_heads
    head = llm.head_dim or llm.hidden_size // llm.num_attention_heads
    return 2 * llm.num_hidden_layers * heads * head * width


def llm_step_bytes(config: ReleasedConfig, precision: str, positions: int) -> float:
    """Return the bytes that one LLM token reads after `positions`: layers, final norm, head, cache.

    What is rounded to int8 or int4 on a processor has a head in 8 bits and a cache in float32.
    """
    width = WIDTHS[precision]
    head_width, cache_width = (1.0, 4.0) if precision in ("int8", "int4") else (width, width)
    layers = sum(prod(s) for n, s in expected_shapes(config).items() if n.startswith(("model.layers.", "model.norm.")))
    head = config.llm.vocab_size * config.llm.hidden_size
    return layers * width + head * head_width + positions * cache_bytes(config.llm, cache_width)


def t2c_step_bytes(config: ReleasedConfig, width: float, positions: int, released: bool) -> float:
    """Return the bytes that one unit token reads: ours (U + 2 rows), or as released (full head, table copied: read
    and write).
    """
    assert config.t2c is not None  # noqa: S101  callers give EchoX layouts
    layer = "unit_translator.model."
    own = sum(prod(s) for n, s in expected_shapes(config).items() if n.startswith(layer) and "embed_tokens" not in n)
    V, U, H, h = config.llm.vocab_size, config.units, config.llm.hidden_size, config.t2c.hidden_size
    rows = (V + U) * h + 2 * (V + U) * H + h * H if released else (U + 2) * h
    return (own + rows) * width + positions * cache_bytes(config.t2c, width)


def memory_table() -> str:
    """Return the Markdown table of docs/released.md: GiB by size and precision."""
    lines = [
        "| model | stored as | weights | encoder | together | cache per 1,000 positions |",
        "|---|---|---|---|---|---|",
    ]
    for name, raw in SIZES.items():
        config = ReleasedConfig.from_dict(raw)
        for precision in ("float32", "bfloat16", "int8", "int4", "nf4"):
            m = count_memory(config, precision)
            cells = [f"{b / 2**30:.2f}" for b in (m.weights, m.encoder, m.total)] + [
                f"{m.cache_per_1000 / 2**20:.0f} MiB"
            ]
            lines.append(f"| {name} | {precision} | {' | '.join(cells)} |")
    return "\n".join(lines)
