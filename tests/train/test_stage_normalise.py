"""Stage normalise at toy size: it learns the units of the reference voice, and `echox units normalise` writes them."""

import json

import pytest
import torch
from typer.testing import CliRunner

from echox.audio import save_wav
from echox.cli import app
from echox.errors import ConfigError
from echox.train.stage_normalise import build, distances
from echox.train.stages import load_recipe
from echox.train.toy import sound_of
from tests.toy_model import RECIPES, run_stages


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return run_stages(tmp_path_factory.mktemp("normalise"), ("units", "encode_assistant", "normalise"), repeats=3)


@pytest.fixture
def world(made, monkeypatch):
    monkeypatch.chdir(made.parents[1])
    return made


def test_it_learns_the_units_it_is_given(world):
    stage = build(load_recipe(RECIPES / "normalise.yaml", ["model.dropout=0.0"]))
    (player,), model = stage.players, stage.model.normaliser
    first = stage.evaluate()
    assert player.loss(stage.model(stage.batches[0]), 0).count == len(stage.batches[0].units)  # a mean over utterances
    assert "unit_distance_before" not in first  # here the voices are one and the same
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(60):
        loss = player.loss(stage.model(stage.batches[step]), step)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert stage.evaluate()["unit_distance"] < min(0.9, first["unit_distance"])


def test_the_distance_before_is_that_of_the_other_voice(world):
    from echox.data.textless import read_sides

    recipe = load_recipe(RECIPES / "normalise.yaml")
    pairs = read_sides(recipe.data.dev)
    for pair in pairs:
        pair.source_units = pair.source_units[:-1]
    found = distances(build(recipe).model.normaliser, pairs, 600)
    assert found["unit_distance_before"] == pytest.approx(len(pairs) / sum(len(pair.target_units) for pair in pairs))


def test_without_states_it_says_what_is_missing(world):
    with pytest.raises(ConfigError, match=r"give data\.train\.states"):
        build(load_recipe(RECIPES / "normalise.yaml", ["data.train.states=[]", "data.dev.states=[]"]))


def test_the_command_writes_units(world, tmp_path):
    save_wav(tmp_path / "a.wav", sound_of("paris is big"), 16_000)
    words = [
        "units",
        "normalise",
        str(tmp_path / "a.wav"),
        "--encoder",
        str(world / "encoder"),
        "-o",
        str(tmp_path / "u.jsonl"),
    ]
    done = CliRunner().invoke(app, [*words, "--normaliser", str(world / "normalise" / "final")], catch_exceptions=False)
    assert done.exit_code == 0
    (row,) = [json.loads(line) for line in (tmp_path / "u.jsonl").read_text().splitlines()]
    assert all(a != b for a, b in zip(row["units"], row["units"][1:], strict=False))
