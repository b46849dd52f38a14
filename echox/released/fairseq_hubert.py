"""fairseq HuBERT and mHuBERT `.pt` to a transformers HubertModel folder; it knows names and shapes, not audio.

Sizes are read off the tensors; what tensors do not tell (norm placement, input normalisation) off the settings in the
file. Layer n of fairseq (`output_layer=n`) is `hidden_states[n]` of the converted model.
"""

import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from echox.errors import InputError, ModelError, reason_of
from echox.files import write_json
from echox.models.weights import write_shards
from echox.released.unpickle import Record, load_torch

_DROPPED = re.compile(r"^(final_proj\.|label_embs_concat$|target_glu\.|project_q\.|w2v_)")
_RULES = (
    (r"^mask_emb$", "masked_spec_embed"),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.2\.(?:1\.)?", r"feature_extractor.conv_layers.\1.layer_norm."),
    (r"^encoder\.pos_conv\.0\.weight_g$", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"^encoder\.pos_conv\.0\.weight_v$", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"^encoder\.pos_conv\.0\.bias$", "encoder.pos_conv_embed.conv.bias"),
    (r"^encoder\.layers\.(\d+)\.self_attn_layer_norm\.", r"encoder.layers.\1.layer_norm."),
    (r"^encoder\.layers\.(\d+)\.self_attn\.", r"encoder.layers.\1.attention."),
    (r"^encoder\.layers\.(\d+)\.fc1\.", r"encoder.layers.\1.feed_forward.intermediate_dense."),
    (r"^encoder\.layers\.(\d+)\.fc2\.", r"encoder.layers.\1.feed_forward.output_dense."),
    (r"^encoder\.layers\.(\d+)\.final_layer_norm\.", r"encoder.layers.\1.final_layer_norm."),
    (r"^encoder\.layer_norm\.", "encoder.layer_norm."),
)


def rename(name: str) -> str | None:
    """Return transformers' name for a fairseq tensor, or None for one that belongs to training only; ModelError if
    unknown.
    """
    if _DROPPED.match(name):
        return None
    for pattern, replacement in _RULES:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name)
    raise ModelError(f"the tensor {name} is not one of HuBERT's: is this a HuBERT checkpoint without fine-tuning?")


def read_hubert(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return (tensors under fairseq's names, settings) of a checkpoint; InputError when it is not one."""
    content = load_torch(path)
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or "post_extract_proj.weight" not in state:
        raise InputError(f"{path} is not a fairseq HuBERT: expected tensors under 'model' with post_extract_proj.")
    return {n: t for n, t in state.items() if isinstance(t, torch.Tensor)}, _settings(content)


def _settings(content: dict[str, Any]) -> dict[str, Any]:
    """Flatten the settings that the file holds, old (`args`) or new (`cfg`: model, task)."""
    flat: dict[str, Any] = {}
    for key in ("args", "cfg"):
        value = _plain(content.get(key))
        for part in (value, *(_plain(value.get(name)) for name in ("task", "model"))):
            flat.update({k: v for k, v in part.items() if isinstance(v, str | int | float | bool)})
    return flat


def _plain(value: Any) -> dict[str, Any]:
    found = value.values() if isinstance(value, Record) else value
    if isinstance(found, dict) and isinstance(found.get("_content"), dict):
        found = {key: _node(node) for key, node in found["_content"].items()}
    return found if isinstance(found, dict) else {}


def _node(value: Any) -> Any:
    values = value.values() if isinstance(value, Record) else {}
    return values.get("_val", value)


def hubert_config(state: dict[str, torch.Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    """Return HubertConfig's keys for fairseq tensors and settings."""
    convolutions = sorted(
        (int(m.group(1)), tuple(t.shape))
        for n, t in state.items()
        if (m := re.match(r"feature_extractor.*\.(\d+)\.0\.weight$", n))
    )
    hidden, features = state["post_extract_proj.weight"].shape
    layers = len({m.group(1) for n in state if (m := re.match(r"encoder\.layers\.(\d+)\.", n))})
    group = (
        "feature_extractor.conv_layers.0.2.weight" in state and "feature_extractor.conv_layers.1.2.weight" not in state
    )
    position = state["encoder.pos_conv.0.weight_v"].shape
    stable = bool(settings.get("layer_norm_first", not group))
    return {
        "model_type": "hubert",
        "architectures": ["HubertModel"],
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": int(settings.get("encoder_attention_heads") or max(1, hidden // 64)),
        "intermediate_size": state["encoder.layers.0.fc1.weight"].shape[0],
        "conv_dim": [shape[0] for _, shape in convolutions],
        "conv_kernel": [shape[2] for _, shape in convolutions],
        "conv_stride": [5 if shape[2] == 10 else 2 for _, shape in convolutions],  # 320 samples a frame in all
        "num_feat_extract_layers": len(convolutions),
        "conv_bias": "feature_extractor.conv_layers.0.0.bias" in state,
        "feat_extract_norm": "group" if group else "layer",
        "feat_proj_layer_norm": "layer_norm.weight" in state,
        "do_stable_layer_norm": stable,
        "num_conv_pos_embeddings": position[2],
        "num_conv_pos_embedding_groups": hidden // position[1],
        "layer_norm_eps": 1e-5,
        "apply_spec_augment": False,
    }


def convert_hubert(path: str | Path, folder: str | Path) -> dict[str, Any]:
    """Write a HubertModel folder that transformers loads, checked against the model it builds; InputError,
    ModelError.
    """
    from transformers import HubertConfig, HubertModel

    fairseq, settings = read_hubert(path)
    try:
        config = hubert_config(fairseq, settings)
        with torch.device("meta"):
            wanted = HubertModel(HubertConfig.from_dict(config)).state_dict()
    except (KeyError, IndexError, TypeError, ValueError, ArithmeticError, StrictDataclassError) as error:
        raise ModelError(f"{path} does not describe a HuBERT ({reason_of(error)}): download it again.") from error
    state = {new: tensor for name, tensor in fairseq.items() if (new := rename(name)) is not None}
    for name, tensor in wanted.items():
        if name == "masked_spec_embed" and name not in state:
            continue
        found = tuple(state[name].shape) if name in state else None
        if found != tuple(tensor.shape):
            raise ModelError(f"{path} gives {name} of shape {found}; expected {tuple(tensor.shape)}.")
    extra = sorted(state.keys() - wanted.keys())
    if extra:
        raise ModelError(f"{path} gives {extra[0]}, which HubertModel does not have ({len(extra)} in all).")
    write_shards(Path(folder), state.items())
    write_json(Path(folder) / "config.json", config)
    extractor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": 16_000,
        "padding_value": 0.0,
        "do_normalize": bool(settings.get("normalize", False)),
        "return_attention_mask": config["feat_extract_norm"] == "layer",
    }
    write_json(Path(folder) / "preprocessor_config.json", extractor)
    return config
