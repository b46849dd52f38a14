"""A recipe file to its result: the one way every stage is run, from the command line and from scripts."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from echox.errors import ConfigError
from echox.train.stages import load_recipe, stage_module


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
