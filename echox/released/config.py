"""What a released checkpoint is: its config.json read into sizes; it opens no weights.

EchoX and Soundwave write a LlamaConfig with a few keys more (`adapter_size`, `audio_tower`, `unit_output`,
`unit_vocab_size`, `unit_model`). The text-to-codec decoder (T2C) copies the LLM's settings and changes its sizes by
`unit_model`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import LlamaConfig

from echox.errors import ModelError
from echox.models.bounds import Classes, Text, TokenId, Width, check_heads, check_values
from echox.models.io import CONFIG, read_config
from echox.models.llm import LlmSizes
from echox.models.t2c_config import RopeSettings
from echox.text.echox_dialect import SEGMENT_PREFIX_ID

KINDS = ("EchoX", "Soundwave")
ALIGNER_STAGES = ("finetune", "finetune_kd", "finetune_kd_online")  # values of unit_output that own a denoising adapter
_LLAMA_KEYS = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
    "max_position_embeddings rms_norm_eps rope_theta rope_scaling rope_parameters head_dim initializer_range"
).split()
_ALWAYS = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}  # of the LLM and, with it, of the T2C
_T2C_SIZES: dict[str | None, dict[str, int]] = {
    None: {"num_hidden_layers": 6, "hidden_size": 512, "num_attention_heads": 8},
    "small": {"num_hidden_layers": 4, "hidden_size": 512, "num_attention_heads": 8},
    "large": {"num_hidden_layers": 2},
}
_T2C_OTHER = {"num_hidden_layers": 8, "hidden_size": 768, "num_attention_heads": 12, "num_key_value_heads": 12}


class ReleasedSizes(LlmSizes):
    """What is held to bounds in a released config.json."""

    unit_vocab_size: Classes
    adapter_size: Width
    segment_prefix_id: TokenId
    unit_model: Text
    unit_output: Text


@dataclass(frozen=True)
class ReleasedConfig:
    """A checkpoint's kind and sizes: `llm` and `t2c` (None for Soundwave) are LlamaConfigs, `units` is U."""

    kind: str
    llm: LlamaConfig
    t2c: LlamaConfig | None
    units: int
    adapter_size: int
    tied: bool
    has_aligner: bool
    audio_tower: str | None
    segment_prefix_id: int
    raw: dict[str, Any]

    @classmethod
    def from_dict(cls, raw: dict[str, Any], name: str = "config.json") -> "ReleasedConfig":
        """Read config.json's keys; ModelError names the key that is missing or wrong and the file `name`."""
        kind = raw.get("model_type")
        if kind not in KINDS:
            raise ModelError(f"{name} has model_type {kind!r}; expected one of {', '.join(KINDS)}.")
        for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            if not isinstance(raw.get(key), int) or raw[key] < 1:
                raise ModelError(f"{name} has {key} = {raw.get(key)!r}; expected a positive integer.")
        for key, only in _ALWAYS.items():
            if raw.get(key) not in (None, only):
                raise ModelError(f"{name} has {key} = {raw[key]!r}; expected {only!r}, as every released model has.")
        given = {
            key: raw[key]
            for key in ReleasedSizes.__annotations__ | LlmSizes.__annotations__
            if raw.get(key) is not None
        }
        check_values(ReleasedSizes, given, name)
        settings = {key: raw[key] for key in _LLAMA_KEYS if raw.get(key) is not None}
        settings.setdefault("num_key_value_heads", settings["num_attention_heads"])
        settings["tie_word_embeddings"] = False  # the T2C must never be tied
        has_t2c = kind == "EchoX" and "unit_output" in raw
        units = int(raw.get("unit_vocab_size") or 0) if has_t2c else 0
        if has_t2c and units < 1:
            raise ModelError(f"{name} has unit_vocab_size {raw.get('unit_vocab_size')!r}; expected a positive integer.")
        tower = raw.get("audio_tower")
        return cls(
            kind=kind,
            llm=_llama(settings, name),
            t2c=_llama(t2c_settings(settings, raw, units), name) if has_t2c else None,
            units=units,
            adapter_size=given.get("adapter_size", 1280),
            tied=bool(raw.get("tie_word_embeddings", False)),
            has_aligner=has_t2c and raw["unit_output"] in ALIGNER_STAGES,
            audio_tower=tower if isinstance(tower, str) else None,
            segment_prefix_id=given.get("segment_prefix_id", SEGMENT_PREFIX_ID),
            raw=dict(raw),
        )

    @classmethod
    def load(cls, folder: str | Path) -> "ReleasedConfig":
        """Read `folder`/config.json; ModelError when it is missing, not JSON or not a released layout."""
        return cls.from_dict(read_config(Path(folder)), str(Path(folder) / CONFIG))


def t2c_settings(llm: dict[str, Any], raw: dict[str, Any], units: int) -> dict[str, Any]:
    """Return the T2C's LlamaConfig keys from the LLM's, by `unit_model` (spec section 3.1).

    The released code also sets max_position_embeddings to 2048; with llama3 rotary scaling that changes no number.
    """
    name = raw.get("unit_model")
    null = name is None and "unit_model" in raw  # takes the released code's last branch
    sizes = _T2C_OTHER if null else _T2C_SIZES.get(name, _T2C_OTHER)
    settings = {**llm, **sizes, "vocab_size": llm["vocab_size"] + units}
    if name != "large":
        settings["intermediate_size"] = 2048
        settings["head_dim"] = settings["hidden_size"] // settings["num_attention_heads"]
    return settings


def _llama(settings: dict[str, Any], name: str) -> LlamaConfig:
    plain = dict(settings)
    theta, scaling = plain.pop("rope_theta", None), plain.pop("rope_scaling", None)
    try:
        if "rope_parameters" not in plain:
            rope = dict(scaling or {"rope_type": "default"})
            rope.setdefault("rope_type", rope.pop("type", "default"))
            plain["rope_parameters"] = {**rope, "rope_theta": float(theta or 10_000.0)}
        check_values(RopeSettings, plain["rope_parameters"], f"{name}, rope_parameters,")
        check_heads(plain["hidden_size"], plain["num_attention_heads"], plain["num_key_value_heads"], name)
        return LlamaConfig(**plain, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    except (TypeError, ValueError, KeyError, ArithmeticError, StrictDataclassError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ModelError(f"{name} does not describe a LLaMA model: {reason}.") from error
