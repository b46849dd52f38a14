"""Texts spoken by a TTS whose decoder is known, with the decoder's inputs and the units of the speech; files to files, resumable.

Stage `teacher` writes `decoder/` (the TTS's own decoder, rebuilt) and shards of utterances with

    latents  int8   [F, L]  x scale, 80 a second          exact inputs of the decoder: regression on them is all that training needs
    prosody  half   [F, 2]  pitch in Hz, energy
    units    int16  [T]     50 a second                   of the spoken audio, by given centroids

Legend: F latent frames, L latents, T unit frames.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from echox.audio import SAMPLE_RATE, resample
from echox.config.load import Seed, Settings
from echox.config.record import Record, check_same, write_run
from echox.config.shard import Shard
from echox.data.batching import groups
from echox.data.manifest import read_fields
from echox.errors import InputError
from echox.files import write_file, write_folder
from echox.models.io import save_part
from echox.prepare.encode import Encode, EncoderSettings, load_encode
from echox.prepare.teachers import HibariTeacher, Said, ToyTeacher
from echox.units.extractor import load_centroids
from echox.units.kmeans import assign


class Texts(Settings):
    """A JSONL file: which field is said, and of how many rows."""

    path: Path
    field: str = "text"
    take: NonNegativeInt = 0  # rows, in the order of a hash of their id; 0 means all


class Recipe(Settings):
    """Recipe of stage `teacher`; `toy` is a random decoder over letters, for tests."""

    stage: Literal["teacher"]
    out: Path
    seed: Seed = 0
    teacher: Literal["hibari", "toy"] = "hibari"
    texts: list[Texts]
    longest: PositiveFloat = 8.0  # seconds: sentences of a text are joined up to about so much
    units: Path  # centroids
    encoder: Path
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # of the encoder
    shard_size: PositiveInt = 500  # texts
    shard: Shard = (0, 1)


MADE_OF = ("stage", "seed", "teacher", "texts", "longest", "units", "encoder", "precision", "shard_size")


def run(recipe: Recipe) -> Path:
    """Write the shards that are missing."""
    teacher = HibariTeacher() if recipe.teacher == "hibari" else ToyTeacher(recipe.seed)
    centroids_KD, meta = load_centroids(recipe.units)
    record = Record.of(recipe)
    check_same(recipe.out, record, only=MADE_OF)
    settings = {"encoder": recipe.encoder, "layer": meta.layer, "window": meta.window, "precision": recipe.precision}
    encode, _ = load_encode(EncoderSettings.parse(settings, str(recipe.units)))
    if not (recipe.out / "decoder").exists():
        recipe.out.mkdir(parents=True, exist_ok=True)
        write_folder(recipe.out / "decoder", lambda folder: save_part(folder, teacher.decoder))
    write_run(recipe.out, record, "done")  # what stands in the folder is whole, shard by shard
    (part, parts), rate = recipe.shard, teacher.decoder.config.sample_rate
    for number, texts in enumerate(groups(chosen_texts(recipe.texts), recipe.shard_size)):
        path = recipe.out / f"shard-{number:05d}.npz"
        if number % parts == part and not path.exists():
            said = [one for text in texts for one in join(teacher.say(text, recipe.seed), recipe.longest, rate)]
            write_shard(path, said, rate, encode, centroids_KD)
    return recipe.out


def chosen_texts(sources: list[Texts]) -> list[str]:
    """Return the texts of all sources, interleaved in proportion, in an order that depends on their ids alone."""
    chosen = []
    for source in sources:
        rows = []
        for row in read_fields(source.path, source.field):
            if row[source.field].strip():
                rows.append((hashlib.sha256(row["id"].encode()).hexdigest(), row[source.field]))
        taken = sorted(rows)[: source.take or None]
        chosen += [((place + 0.5) / len(taken), text) for place, (_, text) in enumerate(taken)]
    return [text for _, text in sorted(chosen)]


def join(said: list[Said], longest: float, rate: int) -> Iterator[Said]:
    """Yield utterances of consecutive sentences, each below `longest` seconds or a single sentence."""
    while said:
        count, samples = 1, len(said[0].wave_S)
        while count < len(said) and samples + len(said[count].wave_S) <= longest * rate:
            samples += len(said[count].wave_S)
            count += 1
        group, said = said[:count], said[count:]
        parts = ("latents_FL", "prosody_F2", "wave_S")
        yield Said(*(np.concatenate([getattr(one, part) for one in group]) for part in parts))


def write_shard(path: Path, said: list[Said], rate: int, encode: Encode, centroids_KD: np.ndarray) -> None:
    """Write utterances with their units, atomically."""
    if not said:
        raise InputError(f"none of the texts of {path.name} could be said: check the texts of the recipe.")
    heard = encode([resample(one.wave_S, rate, SAMPLE_RATE) for one in said])
    units = [assign(states.astype(np.float32), centroids_KD).astype(np.int16) for states in heard]
    latents_NL = np.concatenate([one.latents_FL for one in said])
    scale_L = np.maximum(np.abs(latents_NL).max(axis=0), 1e-6) / 127
    arrays = {
        "latents": np.round(latents_NL / scale_L).astype(np.int8),
        "scale": scale_L.astype(np.float32),
        "prosody": np.concatenate([one.prosody_F2 for one in said]).astype(np.float16),
        "units": np.concatenate(units),
        "latent_offsets": np.cumsum([0, *(len(one.latents_FL) for one in said)]),
        "unit_offsets": np.cumsum([0, *map(len, units)]),
    }
    with write_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
