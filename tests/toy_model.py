"""The toy model folder of the debug recipes, made once a test session by running every stage."""

from pathlib import Path

import pytest

STAGES = ("encode", "units", "answers", "vocoder", "teacher", "voice", "align", "s2t", "t2c", "echo", "pack")
RECIPES = Path(__file__).parents[1] / "recipes" / "debug"


def make(root: Path) -> Path:
    """Run every stage under `root` and return the model folder."""
    from echox.train.run import run_recipe
    from echox.train.toy import write_world

    write_world(root / "out" / "debug")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for stage in STAGES:
            run_recipe(RECIPES / f"{stage}.yaml")
    return root / "out" / "debug" / "model"


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
