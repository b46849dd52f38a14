"""`echox convert`: what a file or folder is, and into which of our folders it goes; each kind has its own module.

An EchoX or Soundwave checkpoint becomes a model folder like any other of ours, which every stage can go on from:

    config.json     the settings in which it differs from our own models
    llm/            a LlamaForCausalLM with its tokenizer, as other programs read it
    s2t/  t2c/  echo/  encoder/  vocoder/    our parts, with our names
    original/       what the way back needs: the small files and the tensors' names; the fairseq vocoder

Tensors are copied without a change of type, so that a conversion there and back is bit-equal.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from echox.errors import InputError
from echox.files import JSON_BYTES, copy_file, read_json, write_json
from echox.generate.model_config import MODEL_TYPE
from echox.hub import on_hub, resolve_model
from echox.models.encoder import NOT_HEARING
from echox.models.io import read_config
from echox.models.llm import ROTARY
from echox.models.t2c_config import T2CConfig
from echox.models.weights import SHARD_BYTES, WeightFiles, write_shards
from echox.released.config import KINDS, ReleasedConfig
from echox.released.keymap import TOWER, check_layout, echo_config, ours, s2t_config, t2c_values
from echox.released.locate import check_width, find_encoder, find_vocoder, newest_generator, whisper_settings
from echox.released.open import TRIGGER, check_tied, tokens_of
from echox.text.echox_dialect import BEGIN, STOP_NAMES, EchoXTokens

ORIGINAL = "original"
NAMES = "tensors.json"
CONVERTED = (
    f"give a checkpoint folder ({' or '.join(KINDS)}) or its hub name owner/model, a vocoder g_* with --config, a HuBERT .pt or"
    " a k-means .bin"
)


def convert_checkpoint(
    source: str | Path,
    dest: str | Path,
    encoder: str | Path | None = None,
    without_encoder: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> ReleasedConfig:
    """Write our folder of a released checkpoint; ModelError, OutputError. `without_encoder` leaves its encoder where it is."""
    folder, dest = resolve_model(source), Path(dest)
    if read_config(folder).get("model_type") == MODEL_TYPE:
        raise InputError(f"{folder} is in our layout already: use --to released for the way back.")
    config = ReleasedConfig.load(folder)
    files = WeightFiles(folder)
    check_layout(config, files.headers, str(folder))
    check_tied(config, files)
    tokens = tokens_of(folder, config)
    heard = encoder is None  # by the encoder that a checkpoint carries
    names = [name for name in files.headers if ROTARY not in name and (heard or not name.startswith(TOWER))]
    if config.has_aligner:
        _bring_vocoder(folder, dest)
    layers = _bring_encoder(folder, dest, config, files, encoder, without_encoder)
    for part, own in _by_part(names).items():
        write_shards(
            dest / part,
            _with_constants(part, files.read(own.values()), config),
            shard_bytes if part == "llm" else SHARD_BYTES,
        )
    _, first = next(files.read(names[:1]))
    _write_configs(dest, config, tokens, str(first.dtype).removeprefix("torch."))
    copy_file(folder / "tokenizer.json", dest / "llm" / "tokenizer.json")
    names_of = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BEGIN, "eos_token": STOP_NAMES[0]}
    write_json(dest / "llm" / "tokenizer_config.json", names_of)
    for file in sorted(folder.glob("*.json")):
        if not file.name.endswith(".index.json"):  # of the weights
            copy_file(file, dest / ORIGINAL / file.name)
    write_json(dest / ORIGINAL / NAMES, names)
    settings = {
        "model_type": MODEL_TYPE,
        "encoder_layer": layers,
        "encoder_windows": "full",
        "llm": {"folder": "llm"},
        "trigger": TRIGGER,
        "spelled_units": config.units if config.has_aligner else 0,
    }
    write_json(dest / "config.json", settings)
    return config


def restore_checkpoint(source: str | Path, dest: str | Path) -> ReleasedConfig:
    """Write the released layout from our folder: the same tensors, bit for bit; ModelError, OutputError."""
    source, dest = Path(source), Path(dest)
    if not (source / ORIGINAL / NAMES).is_file():
        what = f"it has no {ORIGINAL}/{NAMES}" if source.exists() else "it does not exist"
        raise InputError(f"{source} is not a folder that echox convert wrote ({what}): give one that it did.")
    config = ReleasedConfig.load(source / ORIGINAL)
    names = read_json(source / ORIGINAL / NAMES, JSON_BYTES)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{source / ORIGINAL / NAMES} is no list of tensors' names: convert the checkpoint again.")
    parts = {part: (WeightFiles(source / part), theirs) for part, theirs in _by_part(names).items()}
    held = [
        (theirs[own], files.headers[own]) for files, theirs in parts.values() for own in theirs if own in files.headers
    ]
    check_layout(config, dict(held), str(source))
    there = ((files.read(own for own in theirs if own in files.headers), theirs) for files, theirs in parts.values())
    write_shards(dest, ((theirs[own], tensor) for tensors, theirs in there for own, tensor in tensors))
    for file in sorted((source / ORIGINAL).iterdir()):
        if file.name != NAMES:
            copy_file(file, dest / file.name)
    return config


def _with_constants(
    part: str, tensors: Iterable[tuple[str, torch.Tensor]], config: ReleasedConfig
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a part's tensors under our names, and the constants that no checkpoint holds."""
    for name, tensor in tensors:
        yield ours(name)[1], tensor
    if part == "s2t":
        yield "adapter.scale", torch.tensor(1.0)
        yield "ctc_tokens", torch.arange(config.llm.vocab_size - 1, dtype=torch.int32)


def _by_part(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the released names of every part by ours."""
    parts: dict[str, dict[str, str]] = {}
    for name in names:
        part, own = ours(name)
        parts.setdefault(part, {})[own] = name
    return parts


def _write_configs(dest: Path, config: ReleasedConfig, tokens: EchoXTokens, dtype: str) -> None:
    llm = config.llm.to_diff_dict() | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "tie_word_embeddings": config.tied,
        "dtype": dtype,
    }
    parts: dict[str, dict[str, Any]] = {"llm": llm, "s2t": s2t_config(config).to_diff_dict()}
    if config.t2c is not None:
        parts["t2c"] = T2CConfig(**t2c_values(config, tokens)).to_diff_dict()
    if config.has_aligner:
        parts["echo"] = echo_config(config, tokens).to_diff_dict()
    for part, values in parts.items():
        write_json(dest / part / "config.json", values)


def _bring_encoder(
    folder: Path, dest: Path, config: ReleasedConfig, files: WeightFiles, given: str | Path | None, without: bool
) -> int:
    """Copy the encoder, `given` or else the carried one or that beside it, to `dest`/encoder; return how many layers it has."""
    carried = given is None and f"{TOWER}conv1.weight" in files.headers
    where = folder if carried else find_encoder(folder, config, given)
    values = {"model_type": "whisper", **whisper_settings(files.shapes)} if carried else read_config(where)
    check_width(where, values.get("d_model"), config)
    if not carried and not without:
        whisper = WeightFiles(where)
        own = [name for name in whisper.headers if not name.startswith(NOT_HEARING)]
        short = ((name.rpartition("encoder.")[2], tensor) for name, tensor in whisper.read(own))
        write_shards(dest / "encoder", short)
    if carried or not without:
        told = {**values, "architectures": ["WhisperEncoder"]}
        write_json(dest / "encoder" / "config.json", told)
    return int(values["encoder_layers"])


def _bring_vocoder(folder: Path, dest: Path) -> None:
    """Convert the checkpoint's vocoder, keeping the fairseq files for the way back."""
    if (folder / "vocoder" / "model.safetensors").is_file():
        for file in sorted((folder / "vocoder").iterdir()):
            copy_file(file, dest / "vocoder" / file.name)
        return
    if (newest := newest_generator(folder)) is None:
        find_vocoder(folder)  # says what is missing
        return
    from echox.released.fairseq_vocoder import convert_vocoder

    convert_vocoder(newest, folder / "vocoder_config.json", dest / "vocoder")
    copy_file(newest, dest / ORIGINAL / newest.name)


def kind_of(source: str | Path, config: Path | None = None) -> str:
    """Return what `source` is: checkpoint, ours, kmeans, vocoder or hubert; InputError when it is none of these."""
    path = Path(source)
    if not path.exists():
        if on_hub(str(source)):
            return "checkpoint"
        raise InputError(f"{source} does not exist: {CONVERTED}.")
    if path.is_dir():
        if read_config(path).get("model_type") == MODEL_TYPE:
            return "ours"
        ReleasedConfig.load(path)
        return "checkpoint"
    if path.suffix in (".bin", ".joblib", ".km", ".pkl"):
        return "kmeans"
    if config is not None or path.name.startswith("g_"):
        return "vocoder"
    if path.suffix in (".pt", ".pth"):
        return "hubert"
    raise InputError(f"{path} is of no kind that can be converted: {CONVERTED}.")
