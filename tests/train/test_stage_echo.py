"""Echo training's settings, on the toy world: what is kept, what is made anew, who learns."""

import pytest
import torch

from echox.config.load import load_recipe
from echox.train import stage_echo
from echox.train.checkpoint import trained_state
from echox.train.loop import train
from tests.toy_model import RECIPES, toy_model  # noqa: F401 - a fixture


@pytest.fixture
def stage_of(toy_model, tmp_path, monkeypatch):  # noqa: F811
    """Build the debug echo stage with overrides, in the folder where the toy was made."""
    monkeypatch.chdir(toy_model.parents[2])

    def build(*overrides):
        recipe = load_recipe(RECIPES / "echo.yaml", [f"out={tmp_path / 'echo'}", *overrides])
        return recipe, stage_echo.build(recipe)

    return build


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_a_frozen_llm_says_the_same_in_every_epoch_and_is_asked_once(stage_of):
    recipe, stage = stage_of("online_last_epoch=false", "train.steps=200")
    size = next(step for step in range(1, 200) if stage.batches.batches.epoch_of(step) == 1)
    asked = []
    pairs = stage.batches.targets.pairs
    stage.batches.targets.pairs = lambda data, items, typed: asked.append(len(items)) or pairs(data, items, typed)
    first = [stage.batches[step] for step in range(size)]
    once = sum(asked)
    [stage.batches[step] for step in range(size, 2 * size)]
    assert once > 0 and sum(asked) == once
    stage.batches.kept.clear()
    assert all(same(stage.batches[step].batch.text, first[step].batch.text) for step in range(size))


@pytest.mark.parametrize("override", ["refresh_every=1", "online_last_epoch=true", "train_lora=true"])
def test_answers_are_made_anew_when_asked_for(stage_of, override):
    _, stage = stage_of("online_last_epoch=false", "train.steps=4", override)
    size = next((step for step in range(1, 50) if stage.batches.batches.epoch_of(step) == 1), 50)
    stage.batches.last_epoch = 1
    asked = []
    pairs = stage.batches.targets.pairs
    stage.batches.targets.pairs = lambda data, items, typed: asked.append(len(items)) or pairs(data, items, typed)
    [stage.batches[step] for step in range(size)]
    once = sum(asked)
    [stage.batches[step] for step in range(size, 2 * size)]
    assert sum(asked) == 2 * once > 0


def test_forced_states_are_those_under_the_gold_answer(stage_of):
    _, stage = stage_of("text=forced")
    targets, data = stage.batches.targets, stage.batches.data
    segments = targets.pairs(data, [0], [True])[0]
    said = [token for pair in segments for token in pair.ids]
    forced = targets.forced(data, [0], [True])[0]
    assert said == forced.ids and len(said) <= len(data.answers[0])


@pytest.mark.parametrize("rule", ["sum", "released"])
def test_the_llm_learns_too_when_asked_and_the_teacher_never(stage_of, rule):
    recipe, stage = stage_of("train_lora=true", f"weights={{s2t: 1.0, s2t_rule: {rule}}}", "train.steps=2")
    teacher = {name: value.clone() for name, value in stage.batches.targets.t2c.state_dict().items()}
    names = stage.names()[0]
    before = {name: value.clone() for name, value in trained_state(stage.model, names).items()}
    final = train(stage, recipe.train, recipe.out)
    moved = [name for name, value in trained_state(stage.model, names).items() if not torch.equal(before[name], value)]
    for part in ("echo.", "s2t.model.adapter.", "s2t.model.llm."):
        assert any(name.startswith(part) for name in moved), part
    assert not [name for name in before if name.startswith("s2t.model.llm.") and ".lora_" not in name]
    assert all(torch.equal(value, teacher[name]) for name, value in stage.batches.targets.t2c.state_dict().items())
    assert (final / "config.json").exists() and (final / "s2t" / "config.json").exists()


class Killed:
    """Batches of a run that dies before step 3."""

    def __init__(self, batches):
        self.batches = batches

    def __getitem__(self, step):
        if step == 3:
            raise KeyboardInterrupt
        return self.batches[step]


def test_a_killed_run_ends_with_the_same_weights(stage_of, tmp_path):
    schedule = ("train.steps=5", "train.save_every=2")
    recipe, stage = stage_of(*schedule, f"out={tmp_path / 'whole'}")
    train(stage, recipe.train, recipe.out)
    half, first = stage_of(*schedule, f"out={tmp_path / 'half'}")
    first.batches = Killed(first.batches)
    with pytest.raises(KeyboardInterrupt):
        train(first, half.train, half.out)
    assert not (half.out / "final").exists()
    _, second = stage_of(*schedule, f"out={tmp_path / 'half'}")
    train(second, half.train, half.out)
    resumed = second.model.state_dict()
    for name, value in stage.model.state_dict().items():
        torch.testing.assert_close(resumed[name], value, atol=1e-5, rtol=1e-4, msg=name)
