"""`echox train`: one stage from its recipe, resumed where it stopped; the stage and the loop stand in echox/train."""

import os
from pathlib import Path
from typing import Annotated

import typer

from echox.commands.options import checked_shard


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, for example recipes/mini/t2c.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value pairs, for example train.steps=10.")] = None,
    shard: Annotated[
        str, typer.Option(callback=checked_shard, help="I/N: this process's part of encode, units, answers or teacher.")
    ] = "",
) -> None:
    """Train a stage. Running the same command again continues from the newest checkpoint under `out`; stopped, it exits with 1.

    Toy recipes (recipes/debug) first make what they need.
    """
    from echox.train.debug import make_missing
    from echox.train.stages import run_recipe

    overrides = [*(overrides or []), *([f"shard={shard}"] if shard else [])]
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        make_missing(recipe, overrides, lambda text: typer.echo(text, err=True))
    typer.echo(run_recipe(recipe, overrides))
