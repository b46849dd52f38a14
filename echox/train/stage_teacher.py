"""Texts spoken by a TTS whose decoder is known, with the decoder's inputs and the units of the speech; files to files, resumable.

Stage `teacher` writes `decoder/` (the TTS's own decoder, rebuilt) and shards of utterances with

    latents  int8   [F, L]  x scale, 80 a second          exact inputs of the decoder: regression on them is all that training needs
    prosody  half   [F, 2]  pitch in Hz, energy
    units    int16  [T]     50 a second                   of the spoken audio, by given centroids
    states   half   [N, W]  one a unit word               in which a given T2C writes those units (`writer`)
    state_of int32  [T]                                   its row for every unit frame, -1 where there is none
    writer   half   [W]                                   the mark of that T2C
    texts    uint8                                        what is said, where that is known: a line each, in UTF-8
    begins   int32  [M]                                   unit frame at which each of its words begins, where that is known

Legend: F latent frames, L latents, M words, N unit words, T unit frames, W the T2C's width.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from echox.audio import SAMPLE_RATE, resample
from echox.config.load import Seed, Settings, known
from echox.config.record import Record, check_same, write_run
from echox.config.shard import Shard
from echox.data.batching import groups
from echox.data.manifest import read_fields
from echox.data.sentences import Sentence, as_arrays
from echox.errors import ConfigError, InputError
from echox.files import write_file, write_folder
from echox.models.io import save_part
from echox.models.llm import load_embeddings, load_tokenizer
from echox.models.ragged import unpad
from echox.models.t2c import TextToCodec
from echox.prepare.encode import Encode, EncoderSettings, load_encode
from echox.prepare.teachers import HibariTeacher, Said, ToyTeacher
from echox.text.segmenter import PhraseSegmenter, split_sentences
from echox.text.speakable import aloud
from echox.train.stage_t2c import cut_sentence, sentence_batch
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
    phrases: Annotated[dict[str, int] | None, known(PhraseSegmenter)] = None  # how answers are cut, if it reads a past


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
WHOLE = PhraseSegmenter(first_phrase=0, shortest=1, clause=1000, longest=1000)  # where a sentence ends, or may
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
        if path.exists():
            check_shard(path)
        elif number % parts == part:
            said = []
            for text in texts:
                sentences = (teacher.say(aloud(one), recipe.seed) for one in split_sentences(text))
                said += join(list(chain.from_iterable(sentences)), recipe.longest, rate)
            write_shard(path, said, rate, encode_waves, centroids_KD, states_of)
    return recipe.out


def check_shard(path: Path) -> None:
    """Raise ConfigError for a shard that does not say where words begin: the others would not be like it."""
    with np.load(path) as data:
        if "begins" not in data:
            raise ConfigError(f"{path} was made before words were timed: delete {path.parent} and make it anew.")


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
        latents_FL, prosody_F2, wave_S = (
            np.concatenate([getattr(one, part) for one in group]) for part in ("latents_FL", "prosody_F2", "wave_S")
        )
        starts = accumulate((len(one.latents_FL) for one in group), initial=0)
        begins = np.concatenate([one.begins + start for one, start in zip(group, starts, strict=False)])
        known = all(len(one.begins) for one in group)
        text = " ".join(one.text for one in group)
        yield Said(latents_FL, prosody_F2, wave_S, text, begins if known else begins[:0])


class WrittenStates:
    """The states in which a T2C writes the units of texts, read from disk once."""

    def __init__(self, writer: Writer, units: Path) -> None:
        self.t2c, self.language = TextToCodec.load(writer.t2c).float().eval(), UnitTokenizer.load(units)
        self.tokenizer, self.embeddings_VH = load_tokenizer(writer.llm), load_embeddings(writer.llm)
        config = self.t2c.config
        if bool(config.past_words) != (writer.phrases is not None):
            raise ConfigError(
                f"{writer.t2c} reads {config.past_words or 'no'} past words: give writer.phrases where it reads any."
            )
        if not (config.spelling and config.words_in):
            raise ConfigError(
                f"{writer.t2c} reads texts as they are written, and these are spoken as words: it does not fit."
            )
        self.segmenter = WHOLE if writer.phrases is None else PhraseSegmenter(**writer.phrases)
        if config.text_vocab_size or config.unit_vocab_size != self.language.vocab_size:
            raise ConfigError(
                f"{writer.t2c} writes other unit words than {units} holds: give the units that it learnt."
            )

    @torch.inference_mode()
    def __call__(self, said: Sequence[Sentence]) -> dict[str, np.ndarray]:
        """Return `states` and `state_of` of utterances, where it is known when their words are said."""
        known = [number for number, one in enumerate(said) if len(one.begins)]
        states = [np.zeros((0, self.t2c.config.width), np.float16)] * len(said)
        spelt: list[list[int]] = [[]] * len(said)  # how many units each unit word of an utterance has
        for some in groups(sorted(known, key=lambda number: len(said[number].text)), WRITTEN_TOGETHER):
            cut = [cut_sentence(said[i], self.tokenizer, self.segmenter, i % SPACED == 0) for i in some]
            words = self.language.encode_batch([units for one in cut for units in one.units])
            made_BUW, _, mask_BU = self.t2c.states(
                sentence_batch(self.t2c, self.tokenizer, self.embeddings_VH, cut, words)
            )
            rows = zip(words, unpad(made_BUW, mask_BU), strict=True)
            for i, one in zip(some, cut, strict=True):
                own = list(islice(rows, len(one.units)))
                written = [made_UW[:-1].half().numpy() for _, made_UW in own]  # the last one predicts an end
                states[i] = np.concatenate(written)
                spelt[i] = [len(self.language.word(word)) for row, _ in own for word in row]
        first, state_of = 0, []
        for one, made, lengths in zip(said, states, spelt, strict=True):
            durations = deduplicate(one.units_T.astype(np.int64)).durations
            of_unit = first + np.repeat(np.arange(len(made)), lengths) if len(made) else np.full(len(durations), -1)
            state_of.append(np.repeat(of_unit, durations).astype(np.int32))
            first += len(made)
        rows = {"states": np.concatenate(states), "state_of": np.concatenate(state_of)}
        return rows | {"writer": self.t2c.mark.numpy()}


def write_shard(
    path: Path,
    said: list[Said],
    rate: int,
    encode_waves: Encode,
    centroids_KD: np.ndarray,
    states_of: Callable[[Sequence[Sentence]], dict[str, np.ndarray]] | None = None,
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
    sentences = [_sentence(one, row) for one, row in zip(said, units, strict=True)]
    arrays |= as_arrays(sentences) | (states_of(sentences) if states_of else {})
    with write_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays)


def _sentence(said: Said, units_T: np.ndarray) -> Sentence:
    """Return what was said with its units, and the beginnings of its words counted as these are."""
    begins = np.round(said.begins * (len(units_T) / max(1, len(said.latents_FL)))).astype(np.int32)
    return Sentence(said.text, units_T, begins)
