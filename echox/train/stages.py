"""The table of stages, by name the module that holds its settings and builds it, and how a recipe is run.

A stage module offers `Recipe` (a Settings class that holds `stage` and `out`) and one of
`build(recipe) -> Stage` (trained by echox/train/loop.py) or `run(recipe) -> Path` (files to files).
"""

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from echox.config.load import Settings, read_yaml
from echox.errors import ConfigError

STAGES = {
    "encode": "echox.prepare.encode",  # corpora -> encoder states
    "triples": "echox.prepare.triples",  # MuST-C and CoVoST as published -> corpora with transcripts and translations
    "text_pairs": "echox.prepare.text_pairs",  # text pairs of two languages -> train, dev, test, and what is spoken
    "answers": "echox.prepare.answers",  # typed questions -> the text model's own answers, and what to learn
    "units": "echox.train.stage_units",  # audio -> k-means units and the unit language
    "vocoder": "echox.train.stage_vocoder",  # units -> waveform
    "teacher": "echox.train.stage_teacher",  # texts -> what a TTS's decoder is given, and units
    "voice": "echox.train.stage_voice",  # units -> those latents -> the TTS's own decoder
    "align": "echox.train.stage_align",  # stage I, first half: CTC alignment of the adapter
    "listen": "echox.train.stage_listen",  # hearing by attention: Whisper's decoder on short windows and long ones
    "s2t": "echox.train.stage_s2t",  # stage I, second half: speech to text with LoRA
    "t2c": "echox.train.stage_t2c",  # stage II: text to unit words
    "echo": "echox.train.stage_echo",  # stage III: hidden states to unit words
    "vocabulary": "echox.prepare.vocabulary",  # text pairs -> one vocabulary of both languages
    "translate": "echox.train.stage_translate",  # text pairs -> a text model; that and speech -> one model of three tasks
    "normalise": "echox.train.stage_normalise",  # states of many voices: the reduced units of one
    "textless": "echox.train.stage_textless",  # spoken pairs and their units: speech to units of the other language
    "pack_translator": "echox.train.pack_translator",  # its parts -> one model folder
    "pack_joint": "echox.train.pack_joint",  # that model and its encoder -> one model folder
    "pack": "echox.train.pack",  # parts -> one model folder
}


def stage_module(name: Any, source: str) -> ModuleType:
    """Return the module of stage `name`; ConfigError lists the stages that exist."""
    if name == "data":
        raise ConfigError(f"{source} is a data recipe: run `echox prepare texts` and `echox prepare speak` with it.")
    if not isinstance(name, str) or name not in STAGES:
        raise ConfigError(f"{source}: unknown stage {name!r}: choose from {', '.join(STAGES)}.")
    return import_module(STAGES[name])


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Return the typed settings of the recipe's stage; ConfigError on any unknown stage, key or value, or a file as `out`."""
    values = read_yaml(path, tuple(overrides))
    recipe: Any = stage_module(values.get("stage"), str(path)).Recipe.parse(values, str(path))
    for place in (recipe.out, *recipe.out.parents):
        if os.path.exists(place) and not os.path.isdir(place):  # unlike those of Path, no long name ends them
            raise ConfigError(f"{path}: out is {recipe.out}, and {place} is a file: give a folder.")
    return recipe


def run_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Run the stage of a recipe and return the folder it wrote; ConfigError when the recipe is wrong.

    A stage that trains (`build`) resumes from its newest checkpoint; one that turns files into files (`run`) goes on with the
    files that are missing.
    """
    recipe: Any = load_recipe(path, list(overrides))
    module = stage_module(recipe.stage, str(path))
    if hasattr(module, "run"):
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(f"stage {recipe.stage} runs in one process: start several with shard=0/2 and shard=1/2.")
        return module.run(recipe)
    from echox.train.loop import train
    from echox.train.ranks import joined

    with joined():
        return train(module.build(recipe), recipe.train, recipe.out, recipe.seed, recipe)
