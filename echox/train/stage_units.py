"""Units of a voice: k-means on encoder states, frame-level units of a corpus, and their unit language.

Files to files: centroids and unit language go to `out`, frame-level units to `out`/frames/<corpus>. States come from the encoder,
or from a folder in which stage `encode` has left them, which takes seconds.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, PositiveInt

from echox.audio import SAMPLE_RATE
from echox.config.load import Seed
from echox.config.record import Record, check_same, read_run, write_run
from echox.config.shard import Shard
from echox.data.manifest import read_manifest
from echox.data.states import manifests_of, read_ragged, read_shard, write_ragged
from echox.errors import ConfigError, InputError, require
from echox.prepare.encode import Encode, EncoderSettings, check_names, clip_of, encode_shards, load_encode, shards_left
from echox.units.estimate import LexiconConfig
from echox.units.extractor import CENTROIDS_FILE, CONFIG_FILE, UnitsMeta, load_centroids, revision_of, save_centroids
from echox.units.kmeans import assign, fit_kmeans
from echox.units.segment import MAX_UNITS
from echox.units.sequence import deduplicate
from echox.units.tokenizer import UnitTokenizer


class Recipe(EncoderSettings):
    """Recipe of stage `units`."""

    stage: Literal["units"]
    out: Path
    seed: Seed = 0
    corpus: Path  # one voice; k-means and the unit language are fitted on it
    more: list[Path] = []  # further corpora of that voice, only encoded
    states: Path | None = None  # `out` of stage encode, same encoder and layer, for all corpora; none: encoded here
    given: Path | None = None  # a folder of centroids to use; none: they are fitted here
    k: int = Field(default=256, ge=2, le=MAX_UNITS)  # ids are written as int16
    iterations: PositiveInt = 25
    fit_shards: PositiveInt = 5  # spread over the corpus, and utterances of each, that k-means sees
    fit_utterances: PositiveInt = 200
    language: LexiconConfig = LexiconConfig()
    shard: Shard = (0, 1)  # of the corpora; the first one fits, the last that ends estimates the unit language


MADE_OF = "stage encoder layer window precision seed corpus given k iterations fit_shards fit_utterances".split()


def run(recipe: Recipe) -> Path:
    """Fit what is not fitted yet, encode what is not encoded yet, then estimate the unit language."""
    check_names([recipe.corpus, *recipe.more])
    record = Record.of(recipe)
    check_same(recipe.out, record, only=MADE_OF)
    if recipe.states is not None:
        check_states(recipe.states, record)
    encoder = cache(lambda: load_encode(recipe))  # where states are there, most need none
    if not (recipe.out / CONFIG_FILE).exists():  # written last
        if recipe.shard[0]:
            raise InputError(f"{recipe.out / CENTROIDS_FILE} is missing: shard 0 makes it, start that first.")
        fit(recipe, encoder)
    write_run(recipe.out, record, "done")  # what stands in the folder is whole, shard by shard
    centroids_KD, _ = load_centroids(recipe.out)

    def units(states_TD: np.ndarray) -> np.ndarray:
        return assign(states_TD.astype(np.float32), centroids_KD).astype(np.int16)

    def encode_units(waves: list[np.ndarray]) -> list[np.ndarray]:
        return [units(states_TD) for states_TD in encoder()[0](waves)]

    frames = recipe.out / "frames" / recipe.corpus.name
    for corpus in (recipe.corpus, *recipe.more):
        target = recipe.out / "frames" / corpus.name
        if recipe.states is not None:
            convert_shards(corpus, recipe.states / corpus.name, target, units, recipe.shard)
        else:
            encode_shards(corpus, target, encode_units, recipe.shard, recipe.most_skipped)
    if all((frames / f"{manifest.stem}.npz").exists() for manifest in manifests_of(recipe.corpus)):
        sequences = [deduplicate(row.astype(np.int64)).ids for _, row in read_ragged(frames, recipe.corpus)]
        UnitTokenizer.train(sequences, recipe.language).save(recipe.out)
    return recipe.out


def fit(recipe: Recipe, encoder: Callable[[], tuple[Encode, int]]) -> None:
    """Fit k-means on a sample of the corpus, or take the given one, and write it with what it was fitted on."""
    if recipe.given is not None:
        centroids_KD, meta = load_centroids(recipe.given)
        if (meta.k, meta.layer, meta.window) != (recipe.k, recipe.layer, recipe.window):
            has = f"{meta.k} units of layer {meta.layer}, window {meta.window}"
            raise ConfigError(f"{recipe.given} has {has}: set k, layer and window of the recipe to these.")
        save_centroids(recipe.out, centroids_KD, meta)
        return
    require("faiss", extra="train")  # said before anything is encoded
    revision = revision_of(recipe.encoder)
    shards = manifests_of(recipe.corpus)
    chosen = shards[:: max(1, -(-len(shards) // recipe.fit_shards))]
    states_ND = np.concatenate(_sample(recipe, chosen, encoder)).astype(np.float32)
    centroids_KD = fit_kmeans(states_ND, recipe.k, recipe.seed, recipe.iterations)
    meta = UnitsMeta(recipe.encoder.name, revision, recipe.layer, recipe.window, SAMPLE_RATE, encoder()[1], recipe.k)
    save_centroids(recipe.out, centroids_KD, meta)


def _sample(recipe: Recipe, shards: list[Path], encoder: Callable[[], tuple[Encode, int]]) -> list[np.ndarray]:
    """Return the states of the first `fit_utterances` of every shard."""
    if recipe.states is None:
        records = [record for shard in shards for record in read_manifest(shard)[: recipe.fit_utterances]]
        return encoder()[0]([clip_of(record, recipe.corpus) for record in records])
    found = [read_shard(recipe.states / recipe.corpus.name, manifest) for manifest in shards]
    return [shard.rows_of(name) for shard in found for name in list(shard.places)[: recipe.fit_utterances]]


def check_states(folder: Path, record: Record) -> None:
    """Raise ConfigError unless `folder` holds states of the encoder, layer and window that a recipe's `record` names."""
    found = read_run(folder)
    made = found[1] if found is not None else Record()
    differ = [] if made.settings.get("stage") == "encode" else ["stage"]
    differ += made.differences(record, only=("encoder", "layer", "window", "precision"))
    if differ:
        raise ConfigError(f"{folder} holds no states of this recipe's {differ[0]}: run stage encode with the same.")


def convert_shards(
    source: Path, states: Path, target: Path, units: Callable[[np.ndarray], np.ndarray], shard: Shard = (0, 1)
) -> None:
    """Write the units of every shard of `source` that `target` lacks, from states that were encoded before."""
    for manifest, path in shards_left(source, target, shard):
        found = read_shard(states, manifest)
        units_N = units(found.frames)
        rows = [units_N[start:end] for start, end in found.places.values()]
        write_ragged(path, list(found.places), rows, sorted(found.skipped))
