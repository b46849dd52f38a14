"""`echox convert`: what a file or folder is, and into which of our folders it goes; each kind has its own module.

An EchoX or Soundwave checkpoint becomes one folder whose parts other programs can read (`llm/` loads as
LlamaForCausalLM):

    config.json     the released settings, marked `echox_layout`
    llm/            model.embed_tokens, model.layers, model.norm, lm_head
    speech/         the front end (and Soundwave's encoder)
    t2c/  echo/     the text-to-codec decoder; its denoising adapter
    encoder/        Whisper's encoder, or a reference to where it lies
    vocoder/        UnitVocoder; the fairseq originals are kept in it, so that the way back is exact

Tensors are copied without a change of type, so that a conversion there and back is bit-equal.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from echox.errors import InputError, ModelError
from echox.files import copy_file, write_text
from echox.hub import resolve_model
from echox.released.config import KINDS, ReleasedConfig
from echox.released.load import OUR_LAYOUT, PARTS, open_files
from echox.released.locate import find_encoder, find_vocoder
from echox.released.weights import SHARD_BYTES, WeightFiles, write_shards

LAYOUT_VERSION = 1
ORIGINAL = "fairseq"  # folder in vocoder/ with the files that it was converted from
_LLM = ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head.")
_ECHO = "unit_translator.aligner_MLP."


def part_of(name: str) -> str:
    """Return the part (`llm`, `speech`, `t2c`, `echo`) that a released tensor name belongs to."""
    if name.startswith(_LLM):
        return "llm"
    if name.startswith(_ECHO):
        return "echo"
    return "t2c" if name.startswith("unit_translator.") else "speech"


def convert_checkpoint(
    source: str | Path,
    dest: str | Path,
    encoder: str | Path | None = None,
    reference_encoder: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> ReleasedConfig:
    """Write our folder of a released checkpoint; ModelError, OutputError. `reference_encoder` leaves the encoder
    where it is.
    """
    folder, dest = resolve_model(source), Path(dest)
    config = ReleasedConfig.load(folder)
    if OUR_LAYOUT in config.raw:
        raise InputError(f"{folder} is in our layout already: use --to released for the way back.")
    files = open_files(folder, config)
    names = [
        name
        for name in files.shapes
        if not name.startswith("unit_translator.model.rotary") and "rotary_emb" not in name
    ]
    raw = {**config.raw, OUR_LAYOUT: LAYOUT_VERSION}
    for part, prefix in PARTS.items():
        own = [name for name in names if part_of(name) == part]
        if own:
            write_shards(dest / part, _renamed(files, own, prefix), shard_bytes)
    _write_llm_config(dest / "llm" / "config.json", config, _dtype_of(files, names))
    tower = _bring_encoder(folder, dest, config, files, encoder, reference_encoder)
    if tower != config.audio_tower:
        raw |= {"audio_tower": tower, "released_audio_tower": config.audio_tower}
    if config.has_aligner:
        _bring_vocoder(folder, dest)
    _copy_small(folder, dest)
    write_text(dest / "config.json", json.dumps(raw, indent=2) + "\n")
    return config


def restore_checkpoint(source: str | Path, dest: str | Path, shard_bytes: int = SHARD_BYTES) -> ReleasedConfig:
    """Write the released layout from our folder: the same tensors, bit for bit; ModelError, OutputError."""
    source, dest = Path(source), Path(dest)
    config = ReleasedConfig.load(source)
    if OUR_LAYOUT not in config.raw:
        raise InputError(f"{source} is not a folder that echox convert wrote: its config.json has no {OUR_LAYOUT}.")
    files = open_files(source, config)
    write_shards(dest, files.read(files.shapes), shard_bytes)
    _copy_small(source, dest)
    originals = source / "vocoder" / ORIGINAL
    if originals.is_dir():
        for file in sorted(originals.iterdir()):
            copy_file(file, dest / file.name)
    raw = {key: value for key, value in config.raw.items() if key not in (OUR_LAYOUT, "released_audio_tower")}
    if "released_audio_tower" in config.raw:
        raw["audio_tower"] = config.raw["released_audio_tower"]
        if raw["audio_tower"] is None:
            del raw["audio_tower"]
    write_text(dest / "config.json", json.dumps(raw, indent=2) + "\n")
    return config


def _renamed(files: WeightFiles, names: list[str], prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in files.read(names):
        yield name.removeprefix(prefix), tensor


def _dtype_of(files: WeightFiles, names: list[str]) -> str:
    _, first = next(files.read(names[:1]))
    return str(first.dtype).removeprefix("torch.")


def _write_llm_config(path: Path, config: ReleasedConfig, dtype: str) -> None:
    llm = config.llm.to_diff_dict()
    llm |= {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "tie_word_embeddings": config.tied,
        "dtype": dtype,
    }
    write_text(path, json.dumps(llm, indent=2) + "\n")


def _bring_encoder(
    folder: Path, dest: Path, config: ReleasedConfig, files: WeightFiles, given: str | Path | None, reference: bool
) -> str | None:
    """Copy the encoder's tensors to `dest`/encoder, or return where they lie; Soundwave may carry them in its own
    part.
    """
    if any(name.startswith("model.audio_tower.") for name in files.shapes):
        return config.audio_tower
    where = find_encoder(folder, config, given)
    if reference:
        return str(where.resolve())
    raw = json.loads((where / "config.json").read_text(encoding="utf-8"))
    whisper = WeightFiles(where)
    prefix = next((p for p in ("model.encoder.", "encoder.", "") if f"{p}conv1.weight" in whisper.shapes), None)
    if prefix is None:
        raise ModelError(f"{where} holds no Whisper encoder (no conv1.weight): give a Whisper folder.")
    width = whisper.shapes[f"{prefix}conv1.weight"][0]
    if width != config.adapter_size:
        raise ModelError(f"{where} is {width} wide; expected {config.adapter_size} (adapter_size of the checkpoint).")
    names = [name for name in whisper.shapes if name.startswith(prefix) and not name.startswith("decoder.")]
    write_shards(dest / "encoder", _renamed(whisper, names, prefix))
    write_text(
        dest / "encoder" / "config.json", json.dumps({**raw, "architectures": ["WhisperEncoder"]}, indent=2) + "\n"
    )
    return "encoder"


def _bring_vocoder(folder: Path, dest: Path) -> None:
    """Convert the checkpoint's vocoder, keeping the fairseq files beside it for the way back."""
    if (folder / "vocoder" / "model.safetensors").is_file():
        for file in sorted((folder / "vocoder").iterdir()):
            copy_file(file, dest / "vocoder" / file.name)
        return
    generators = sorted(folder.glob("g_*"))
    if not generators:
        find_vocoder(folder)
    from echox.released.fairseq_vocoder import convert_vocoder

    convert_vocoder(generators[0], folder / "vocoder_config.json", dest / "vocoder")
    for file in (generators[0], folder / "vocoder_config.json"):
        copy_file(file, dest / "vocoder" / ORIGINAL / file.name)


def _copy_small(source: Path, dest: Path) -> None:
    """Copy the tokenizer and generation settings, not weights and not config.json."""
    for file in sorted(source.glob("*.json")):
        if file.name != "config.json" and not file.name.endswith(".index.json") and file.name != "vocoder_config.json":
            copy_file(file, dest / file.name)


def kind_of(source: str | Path, config: Path | None = None) -> str:
    """Return what `source` is: checkpoint, ours, kmeans, vocoder or hubert; InputError when it is none of these."""
    path = Path(source)
    if not path.exists():
        return "checkpoint"  # a hub name: resolve_model says if it is not
    if path.is_dir():
        raw: dict[str, Any] = ReleasedConfig.load(path).raw
        return "ours" if OUR_LAYOUT in raw else "checkpoint"
    if path.suffix in (".bin", ".joblib", ".km", ".pkl"):
        return "kmeans"
    if config is not None or path.name.startswith("g_"):
        return "vocoder"
    if path.suffix in (".pt", ".pth"):
        return "hubert"
    raise InputError(
        f"{path} is of no kind that can be converted: give a checkpoint folder ({' or '.join(KINDS)}), a vocoder g_* "
        "with --config, a HuBERT .pt or a k-means .bin."
    )
