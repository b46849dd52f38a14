"""Stage II: text to codec (spec section 3); text with the units of its speech in, a T2C part out.

A released part goes on with `start` and without `data.units`: its unit tokens are those that the LLM's tokenizer spells, and its
text embeddings, which are the LLM's, stay still (spec section 3.2).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import PositiveInt

from echox.config.load import Rate, Settings, Share, known
from echox.data.batching import BucketedBatches, some_at_a_time
from echox.data.example import first_held_out
from echox.data.manifest import tell_dropped, text_of
from echox.data.sentences import Sentence, read_sentences
from echox.data.states import paired, read_ragged
from echox.errors import ConfigError, InputError
from echox.models.bounds import Small
from echox.models.io import settings_from
from echox.models.llm import load_embeddings, load_tokenizer, text_of_pieces, token_pieces
from echox.models.t2c import T2CBatch, TextToCodec
from echox.models.t2c_config import T2CConfig, check_fit
from echox.objectives.t2c import t2c_loss
from echox.text.prompt import encode
from echox.text.segmenter import PhraseSegmenter, cut_text
from echox.train.checkpoint import blend
from echox.train.evaluate import mean_loss
from echox.train.loop import Player, Stage, TrainingRecipe
from echox.units.extractor import check_belong
from echox.units.sequence import deduplicate
from echox.units.spelled import CODEBOOK, SpelledUnits
from echox.units.tokenizer import UnitTokenizer


class T2CData(Settings):
    """Spoken text: corpora and the frame-level units of their audio, or whole sentences of stage `teacher`."""

    corpora: list[Path] = []
    frames: list[Path] = []  # one folder a corpus: encoded shards of frame-level units
    sentences: list[Path] = []  # instead of both: folders of stage `teacher`, cut anew each time into segments
    phrases: Annotated[dict[str, int], known(PhraseSegmenter)] = {}  # how sentences are cut, as in stage pack
    past_words: Small = 12  # unit words of its sentence that T2C reads before a segment; a second is about seven
    units: Path | None = None  # unit language; none: the unit tokens of the LLM's tokenizer, for a released `start`
    max_cost: PositiveInt = 2048  # positions in a batch, padding included; of sentences before they are cut
    max_positions: PositiveInt = 240
    held_out: PositiveInt = 200  # utterances that are only measured
    space_probability: Share = 0.3  # text read as the middle of an answer: with a space in front


class Recipe(TrainingRecipe):
    """Recipe of stage `t2c`."""

    stage: Literal["t2c"]
    llm: Path
    data: T2CData
    start: Path | None = None  # a trained T2C part to go on from, with its own sizes instead of `model`
    keep_start: Share = 0.0  # share of `start` in what is written (train/checkpoint.py)
    model: Annotated[dict[str, int | float | bool | None], known(T2CConfig)] = {}
    smoothing: Rate = 0.0


def spoken_units(corpora: list[Path], frames: list[Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the text and the de-duplicated units of every utterance of corpora."""
    for corpus, folder in paired(corpora, frames, "data.frames"):
        for record, row in read_ragged(folder, corpus):
            yield text_of(record, corpus), deduplicate(row.astype(np.int64)).ids


class SpokenText:
    """Utterances as LLM tokens and unit words, and their collation."""

    def __init__(self, recipe: Recipe, embeddings_VH: torch.Tensor, start: TextToCodec | None) -> None:
        data = recipe.data
        spelling = start.config.spelling if start else bool(recipe.model.get("spelling", False))
        self.tokenizer, self.embeddings_VH = load_tokenizer(recipe.llm), embeddings_VH
        self.unit_tokenizer = _unit_tokenizer(recipe, start, self.tokenizer)
        if data.units is not None:
            check_belong(data.units, self.unit_tokenizer.units, data.frames)
        spoken = list(spoken_units(data.corpora, data.frames))
        texts, sequences = [text for text, _ in spoken], [units for _, units in spoken]
        marks = start.config if start else self.unit_tokenizer
        assert not isinstance(marks, SpelledUnits)  # noqa: S101  only a released `start` spells its units
        bos, eos = marks.bos_token_id, marks.eos_token_id
        try:
            words = [[bos, *row.tolist(), eos] for row in self.unit_tokenizer.encode_batch(sequences)]
        except InputError as error:
            raise ConfigError(f"data.units {data.units} is not of data.frames {data.frames[0]}: {error}") from error
        ids = self.tokenizer(texts, add_special_tokens=False).input_ids
        costs = [len(t.encode() if spelling else i) + len(w) for t, i, w in zip(texts, ids, words, strict=True)]
        long = f"longer than {data.max_positions} positions"
        faults = [
            "without a text" if not text.strip() else long if cost > data.max_positions else ""
            for text, cost in zip(texts, costs, strict=True)
        ]
        fits = [i for i, fault in enumerate(faults) if not fault]
        tell_dropped(Counter(filter(None, faults)), len(fits), f"utterances of {', '.join(map(str, data.corpora))}")
        self.texts, self.words = [texts[i] for i in fits], [words[i] for i in fits]
        self.costs = [costs[i] for i in fits]
        self.words_per_character = sum(len(row) - 2 for row in self.words) / sum(map(len, self.texts))
        self.space_probability = data.space_probability

    def __len__(self) -> int:
        return len(self.texts)

    def batch(self, model: TextToCodec, items: list[int], rng: np.random.Generator) -> T2CBatch:
        """Return a batch of the numbered utterances."""
        spaced = rng.random(len(items)) < self.space_probability
        texts = [(" " if s else "") + self.texts[i] for i, s in zip(items, spaced, strict=True)]
        ids = [encode(self.tokenizer, text) for text in texts]
        return t2c_batch(model, self.tokenizer, self.embeddings_VH, ids, [self.words[i] for i in items])


class SpokenSentences:
    """Whole sentences, each cut anew into segments that go on from one another, and their collation."""

    def __init__(self, recipe: Recipe, units: Path, embeddings_VH: torch.Tensor) -> None:
        data = recipe.data
        self.tokenizer, self.embeddings_VH = load_tokenizer(recipe.llm), embeddings_VH
        self.unit_tokenizer, self.segmenter = UnitTokenizer.load(units), PhraseSegmenter(**data.phrases)
        every, long = read_sentences(data.sentences), f"longer than {data.max_positions} positions"
        try:
            words = self.unit_tokenizer.encode_batch([deduplicate(one.units_T.astype(np.int64)).ids for one in every])
        except InputError as error:
            raise ConfigError(f"data.units {units} is not of data.sentences {data.sentences[0]}: {error}") from error
        costs = [len(one.text.encode()) + len(row) for one, row in zip(every, words, strict=True)]
        fits = [i for i, cost in enumerate(costs) if cost <= data.max_positions]
        names = f"sentences of {', '.join(map(str, data.sentences))}"
        tell_dropped(Counter({long: len(every) - len(fits)}), len(fits), names)
        self.sentences, self.costs = [every[i] for i in fits], [costs[i] for i in fits]
        self.words_per_character = sum(len(words[i]) for i in fits) / sum(len(one.text) for one in self.sentences)
        self.space_probability = data.space_probability

    def __len__(self) -> int:
        return len(self.sentences)

    def batch(self, model: TextToCodec, items: list[int], rng: np.random.Generator) -> T2CBatch:
        """Return a batch of the numbered sentences, as if each were the first of an answer or a later one."""
        later = rng.random(len(items)) < self.space_probability
        cut = [
            cut_sentence(self.sentences[item], self.tokenizer, self.segmenter, bool(spaced))
            for item, spaced in zip(items, later, strict=True)
        ]
        words = self.unit_tokenizer.encode_batch([units for one in cut for units in one.units])
        return sentence_batch(model, self.tokenizer, self.embeddings_VH, cut, words)


@dataclass
class Cut:
    """The segments of a spoken text: their tokens, the units that say them, and their texts."""

    ids: list[list[int]]
    units: list[np.ndarray]
    texts: list[str]


def cut_sentence(spoken: Sentence, tokenizer: Any, segmenter: PhraseSegmenter, later: bool) -> Cut:
    """Return the segments of a spoken text as an answer is cut; one `later` in it begins with a space, without early segments."""
    ids = encode(tokenizer, " " * later + spoken.text)
    pieces = token_pieces(tokenizer, ids)
    spans = cut_text(pieces, replace(segmenter, early=0) if later else segmenter)
    texts = [text_of_pieces(pieces[first:end]) for first, end in spans]
    return Cut([ids[first:end] for first, end in spans], spoken.parts(texts), texts)


def sentence_batch(
    model: TextToCodec, tokenizer: Any, embeddings_VH: torch.Tensor, cut: list[Cut], words: list[np.ndarray]
) -> T2CBatch:
    """Return a batch of all segments of spoken texts, given the unit words of each, in order."""
    said, past = iter(row.tolist() for row in words), list[list[int]]()
    rows = []
    for one in cut:
        before: list[int] = []
        for text in one.texts:
            rows.append(next(said))
            past.append(before)
            before = model.past_of([*before, *rows[-1]], text)
    ids = [row for one in cut for row in one.ids]
    return t2c_batch(model, tokenizer, embeddings_VH, ids, [model.framed(row) for row in rows], past)


def t2c_batch(
    model: TextToCodec,
    tokenizer: Any,
    embeddings_VH: torch.Tensor,
    texts: list[list[int]],
    words: list[list[int]],
    past: list[list[int]] | None = None,
) -> T2CBatch:
    """Return a batch of texts, as the LLM's tokens, with the framed unit words that say them."""
    read = [model.embed_text(row, embeddings_VH).detach() for row in texts]
    return T2CBatch(read, [model.layout(token_pieces(tokenizer, row)) for row in texts], words, past or [])


def build(recipe: Recipe) -> Stage:
    """Return the stage; its data are read once into memory."""
    torch.manual_seed(recipe.seed)
    _check(recipe)
    embeddings_VH = load_embeddings(recipe.llm)
    start = None if recipe.start is None else TextToCodec.load(recipe.start).float()
    data: SpokenSentences | SpokenText
    if recipe.data.sentences and recipe.data.units is not None:
        data = SpokenSentences(recipe, recipe.data.units, embeddings_VH)
    else:
        data = SpokenText(recipe, embeddings_VH, start)
    model = start or TextToCodec(_config(recipe, data))
    model.config.past_words = recipe.data.past_words if recipe.data.sentences else 0
    check_fit(model.config)
    if model.config.unit_vocab_size != data.unit_tokenizer.vocab_size:
        raise ConfigError(f"{recipe.start} writes other unit words than {recipe.data.units} holds: train from nothing.")
    first = first_held_out(len(data), recipe.data.held_out, "data.held_out")
    some = some_at_a_time(range(first, len(data)), data.costs[first:], recipe.data.max_cost)

    def collate(items: list[int], rng: np.random.Generator) -> T2CBatch:
        return data.batch(model, items, rng)

    def evaluate() -> dict[str, float]:
        rng = np.random.default_rng(0)
        return mean_loss(model, (collate(items, rng) for items in some), t2c_loss)

    def save(folder: Path) -> None:
        if recipe.start is None or not recipe.keep_start:
            return model.save(folder)
        blended = blend(TextToCodec.load(recipe.start).float(), model, recipe.keep_start)
        blended.config.past_words = model.config.past_words
        blended.save(folder)

    batches = BucketedBatches(data.costs[:first], recipe.data.max_cost, collate, recipe.seed)
    trains = tuple(name for name, _ in model.named_parameters() if not name.startswith("text_embedding."))
    player = Player("t2c", partial(t2c_loss, smoothing=recipe.smoothing), trains, recipe.train.optim)
    return Stage(model, [player], batches, save, evaluate, recipe.train.save_every)


def _check(recipe: Recipe) -> None:
    """Raise ConfigError for settings that contradict each other."""
    data = recipe.data
    if data.sentences and (data.corpora or data.frames):
        raise ConfigError("data.sentences stands in place of data.corpora and data.frames: leave these out.")
    if not data.sentences and not (data.corpora and data.frames):
        raise ConfigError("there is nothing to read: give data.corpora and data.frames, or data.sentences.")
    if data.sentences and data.units is None:
        raise ConfigError("data.sentences needs data.units, the unit language.")
    if "past_words" in recipe.model or (data.phrases and not data.sentences):
        raise ConfigError(
            "a past is learnt from whole sentences: set data.past_words and data.phrases beside data.sentences."
        )


def _unit_tokenizer(recipe: Recipe, start: TextToCodec | None, tokenizer: Any) -> UnitTokenizer | SpelledUnits:
    """Return the tokenizer of unit words; ConfigError unless there is a unit language or a released `start` spells them."""
    released = start is not None and start.config.text_vocab_size > 0
    if recipe.data.units is not None and not released:
        return UnitTokenizer.load(recipe.data.units)
    if start is None or not released or recipe.data.units is not None:
        raise ConfigError("data.units is the unit language: a released `start` has none, all others need one.")
    found = SpelledUnits(tokenizer, start.config.unit_vocab_size, CODEBOOK)
    if len(found.pieces) != found.vocab_size:
        counts = f"{len(found.pieces)} unit tokens, and {recipe.start} has {found.vocab_size}"
        raise ConfigError(f"{recipe.llm} has {counts}: give the LLM that it was trained with.")
    return found


def _config(recipe: Recipe, data: SpokenText | SpokenSentences) -> T2CConfig:
    """Return the sizes of a new T2C for these texts and units."""
    units = data.unit_tokenizer
    assert isinstance(units, UnitTokenizer)  # noqa: S101  what is trained from nothing has a unit language
    sizes = {
        "llm_width": data.embeddings_VH.shape[1],
        "unit_vocab_size": units.vocab_size,
        "bos_token_id": units.bos_token_id,
        "eos_token_id": units.eos_token_id,
        "pad_token_id": units.pad_token_id,
        "words_per_character": round(data.words_per_character, 4),
    }
    return settings_from(T2CConfig, sizes | recipe.model, "model")
