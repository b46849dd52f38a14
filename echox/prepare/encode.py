"""Encoder states of a corpus, shard by shard: file to file, resumable; it knows no unit and no model beyond the encoder.

Frozen features are computed once. A shard `NAME.jsonl` becomes `NAME.npz` with `frames` and `offsets`: utterance i of the
shard owns rows offsets[i] to offsets[i + 1].

Legend: D encoder width, T frames.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from echox.config.load import Settings
from echox.data.manifest import read_audio, read_manifest
from echox.errors import InputError
from echox.files import write_file
from echox.models.encoder import SpeechEncoder

Encode = Callable[[list[np.ndarray]], list[np.ndarray]]


class Recipe(Settings):
    """Recipe of stage `encode`: every corpus of `corpora` is encoded into the folder `out`/<its name>."""

    stage: Literal["encode"]
    out: Path
    encoder: Path
    layer: int
    precision: Literal["float32", "bfloat16"] = "float32"
    corpora: list[Path]
    shard: tuple[int, int] = (0, 1)


def run(recipe: Recipe) -> Path:
    """Encode what is not encoded yet."""
    encode = states_at(load_encoder(recipe.encoder, recipe.precision), recipe.layer)
    for corpus in recipe.corpora:
        encode_shards(corpus, recipe.out / corpus.name, encode, recipe.shard)
    return recipe.out


def load_encoder(folder: Path, precision: str) -> SpeechEncoder:
    """Return a frozen encoder in the named precision."""
    encoder = SpeechEncoder.from_pretrained(folder)
    encoder.whisper.to(getattr(torch, precision))
    return encoder


def states_at(encoder: SpeechEncoder, layer: int) -> Encode:
    """Return a function from 16 kHz waves to float16 states (T, D) of one layer, batched by length."""

    def encode(waves: list[np.ndarray], batch: int = 32) -> list[np.ndarray]:
        states: list[np.ndarray] = [np.empty(0)] * len(waves)
        order = np.argsort([len(wave) for wave in waves], kind="stable")
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            for row, found in zip(rows, encoder.encode([waves[i] for i in rows], (layer,)), strict=True):
                states[row] = found[layer].to(torch.float16).cpu().numpy()
        return states

    return encode


def encode_shards(source: Path, target: Path, encode: Encode, shard: tuple[int, int] = (0, 1)) -> None:
    """Encode every shard of `source` that `target` lacks; `shard` = (i, n) takes every n-th one."""
    manifests = sorted(source.glob("shard-*.jsonl"))
    if not manifests:
        raise InputError(f"{source} holds no shard-*.jsonl: make the corpus first.")
    target.mkdir(parents=True, exist_ok=True)
    for number, manifest in enumerate(manifests):
        path = target / f"{manifest.stem}.npz"
        if number % shard[1] != shard[0] or path.exists():
            continue
        waves = [read_audio(record, source) for record in read_manifest(manifest)]
        write_ragged(path, encode(waves))


def write_ragged(path: Path, rows: list[np.ndarray]) -> None:
    """Write ragged arrays as one array and its offsets, atomically."""
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    with write_file(path) as partial, partial.open("wb") as file:
        np.savez(file, frames=np.concatenate(rows), offsets=offsets)


def read_ragged(folder: Path, source: Path) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yield (manifest record, its rows) of every encoded shard of `source`, in order."""
    for manifest in sorted(source.glob("shard-*.jsonl")):
        path = folder / f"{manifest.stem}.npz"
        if not path.exists():
            raise InputError(f"{path} is missing: encode {manifest} first.")
        with np.load(path) as data:
            frames, offsets = data["frames"], data["offsets"]
        records = read_manifest(manifest)
        if len(records) + 1 != len(offsets):
            raise InputError(f"{path} holds {len(offsets) - 1} utterances, {manifest} {len(records)}: encode it again.")
        for record, start, end in zip(records, offsets[:-1], offsets[1:], strict=True):
            yield record, frames[start:end]
