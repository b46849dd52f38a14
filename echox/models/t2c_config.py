"""Sizes and settings of a text-to-codec decoder, and what they must be to fit together (spec section 3.1)."""

from typing import Annotated, Any, Literal

from pydantic import Field
from transformers import PreTrainedConfig

from echox.errors import ModelError
from echox.models.bounds import (
    Classes,
    Factor,
    Few,
    Flag,
    Heads,
    Layers,
    Positions,
    Share,
    Small,
    TokenId,
    Wide,
    Width,
    check_heads,
    check_values,
)


class RopeSettings:
    """Rotary places of an LLM's kind: what a config.json may say of them."""

    rope_type: Literal["default", "llama3", "linear"]
    rope_theta: Annotated[float, Field(strict=True, ge=1, le=1e9)]
    factor: Annotated[float, Field(strict=True, ge=1, le=1000)]
    low_freq_factor: Annotated[float, Field(strict=True, ge=0.1, le=1000)]
    high_freq_factor: Annotated[float, Field(strict=True, ge=0.1, le=1000)]
    original_max_position_embeddings: Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


class T2CConfig(PreTrainedConfig):
    """Sizes of a text-to-codec decoder; released sizes: spec section 3.1."""

    model_type = "echox_t2c"
    llm_width: Width = 576
    width: Width = 384
    layers: Layers = 4
    heads: Heads = 6
    kv_heads: Heads = 6
    ffn: Wide = 1024
    unit_vocab_size: Classes = 0  # unit words and specials, from the unit tokenizer
    bos_token_id: TokenId = 0
    eos_token_id: TokenId = 1
    pad_token_id: TokenId | None = 2
    normalize_inputs: Flag = True  # text positions to unit mean square; False: spec section 3.1
    aligned_positions: Flag = True  # False: spec section 3.1, positions 0, 1, 2 ...
    words_per_character: Factor = 0.8  # measured on the training data
    spelling: Flag = False  # one position a letter; False: spec section 3.1, one a token
    spelling_width: Width = 128
    spelling_layers: Layers = 2
    words_in: Literal["en"] | None = "en"  # of one that spells: whose words stand for numbers and signs; none: raw text
    max_positions: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 2048
    dropout: Share = 0.0
    loops: Small = 4  # a run of unit words said so many times in a row ends the speech; 0: it never does
    past_words: Small = 0  # of its sentence that are read before a segment; 0: spec section 6.2, a segment stands alone
    longest: Positions | None = None  # unit words of a text; None: three times what its characters suggest
    text_vocab_size: Classes = 0  # V, text tokens of its own; 0: it reads the LLM's embeddings, and writes units alone
    says_text: Flag = False  # True: spec section 3.1, text tokens may be chosen too
    before: Annotated[tuple[TokenId, ...], Few] = ()  # text tokens around every text (spec sections 3.2, 6.2)
    after: Annotated[tuple[TokenId, ...], Few] = ()
    unseen: Annotated[tuple[TokenId, ...], Few] = ()  # tokens among them that are not attended to
    head_dim: Width | None = None
    norm_eps: Annotated[float, Field(gt=0, le=0.1)] = 1e-6
    rope: dict[str, Any] | None = None  # RopeSettings; None: Llama's defaults


def check_fit(config: T2CConfig) -> None:
    """Raise ModelError when the sizes of `config` do not fit together."""
    check_heads(config.width, config.heads, config.kv_heads, config.model_type)
    if config.width // config.heads % 2:
        raise ModelError(f"{config.model_type}: heads are {config.width // config.heads} wide, which should be even.")
    check_values(RopeSettings, config.rope or {}, f"{config.model_type}, rope,")
    words, V = config.text_vocab_size + config.unit_vocab_size, config.text_vocab_size
    specials = (config.bos_token_id, config.eos_token_id, *(() if V else (config.pad_token_id,)))
    if any(token is None or token >= words for token in specials):
        raise ModelError(f"{config.model_type}: special tokens {specials} lie outside {words} unit words.")
    if any(token >= V for token in (*config.before, *config.after)):
        raise ModelError(f"{config.model_type}: the tokens around a text lie outside {V} text tokens.")
    if V and config.spelling:
        raise ModelError(f"{config.model_type}: a decoder with text tokens of its own does not spell.")
    if V and config.past_words:
        raise ModelError(f"{config.model_type}: a decoder with text tokens of its own reads no past.")
