"""A toy recipe on a fresh clone makes what it reads, and nothing twice; other recipes are left alone."""

from pathlib import Path

import pytest

from echox.errors import ConfigError
from echox.train import debug, toy

DEBUG = Path(__file__).parents[2] / "recipes" / "debug"


def test_what_a_toy_recipe_reads_is_made_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, told = [], []

    def run(path):
        made.append(path.stem)
        for place in (f"out/debug/{path.stem}", "out/debug/units/frames/assistant"):
            Path(place).mkdir(parents=True, exist_ok=True)

    def world(root):
        made.append("world")
        for place in ("data/assistant", "data/user", "llm", "encoder", "whisper"):
            (root / place).mkdir(parents=True)

    monkeypatch.setattr(debug, "run_recipe", run)
    monkeypatch.setattr(toy, "write_world", world)
    debug.make_missing(DEBUG / "t2c.yaml", (), told.append)
    assert made == ["world", "units"] and len(told) == 2
    debug.make_missing(DEBUG / "t2c.yaml", (), told.append)
    debug.make_missing(DEBUG.parent / "mini" / "t2c.yaml", (), told.append)
    assert len(told) == 2


def test_what_is_wrong_with_a_toy_recipe_is_said_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="train.stps"):
        debug.make_missing(DEBUG / "t2c.yaml", ["train.stps=2"], print)
    assert not any(tmp_path.iterdir())
