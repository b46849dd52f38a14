"""Encoder states of a corpus, shard by shard: file to file, resumable; it knows no unit and no model beyond the encoder.

Frozen features are computed once (their format: data/states.py). A clip that cannot be read or encoded is skipped with
a warning, up to a limit; another encoder, layer or precision needs another folder.

Legend: D encoder width, T frames.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveFloat, model_validator

from echox.audio import SAMPLE_RATE
from echox.config.load import Settings
from echox.config.record import Record, check_same, write_run
from echox.config.shard import Shard
from echox.data.batching import in_runs
from echox.data.manifest import read_audio, read_manifest
from echox.data.states import manifests_of, write_ragged
from echox.errors import ConfigError, InputError
from echox.models.device import pick_device
from echox.models.encoder import FRAME_SAMPLES, MIN_SAMPLES, SpeechEncoder

Encode = Callable[[list[np.ndarray]], list[np.ndarray]]
log = logging.getLogger(__name__)


class EncoderSettings(Settings):
    """A frozen encoder, one of its layers, and how it is run."""

    encoder: Path
    layer: NonNegativeInt  # 1 is the first block's output
    window: Literal["short", "own"] = "short"  # short: Whisper without padding to 30 s; own: any encoder's own rule
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    batch_seconds: PositiveFloat = 240.0  # of audio encoded together, padding included
    most_skipped: NonNegativeInt = 20  # clips of a shard that may be unreadable

    @model_validator(mode="after")
    def _check(self) -> "EncoderSettings":
        if self.window == "own" and self.precision != "float32":
            raise ValueError(f"precision {self.precision} is for short windows: leave it out with window: own")
        return self


class Recipe(EncoderSettings):
    """Recipe of stage `encode`: every corpus of `corpora` is encoded into the folder `out`/<its name>."""

    stage: Literal["encode"]
    out: Path
    corpora: list[Path]
    shard: Shard = (0, 1)


def run(recipe: Recipe) -> Path:
    """Encode the shards that are missing."""
    check_names(recipe.corpora)
    record = Record.of(recipe)
    check_same(recipe.out, record, only=("stage", "encoder", "layer", "window", "precision"))
    encode, _ = load_encode(recipe)
    write_run(recipe.out, record, "done")  # what stands in a folder is whole, shard by shard
    for corpus in recipe.corpora:
        encode_shards(corpus, recipe.out / corpus.name, encode, recipe.shard, recipe.most_skipped)
    return recipe.out


def check_names(corpora: Sequence[Path]) -> None:
    """Raise ConfigError where two corpora have the same name, and so the same output folder."""
    names = [corpus.name for corpus in corpora]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two corpora are called {name}: give them recipes of their own, or rename one.")


def load_whisper(folder: str | Path, precision: str, device: str = "auto") -> SpeechEncoder:
    """Return a frozen Whisper encoder in the named precision."""
    encoder = SpeechEncoder.from_pretrained(folder)
    encoder.whisper.to(pick_device(device), getattr(torch, precision))
    return encoder


def layer_of(
    encoder: str | Path, layer: int, short: bool, precision: str = "float32", device: str = "cpu"
) -> tuple[Encode, int]:
    """Return a function from 16 kHz waves to the states (T, D) of a layer and the samples of a frame.

    `short`: Whisper without padding to 30 s; other encoders have their own rule, and float32. ModelError for no such layer.
    """
    if not short:
        from echox.models.ssl import HiddenStates

        states = HiddenStates.from_pretrained(encoder, layer).to(pick_device(device))
        return states, states.hop
    whisper = load_whisper(encoder, precision, device)
    whisper.check_layer(layer, encoder)

    def encode(waves: list[np.ndarray]) -> list[np.ndarray]:
        return [found[layer].float().cpu().numpy() for found in whisper.encode(waves, (layer,))]

    return encode, FRAME_SAMPLES


def load_encode(settings: EncoderSettings) -> tuple[Encode, int]:
    """Return a function from 16 kHz waves to float16 states (T, D), batched by duration, and the samples of a frame."""
    short = settings.window == "short"
    encode, hop = layer_of(settings.encoder, settings.layer, short, settings.precision, settings.device)
    return in_batches(encode, settings.batch_seconds), hop


def in_batches(encode: Callable[[list[np.ndarray]], Any], seconds: float) -> Encode:
    """Return `encode` batched by similar length, at most `seconds` a batch, with states in float16."""

    def batched(waves: list[np.ndarray]) -> list[np.ndarray]:
        def some(rows: list[int]) -> list[np.ndarray]:
            return [np.asarray(found, dtype=np.float16) for found in encode([waves[i] for i in rows])]

        return in_runs([len(wave) for wave in waves], int(seconds * SAMPLE_RATE), some)

    return batched


def encode_shards(source: Path, target: Path, encode: Encode, shard: Shard = (0, 1), most_skipped: int = 20) -> None:
    """Encode every shard of `source` that `target` lacks; InputError when over `most_skipped` clips, or all, cannot be used."""
    for manifest, path in shards_left(source, target, shard):
        names, waves, skipped = [], [], {}
        for record in read_manifest(manifest):
            name = str(record["id"])
            try:
                waves.append(clip_of(record, source))
                names.append(name)
            except InputError as error:
                skipped[name] = str(error)
            if len(skipped) > most_skipped:
                break
        if len(skipped) > most_skipped or not names:
            reason = next(iter(skipped.values()), "it holds none.")
            raise InputError(f"{len(skipped)} clips of {manifest} cannot be used ({reason.rstrip('.')}): correct them.")
        for name, reason in skipped.items():
            log.warning("%s: %s is left out: %s", manifest, name, reason)
        write_ragged(path, names, encode(waves), list(skipped))


def shards_left(source: Path, target: Path, shard: Shard) -> Iterator[tuple[Path, Path]]:
    """Yield the manifests of this part of `source` and the files of `target` that are not there yet."""
    for manifest in manifests_of(source)[shard[0] :: shard[1]]:
        path = target / f"{manifest.stem}.npz"
        if not path.exists():
            yield manifest, path


def clip_of(record: dict[str, Any], source: Path) -> np.ndarray:
    """Return a record's 16 kHz audio; InputError when it is too short, broken or missing."""
    wave = read_audio(record, source, SAMPLE_RATE)
    if len(wave) < MIN_SAMPLES:
        raise InputError(f"{record['id']} has {len(wave)} samples, fewer than {MIN_SAMPLES}.")
    if not np.isfinite(wave).all():
        raise InputError(f"{record['id']} holds samples that are not numbers.")
    return wave
