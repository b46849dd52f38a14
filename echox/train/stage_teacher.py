"""Texts spoken by a TTS whose decoder is known, with the decoder's inputs and the units of the speech; files to files, resumable.

Stage `teacher` writes `decoder/` (the TTS's own decoder, rebuilt) and shards of utterances with

    latents  int8   [F, L]  x scale, 80 a second          exact inputs of the decoder: regression on them is all that training needs
    prosody  half   [F, 2]  pitch in Hz, energy
    units    int16  [T]     50 a second                   of the spoken audio, by given centroids
    states   half   [N, W]  one a unit word               in which a given T2C writes those units (`writer`)
    state_of int32  [T]                                   its row for every unit frame, -1 where there is none
    writer   half   [W]                                   the mark of that T2C

Legend: F latent frames, L latents, N unit words, T unit frames, W the T2C's width.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from echox.audio import SAMPLE_RATE, resample
from echox.config.load import Seed, Settings
from echox.config.record import Record, check_same, write_run
from echox.config.shard import Shard
from echox.data.batching import groups
from echox.data.manifest import read_fields
from echox.errors import ConfigError, InputError
from echox.files import write_file, write_folder
from echox.models.io import save_part
from echox.models.llm import load_embeddings, load_tokenizer
from echox.models.ragged import unpad
from echox.models.t2c import TextToCodec
from echox.prepare.encode import Encode, EncoderSettings, load_encode
from echox.prepare.teachers import HibariTeacher, Said, ToyTeacher
from echox.train.stage_t2c import t2c_batch
from echox.units.extractor import load_centroids
from echox.units.kmeans import assign
from echox.units.sequence import deduplicate
from echox.units.tokenizer import UnitTokenizer


class Texts(Settings):
    """A JSONL file: which field is said, and of how many rows."""

    path: Path
    field: str = "text"
    take: NonNegativeInt = 0  # rows, in the order of a hash of their id; 0 means all


class Writer(Settings):
    """A trained T2C whose states the voice may read beside units: what writes them in use; its unit language lies in `units`."""

    t2c: Path
    llm: Path  # whose embeddings it reads


class Recipe(Settings):
    """Recipe of stage `teacher`; `toy` is a random decoder over letters, for tests."""

    stage: Literal["teacher"]
    out: Path
    seed: Seed = 0
    teacher: Literal["hibari", "toy"] = "hibari"
    texts: list[Texts]
    longest: PositiveFloat = 8.0  # seconds: sentences of a text are joined up to about so much
    units: Path  # centroids
    writer: Writer | None = None  # none: a voice of these utterances reads units alone
    encoder: Path
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # of the encoder
    shard_size: PositiveInt = 500  # texts
    shard: Shard = (0, 1)


MADE_OF = ("stage", "seed", "teacher", "texts", "longest", "units", "writer", "encoder", "precision", "shard_size")
WRITTEN_TOGETHER = 16  # texts of about one length
SPACED = 3  # every third text is read with a space in front, as the segments of an answer are that follow others


def run(recipe: Recipe) -> Path:
    """Write the shards that are missing."""
    teacher = HibariTeacher() if recipe.teacher == "hibari" else ToyTeacher(recipe.seed)
    centroids_KD, meta = load_centroids(recipe.units)
    record = Record.of(recipe)
    check_same(recipe.out, record, only=MADE_OF)
    settings = {"encoder": recipe.encoder, "layer": meta.layer, "window": meta.window, "precision": recipe.precision}
    encode_waves, _ = load_encode(EncoderSettings.parse(settings, str(recipe.units)))
    if not (recipe.out / "decoder").exists():
        recipe.out.mkdir(parents=True, exist_ok=True)
        write_folder(recipe.out / "decoder", lambda folder: save_part(folder, teacher.decoder))
    write_run(recipe.out, record, "done")  # what stands in the folder is whole, shard by shard
    (part, parts), rate = recipe.shard, teacher.decoder.config.sample_rate
    states_of = None if recipe.writer is None else WrittenStates(recipe.writer, recipe.units)
    for number, texts in enumerate(groups(chosen_texts(recipe.texts), recipe.shard_size)):
        path = recipe.out / f"shard-{number:05d}.npz"
        if number % parts == part and not path.exists():
            said: list[tuple[Said, str | None]] = []
            for text in texts:
                found = list(join(teacher.say(text, recipe.seed), recipe.longest, rate))
                known = text if len(found) == 1 else None  # which part of a text each says, nobody knows
                said += [(one, known) for one in found]
            of_these = None if states_of is None else partial(states_of, [text for _, text in said])
            write_shard(path, [one for one, _ in said], rate, encode_waves, centroids_KD, of_these)
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


class WrittenStates:
    """The states in which a T2C writes the units of texts, read from disk once."""

    def __init__(self, writer: Writer, units: Path) -> None:
        self.t2c, self.language = TextToCodec.load(writer.t2c).float().eval(), UnitTokenizer.load(units)
        self.tokenizer, self.embeddings_VH = load_tokenizer(writer.llm), load_embeddings(writer.llm)
        if self.t2c.config.text_vocab_size or self.t2c.config.unit_vocab_size != self.language.vocab_size:
            raise ConfigError(
                f"{writer.t2c} writes other unit words than {units} holds: give the units that it learnt."
            )

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str | None], units: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Return `states` and `state_of` of utterances from their texts, where they are known, and frames of units."""
        runs = [deduplicate(row.astype(np.int64)) for row in units]
        words = [row.tolist() for row in self.language.encode_batch([run.ids for run in runs])]
        known = sorted((i for i, text in enumerate(texts) if text), key=lambda i: len(words[i]))
        states = [np.zeros((0, self.t2c.config.width), np.float16)] * len(texts)
        for some in groups(known, WRITTEN_TOGETHER):
            said = [" " * (i % SPACED == 0) + self.t2c.said(str(texts[i])) for i in some]
            framed = [self.t2c.framed(words[i]) for i in some]
            batch = t2c_batch(self.t2c, self.tokenizer, self.embeddings_VH, said, framed)
            made_BUW, _, mask_BU = self.t2c.states(batch)
            for i, made_UW in zip(some, unpad(made_BUW, mask_BU), strict=True):
                states[i] = made_UW[:-1].half().numpy()  # the last one predicts the end
        first, state_of = 0, []
        for run, row, made in zip(runs, words, states, strict=True):
            lengths = [len(self.language.word(word)) for word in row]
            of_unit = first + np.repeat(np.arange(len(row)), lengths) if len(made) else np.full(len(run), -1)
            state_of.append(np.repeat(of_unit, run.durations).astype(np.int32))
            first += len(made)
        rows = {"states": np.concatenate(states), "state_of": np.concatenate(state_of)}
        return rows | {"writer": self.t2c.mark.numpy()}


def write_shard(
    path: Path,
    said: list[Said],
    rate: int,
    encode_waves: Encode,
    centroids_KD: np.ndarray,
    states_of: Callable[[list[np.ndarray]], dict[str, np.ndarray]] | None = None,
) -> None:
    """Write utterances with their units, and perhaps the states in which these are written, atomically."""
    if not said:
        raise InputError(f"none of the texts of {path.name} could be said: check the texts of the recipe.")
    heard = encode_waves([resample(one.wave_S, rate, SAMPLE_RATE) for one in said])
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
    arrays |= states_of(units) if states_of else {}
    with write_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays)
