"""Textless translation (spec A3): spoken pairs with their units in, a translator part out, its guides left behind.

Two stages are one recipe run twice: the multi-task model first, then the same with `start` and `model.prompts` (A3.4). Dev pairs
are measured by loss and unit BLEU, and the mean of the weights that are best by one of them is what is written.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from echox.config.load import Rate, Settings, known
from echox.data.batching import BucketedBatches, in_runs, some_at_a_time
from echox.data.textless import Encode, Pair, Sides, Tasks, read_sides
from echox.errors import ConfigError
from echox.generate.beam import Search
from echox.generate.textless import translate_features
from echox.models.io import settings_from
from echox.models.speech_to_units import MAIN, PRESETS, Guide, Guided, SpeechToUnits, SpeechToUnitsConfig
from echox.objectives.textless import Apart, Conflict, TextlessObjective, Weights
from echox.text.bleu import unit_bleu
from echox.text.subwords import Subwords
from echox.train.best import Best, Selection
from echox.train.evaluate import mean_loss, still
from echox.train.loop import Player, Stage, TrainingRecipe
from echox.units.arms import RandomWords
from echox.units.estimate import LexiconConfig
from echox.units.extractor import check_belong
from echox.units.tokenizer import SPECIAL_TOKENS, UnitTokenizer

PROMPTS = "prompts_PD"  # of a translator: they may be new where its other weights go on


class Task(Settings):
    """One guide: what it writes of which side, and the encoder layer it reads."""

    reads: PositiveInt  # encoder layer
    side: Literal["source", "target"]
    writes: Literal["units", "words", "text"]
    language: Path | None = None  # unit language of that side; for units: how many there are
    cut: Literal["language", "bpe", "random"] = "language"  # random: words as long, cut anywhere (control)
    subwords: PositiveInt = 1000  # for text
    weight: NonNegativeFloat = 8.0  # 8: the paper's; 0.5: the published code's
    smoothing: Rate = 0.2
    layers: PositiveInt = 2
    dropout: Rate = 0.3


class Prompts(Settings):
    """How strongly the prompts are kept apart, and by which measure; `distance` is the published, unbounded one."""

    weight: NonNegativeFloat = 0.0
    apart: Apart = "cosine"


class UnitSelection(Selection):
    """Which dev number chooses the weights that are averaged."""

    by: Literal["unit_bleu", "loss"] = "unit_bleu"


class TextlessData(Settings):
    """Pairs to train on and dev pairs to select by; no sentence or voice of dev may be in train."""

    train: Sides
    dev: Sides
    language: Path  # the target's unit language, statistics of training alone
    max_cost: PositiveInt = 20_000  # frames in a batch, padding included
    max_frames: PositiveInt = 2000
    max_tokens: int = Field(default=1000, ge=2)
    dev_pairs: PositiveInt = 200  # so many are translated
    augment: tuple[NonNegativeInt, NonNegativeInt] | None = (27, 100)  # SpecAugment: mel bins, frames


class Recipe(TrainingRecipe):
    """Recipe of stage `textless`."""

    stage: Literal["textless"]
    data: TextlessData
    preset: Literal["base", "small"] = "base"
    model: Annotated[dict[str, Any], known(SpeechToUnitsConfig)] = {}
    start: Path | None = None  # a trained translator part; only the prompts may be new
    tasks: dict[str, Task] = {}
    uses: tuple[str, ...] | None = None  # which of the tasks guide this run; none: all
    smoothing: Rate = 0.2  # of the main task
    per: Literal["main", "own"] = "main"  # whose tokens a task's sum is divided by
    prompts: Prompts = Prompts()
    conflict: Conflict | None = None
    best: UnitSelection = UnitSelection()
    evaluate_every: PositiveInt = 500


def build(recipe: Recipe) -> Stage:
    """Return the stage; units of all pairs are read once into memory, sound when it is used."""
    torch.manual_seed(recipe.seed)
    language = UnitTokenizer.load(recipe.data.language)
    check_belong(recipe.data.language, language.units, [recipe.data.train.frames, recipe.data.dev.frames])
    sides = read_sides(recipe.data.train), read_sides(recipe.data.dev)
    tasks = chosen_tasks(recipe)
    writers = {name: writer_of(task, name, sides[0]) for name, task in tasks.items()}
    translator = _translator(recipe, language, sides[0][0])
    guides = {name: Guide(task.reads, writers[name][1], task.layers, task.dropout) for name, task in tasks.items()}
    model = Guided(translator, guides)
    train, dev = (_tasks(recipe, translator.config, language, pairs, writers) for pairs in sides)
    if not train.pairs or not dev.pairs:
        raise ConfigError("no pair is within data.max_frames and data.max_tokens: raise them.")
    weights = Weights(
        {name: task.weight for name, task in tasks.items()},
        {name: task.smoothing for name, task in tasks.items()} | {MAIN: recipe.smoothing},
        recipe.per,
        recipe.prompts.weight,
        recipe.prompts.apart,
    )
    if recipe.conflict and (last := max(recipe.conflict.layers)) > len(translator.layers):
        raise ConfigError(f"conflict.layers has {last}, the encoder {len(translator.layers)} layers: lower it.")
    objective, best = TextlessObjective(model, weights, recipe.conflict), Best(recipe.out, recipe.best, translator)

    def evaluate() -> dict[str, float]:
        numbers = measure(model, dev, objective, recipe, language)
        best.offer(numbers)
        return numbers

    def save(folder: Path) -> None:
        best.take_mean()
        translator.save(folder)

    batches = BucketedBatches(train.costs, recipe.data.max_cost, train.batch, recipe.seed)
    player = Player("textless", objective, ("*",), recipe.train.optim)
    return Stage(model, [player], batches, save, evaluate, recipe.evaluate_every, evaluates_parts=True)


def chosen_tasks(recipe: Recipe) -> dict[str, Task]:
    """Return the tasks that guide this run, by name; ConfigError for one that the recipe does not have."""
    names = tuple(recipe.tasks) if recipe.uses is None else recipe.uses
    for name in names:
        if name not in recipe.tasks:
            raise ConfigError(f"uses names the task {name}: choose from {', '.join(recipe.tasks) or 'none'}.")
    return {name: recipe.tasks[name] for name in names}


def writer_of(task: Task, name: str, pairs: Sequence[Pair]) -> tuple[Encode, int]:
    """Return the tokenizer of a guide and its vocabulary size, made from training pairs alone."""
    if task.writes == "text":
        subwords = Subwords([pair.text(task.side) for pair in pairs], task.subwords)
        return lambda some: subwords.encode_batch([pair.text(task.side) for pair in some]), subwords.vocab_size
    if task.language is None:
        raise ConfigError(f"tasks.{name} writes {task.writes}: name the unit language of that side (language).")
    language, where = UnitTokenizer.load(task.language), task.language

    def units(some: Sequence[Pair]) -> list[np.ndarray]:
        return units_of(some, task.side, language.units, f"tasks.{name}", where)

    if task.writes == "units":
        return lambda some: as_tokens(units(some)), language.units + len(SPECIAL_TOKENS)
    cut = segmentation(task.cut, language, units(pairs))
    return lambda some: [row.tolist() for row in cut.encode_batch(units(some))], cut.vocab_size


def as_tokens(units: Sequence[np.ndarray]) -> list[list[int]]:
    """Return units as the tokens of a vocabulary of single units."""
    return [(row + len(SPECIAL_TOKENS)).tolist() for row in units]


def segmentation(cut: str, language: UnitTokenizer, sequences: list[np.ndarray]) -> UnitTokenizer | RandomWords:
    """Return the unit language, or byte pairs or random words of the same sequences with at most as many words."""
    if cut == "random":
        return RandomWords(language, sequences)
    if cut == "bpe":
        config = LexiconConfig(units=language.units, vocabulary_size=len(language.lexicon))
        return UnitTokenizer.train(sequences, config, "bpe")
    return language


def units_of(pairs: Sequence[Pair], side: str, units: int, name: str, language: Path) -> list[np.ndarray]:
    """Return the units of one side; ConfigError, naming the task, where they are missing or not in `language`."""
    found = [pair.source_units if side == "source" else pair.target_units for pair in pairs]
    rows = [row for row in found if row is not None]
    if len(rows) < len(found):
        raise ConfigError(f"{name} writes source units: give data.train.source_frames and data.dev.source_frames.")
    if any(row.max(initial=0) >= units for row in rows):
        raise ConfigError(f"{name} meets units outside 0 to {units - 1}: encode that side by {language}.")
    return rows


def _translator(recipe: Recipe, language: UnitTokenizer, pair: Pair) -> SpeechToUnits:
    """Return a new translator, or `start`, with new prompts where the recipe asks for them."""
    made = PRESETS[recipe.preset] | recipe.model
    says = made.get("says", "units")
    sizes = {
        "vocabulary": language.vocab_size if says == "words" else language.units + len(SPECIAL_TOKENS),
        "bos_token_id": language.bos_token_id,
        "eos_token_id": language.eos_token_id,
        "pad_token_id": language.pad_token_id,
    }
    if pair.states_TD is not None:
        sizes |= {"input": "states", "input_width": pair.states_TD.shape[1]}
    model = SpeechToUnits(settings_from(SpeechToUnitsConfig, sizes | made, "model"))
    if recipe.start is not None:
        state, own = SpeechToUnits.load(recipe.start).float().state_dict(), model.state_dict()
        shapes, wanted = ({name: value.shape for name, value in one.items()} for one in (state, own))
        differ = {name for name in shapes | wanted if shapes.get(name) != wanted.get(name)}
        if others := differ - {PROMPTS}:
            raise ConfigError(f"{recipe.start} has other sizes than the recipe ({min(others)} differs): give its own.")
        kept = {name: value for name, value in state.items() if name not in differ}
        model.load_state_dict(kept, strict=False)
    return model


def _tasks(
    recipe: Recipe,
    config: SpeechToUnitsConfig,
    language: UnitTokenizer,
    pairs: list[Pair],
    writers: dict[str, tuple[Encode, int]],
) -> Tasks:
    def main(some: list[Pair]) -> list[list[int]]:
        rows = units_of(some, "target", language.units, "the main task", recipe.data.language)
        return [row.tolist() for row in language.encode_batch(rows)] if config.says == "words" else as_tokens(rows)

    encoders: dict[str, Encode] = {MAIN: main} | {name: encode for name, (encode, _) in writers.items()}
    mels, augment = config.input_width, recipe.data.augment if config.input == "filterbank" else None
    ends, longest = (language.bos_token_id, language.eos_token_id), (recipe.data.max_frames, recipe.data.max_tokens)
    return Tasks.of(pairs, encoders, ends, longest, mels=mels, augment=augment)


def measure(
    model: Guided, dev: Tasks, objective: TextlessObjective, recipe: Recipe, language: UnitTokenizer
) -> dict[str, float]:
    """Return the mean losses of the dev pairs and the unit BLEU of the first so many, translated."""
    some = some_at_a_time(range(len(dev.pairs)), dev.costs, recipe.data.max_cost)
    numbers = mean_loss(model, (dev.batch(items, None) for items in some), objective)
    said = translated(model.translator, dev, recipe, language)
    return numbers | {"unit_bleu": unit_bleu(said, [pair.target_units.tolist() for pair in dev.pairs[: len(said)]])}


def translated(translator: SpeechToUnits, dev: Tasks, recipe: Recipe, language: UnitTokenizer) -> list[list[int]]:
    """Return the units that the translator says for the first dev pairs."""
    ends, most = (language.bos_token_id, language.eos_token_id), recipe.data.max_tokens
    search = Search(*ends, beams=1, max_tokens=most, never=(language.pad_token_id,))

    def translate(items: list[int]) -> list[list[int]]:
        features = [dev.pairs[i].features(dev.mels) for i in items]
        limits = [2 * len(dev.tokens[MAIN][i]) + 10 for i in items]
        return [language.decode(one.tokens) for one in translate_features(translator, features, search, limits)]

    with still(translator):
        return in_runs(dev.costs[: recipe.data.dev_pairs], recipe.data.max_cost, translate)
