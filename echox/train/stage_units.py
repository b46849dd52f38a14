"""Units of the assistant's voice: k-means on encoder states, frame-level units of a corpus, and their unit language.

Files to files: centroids and unit language go to `out`, frame-level units to `out`/frames/<corpus>.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from echox.config.load import Settings
from echox.data.manifest import read_audio, read_manifest
from echox.errors import InputError
from echox.features.logmel import SAMPLE_RATE
from echox.files import sha256_of
from echox.models.encoder import FRAME_SAMPLES
from echox.prepare.encode import Encode, encode_shards, load_encoder, read_ragged, states_at
from echox.units.estimate import LexiconConfig
from echox.units.extractor import CENTROIDS_FILE, UnitsMeta, load_centroids, save_centroids
from echox.units.kmeans import assign, fit_kmeans
from echox.units.sequence import deduplicate
from echox.units.tokenizer import UnitTokenizer


class Recipe(Settings):
    """Recipe of stage `units`."""

    stage: Literal["units"]
    out: Path
    seed: int = 0
    corpus: Path  # one voice; k-means and the unit language are fitted on it
    more: list[Path] = []  # further corpora of that voice, only encoded
    encoder: Path
    layer: int
    precision: Literal["float32", "bfloat16"] = "float32"  # of the encoder
    k: int = 256
    iterations: int = 25
    fit_shards: int = 5  # shards, spread over the corpus, and utterances of each, that k-means sees
    fit_utterances: int = 200
    language: LexiconConfig = LexiconConfig()


def run(recipe: Recipe) -> Path:
    """Fit what is not fitted yet, encode what is not encoded yet, then estimate the unit language."""
    encode = states_at(load_encoder(recipe.encoder, recipe.precision), recipe.layer)
    if not (recipe.out / CENTROIDS_FILE).exists():
        fit(recipe, encode)
    centroids_KD, _ = load_centroids(recipe.out)

    def units(waves: list[np.ndarray]) -> list[np.ndarray]:
        return [assign(states.astype(np.float32), centroids_KD).astype(np.int16) for states in encode(waves)]

    frames = recipe.out / "frames" / recipe.corpus.name
    for corpus in (recipe.corpus, *recipe.more):
        encode_shards(corpus, recipe.out / "frames" / corpus.name, units)
    sequences = [deduplicate(row.astype(np.int64)).ids for _, row in read_ragged(frames, recipe.corpus)]
    UnitTokenizer.train(sequences, recipe.language).save(recipe.out)
    return recipe.out


def fit(recipe: Recipe, encode: Encode) -> None:
    """Fit k-means on a sample of the corpus and write it with what it was fitted on."""
    shards = sorted(recipe.corpus.glob("shard-*.jsonl"))
    if not shards:
        raise InputError(f"{recipe.corpus} holds no shard-*.jsonl: make the corpus first.")
    chosen = shards[:: max(1, -(-len(shards) // recipe.fit_shards))]
    records = [record for shard in chosen for record in read_manifest(shard)[: recipe.fit_utterances]]
    states_ND = np.concatenate(encode([read_audio(record, recipe.corpus) for record in records])).astype(np.float32)
    centroids_KD = fit_kmeans(states_ND, recipe.k, recipe.seed, recipe.iterations)
    digest = sha256_of(recipe.encoder / "model.safetensors")
    meta = UnitsMeta(recipe.encoder.name, digest, recipe.layer, "short", SAMPLE_RATE, FRAME_SAMPLES, recipe.k)
    save_centroids(recipe.out, centroids_KD, meta)
