"""Makes the missing inputs of a toy recipe (recipes/debug), so that each of them runs on a fresh clone.

t2c.yaml reads out/debug/units --not there--> units.yaml writes it --reads out/debug/data, not there--> toy data
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from echox.config.load import read_yaml
from echox.config.record import flat
from echox.train.stages import load_recipe, run_recipe

FOLDER, WORLD = Path("recipes/debug"), "out/debug"
RECIPES = (
    "encode units answers vocoder align listen s2t t2c echo teacher voice text_pairs vocabulary translate_text translate "
    "pack_joint units_foreign textless translator encode_assistant normalise"
).split()


def make_missing(recipe: str | Path, overrides: Sequence[str], tell: Callable[[str], None]) -> None:
    """Make the missing inputs of a toy recipe, by other toy recipes and the toy data, and `tell` of each; ignore other recipes."""
    if Path(recipe).parts[-3:-1] != FOLDER.parts:
        return
    load_recipe(recipe, overrides)  # what is wrong with it is said first
    folder = Path(recipe).parent
    for name, path in flat(read_yaml(recipe, list(overrides))):
        if name == "out" or not str(path).startswith(f"{WORLD}/") or os.path.exists(path):
            continue
        maker = _maker(folder, path)
        if maker is None:
            if not os.path.exists(f"{WORLD}/data"):
                from echox.train.toy import write_world

                tell(f"{path} is not there: making the toy data in {WORLD}")
                write_world(Path(WORLD))
            continue
        make_missing(maker, (), tell)
        tell(f"{path} is not there: running {maker}")
        run_recipe(maker)


def _maker(folder: Path, path: str) -> Path | None:
    """Return the toy recipe that writes `path`, or None where it is the toy data's."""
    for name in RECIPES:
        out = str(read_yaml(folder / f"{name}.yaml").get("out"))
        if path == out or path.startswith(f"{out}/"):
            return folder / f"{name}.yaml"
    return None
