"""The toy model folder of the debug recipes, made once a test session by running every stage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

STAGES = ("encode", "units", "answers", "vocoder", "teacher", "voice", "align", "s2t", "t2c", "echo", "pack")
RECIPES = Path(__file__).parents[1] / "recipes" / "debug"


def run_stages(root: Path, stages: Sequence[str], **world: Any) -> Path:
    """Make the toy data under `root`, run debug recipes there in order, and return the folder of what they made."""
    from echox.train.run import run_recipe
    from echox.train.toy import write_world

    write_world(root / "out" / "debug", **world)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for stage in stages:
            run_recipe(RECIPES / f"{stage}.yaml")
    return root / "out" / "debug"


def make(root: Path) -> Path:
    """Run every stage under `root` and return the model folder."""
    return run_stages(root, STAGES) / "model"


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that went through every stage."""
    return make(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def listening_model(toy_model: Path) -> Path:
    """The same parts with a listener for an ear, the LLM as it is, an untrained echo decoder, and int8 on disk."""
    from echox.train.run import run_recipe

    overrides = ["out=out/debug/listening", "listener=out/debug/listen/final", "s2t=null", "echo=null", "int8=true"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(toy_model.parents[2])
        run_recipe(RECIPES / "listen.yaml")
        run_recipe(RECIPES / "pack.yaml", [*overrides, "encoder=out/debug/whisper"])
    return toy_model.parent / "listening"
