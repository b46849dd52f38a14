"""The released tensor names and ours: which part of a model folder each tensor belongs to, and how a checkpoint fills the parts.

The layout of a checkpoint (spec section 10.2) is not kept by hand: it is what our classes hold at the sizes of its config.json,
under the released names.

    model.*, lm_head             the LLM (LlamaForCausalLM's own names), the CTC adapter beside it
    model.audio_tower.*          Soundwave's encoder
    unit_translator.*            the T2C and the denoising adapter, EchoX only
"""

from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import nn
from transformers import LlamaForCausalLM

from echox.errors import ModelError
from echox.models.adapter import AdapterConfig
from echox.models.echo import EchoConfig, EchoDecoder
from echox.models.io import REAL_NUMBERS, Unfilled
from echox.models.llm import ROTARY
from echox.models.lora import LoraSettings
from echox.models.s2t import S2TConfig, SpeechToText
from echox.models.t2c import TextToCodec
from echox.models.t2c_config import T2CConfig
from echox.models.weights import WeightFiles
from echox.released.config import ReleasedConfig
from echox.text.echox_dialect import SYSTEM, EchoXTokens

Shapes = dict[str, tuple[int, ...]]
TOWER = "model.audio_tower."
# (released prefix, part, our prefix): the first that fits counts
NAMES = (
    (TOWER, "encoder", ""),
    ("model.mm_projector1.", "s2t", "adapter.linear."),
    ("model.asr_transformer_encoder.", "s2t", "adapter.transformer."),
    ("model.out_norm.", "s2t", "adapter.norm."),
    ("model.audio_feature_head.", "s2t", "adapter.head."),
    ("model.lbm.encoder_attn.", "s2t", "adapter.look_back."),
    ("model.lbm.atten_layer_norm.", "s2t", "adapter.look_back_norm."),
    ("unit_translator.aligner_MLP.", "echo", "denoise."),
    ("unit_translator.model.embed_tokens.", "t2c", "text_embedding."),
    ("unit_translator.model.", "t2c", "decoder."),
    ("unit_translator.unit_embedding.", "t2c", "unit_embedding."),
    ("unit_translator.adapter.", "t2c", "text_adapter."),
    ("unit_translator.lm_head.", "t2c", "head."),
    ("", "llm", ""),
)
OF_OURS = ("adapter.scale", "ctc_tokens")  # constants that no checkpoint holds


def ours(name: str) -> tuple[str, str]:
    """Return (part, our name) of a released tensor."""
    head, part, prefix = next(row for row in NAMES if name.startswith(row[0]))
    return part, prefix + name.removeprefix(head)


def theirs(part: str, name: str) -> str:
    """Return the released name of a tensor of one of our parts."""
    fitting = [row for row in NAMES if row[1] == part and name.startswith(row[2])]
    head, _, prefix = max(fitting, key=lambda row: len(row[2]))
    return head + name.removeprefix(prefix)


def s2t_config(config: ReleasedConfig) -> S2TConfig:
    """Return our settings of the released front end (spec section 2.1) and of its decoding (section 9)."""
    llm = config.llm
    adapter = AdapterConfig(
        encoder_width=config.adapter_size,
        width=llm.hidden_size,
        layers=1,
        heads=llm.num_attention_heads,
        ffn=2 * llm.hidden_size,
        attend_over="turns",
        keep_blanks=True,
        look_back="kept",
        readout="states",
        ctc_head="own",
        classes=llm.vocab_size,
    )
    return S2TConfig(
        adapter=asdict(adapter),
        lora=asdict(LoraSettings(rank=0)),
        dialect="echox",
        segment_prefix=config.segment_prefix_id,
        system=SYSTEM,
        ctc_classes=llm.vocab_size - 1,
        enough_tokens=None,
        max_new_tokens=512,
        no_repeat_ngram=0,
        temperature=0.2,
        top_p=0.9,
    )


def t2c_values(config: ReleasedConfig, tokens: EchoXTokens | None = None) -> dict:
    """Return our settings of the released T2C (spec section 3.1); the tokens around a text are those of section 3.2."""
    if config.t2c is None:
        raise ModelError(f"this {config.kind} checkpoint has no text-to-codec decoder: ask with text_only=True.")
    own = config.t2c
    values = {
        "llm_width": config.llm.hidden_size,
        "width": own.hidden_size,
        "layers": own.num_hidden_layers,
        "heads": own.num_attention_heads,
        "kv_heads": own.num_key_value_heads,
        "ffn": own.intermediate_size,
        "max_positions": own.max_position_embeddings,
        "head_dim": own.head_dim,
        "norm_eps": own.rms_norm_eps,
        "rope": dict(own.rope_parameters or {}),
        "unit_vocab_size": config.units,
        "text_vocab_size": config.llm.vocab_size,
        "pad_token_id": None,
        "normalize_inputs": False,
        "aligned_positions": False,
        "loops": 0,
        "longest": 2048,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if tokens is None:
        return values
    before, after = tokens.around_text
    marks = {"bos_token_id": tokens.bos, "eos_token_id": tokens.eot, "unseen": (tokens.eot,)}
    return values | marks | {"before": before, "after": after}


def echo_config(config: ReleasedConfig, tokens: EchoXTokens | None = None) -> EchoConfig:
    """Return our settings of the released echo decoder: T2C's decoder behind the denoising adapter (spec section 6.2)."""
    values = t2c_values(config, tokens) | {"denoise_width": config.llm.intermediate_size, "shares_decoder": True}
    if tokens is not None:
        before, after = tokens.around_states
        values |= {"before": before, "after": after, "unseen": ()}
    return EchoConfig(**values)


def expected_shapes(config: ReleasedConfig) -> Shapes:
    """Return every tensor name of the checkpoint with its shape; a tied `lm_head.weight` is left out."""
    shapes: Shapes = {}
    with torch.device("meta"), Unfilled():
        llm = LlamaForCausalLM(config.llm)
        parts: dict[str, nn.Module] = {"llm": llm, "s2t": SpeechToText(s2t_config(config), llm)}
        if config.t2c is not None:
            parts["t2c"] = t2c = TextToCodec(T2CConfig(**t2c_values(config)))
            if config.has_aligner:
                parts["echo"] = EchoDecoder(echo_config(config), t2c)
    for part, module in parts.items():
        elsewhere = {"s2t": "llm.", "echo": "t2c."}.get(part, "\0")
        own = {n: v for n, v in module.state_dict().items() if not n.startswith((elsewhere, *OF_OURS))}
        shapes |= {theirs(part, name): tuple(value.shape) for name, value in own.items()}
    if config.tied:
        del shapes["lm_head.weight"]
    return shapes


def may_be_extra(name: str, config: ReleasedConfig) -> bool:
    """Say whether a tensor may be there beyond the layout: a tied head, Soundwave's encoder, or a rotary table of old files."""
    repeats, tower = config.tied and name == "lm_head.weight", config.kind == "Soundwave" and name.startswith(TOWER)
    return repeats or tower or ROTARY in name


def check_layout(config: ReleasedConfig, found: Mapping[str, tuple[str, tuple[int, ...]]], where: str) -> None:
    """Raise ModelError, with what was expected and found, unless `found` holds exactly the tensors of the layout, real numbers."""
    expected = expected_shapes(config)
    missing = [name for name in expected if name not in found]
    if missing:
        raise ModelError(
            f"{where} lacks {_some(missing)}; expected {len(expected)} tensors for {config.kind}, found {len(found)}."
        )
    unknown = [name for name in found if name not in expected and not may_be_extra(name, config)]
    if unknown:
        raise ModelError(
            f"{where} holds tensors that {config.kind} does not know: {_some(unknown)}; is it another model?"
        )
    for name, wanted in expected.items():
        kind, shape = found[name]
        if shape != wanted:
            raise ModelError(f"{where} has {name} of shape {shape}; expected {wanted}{_hint(name, config)}.")
        if kind not in REAL_NUMBERS:
            raise ModelError(f"{where} has {name} in numbers of kind {kind}; expected F16, BF16, F32 or F64.")


def fill(module: nn.Module, part: str, files: WeightFiles) -> nn.Module:
    """Copy a checkpoint's tensors into one of our parts, one after the other; ModelError names one that is not finite."""
    own = module.state_dict()
    wanted = [name for name in files.headers if ours(name)[0] == part and ours(name)[1] in own]
    with torch.no_grad():
        for name, tensor in files.read(wanted):
            own[ours(name)[1]].copy_(tensor)
    return module


def _some(names: list[str]) -> str:
    listed = ", ".join(names[:3])
    return listed if len(names) <= 3 else f"{listed} and {len(names) - 3} more"


def _hint(name: str, config: ReleasedConfig) -> str:
    if name == "model.mm_projector1.weight":
        return f" (two frames of an encoder {config.adapter_size} wide, from adapter_size)"
    if name.startswith("unit_translator."):
        model = config.raw.get("unit_model", "absent")
        return f" (unit_model {model}, unit_vocab_size {config.units})"
    return ""
