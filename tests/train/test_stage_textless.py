"""Stage textless at toy size: it learns, selects, packs into a folder that translates; bad data are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from echox.data.textless import read_sides
from echox.errors import ConfigError, InputError
from echox.generate.beam import Hypothesis
from echox.models.speech_to_units import SpeechToUnits
from echox.train import stage_textless
from echox.train.best import Best, Selection
from echox.train.stage_textless import build
from echox.train.stages import load_recipe, run_recipe
from echox.train.toy import sound_of
from tests.toy_model import RECIPES, run_stages


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return run_stages(
        tmp_path_factory.mktemp("textless"), ("units", "units_foreign", "vocoder", "textless", "translator"), repeats=3
    )


@pytest.fixture
def world(made, monkeypatch):
    monkeypatch.chdir(made.parents[1])
    return made


def test_the_packed_folder_translates(world):
    from echox.translator import SpeechTranslator

    reply = SpeechTranslator.load(str(world / "translator"), dtype="float32").translate(sound_of("france of capital"))
    assert reply.sample_rate == 16_000 and reply.finish in ("stop", "length", "empty")
    assert json.loads((world / "translator" / "config.json").read_text())["kind"] == "textless"
    kept = sorted(path.name for path in (world / "translator").iterdir() if not path.name.startswith("."))
    assert kept == ["config.json", "translator", "units", "vocoder"]
    assert (world / "translator" / "units" / "centroids.safetensors").is_file()


def test_what_is_logged_and_kept(world):
    rows = [json.loads(line) for line in (world / "textless" / "metrics.jsonl").read_text().splitlines()]
    assert {"source_units", "source_words", "target_words", "main", "prompts", "gradient_cosine"} <= set(rows[0])
    assert "eval/unit_bleu" in rows[-1] and "gradient_cosine" not in rows[1]
    kept = Best(world / "textless", Selection(by="unit_bleu", keep=2), torch.nn.Linear(1, 1))
    assert 1 <= len(kept.scores()) <= 2


def test_training_learns_its_pairs(world):
    stage = build(load_recipe(RECIPES / "textless.yaml", ["model.dropout=0.0", "model.prompts=[]", "prompts.weight=0"]))
    (player,) = stage.players
    optimizer = torch.optim.Adam(stage.model.parameters(), lr=5e-3)
    losses = []
    for step in range(40):
        loss = player.loss(stage.model(stage.batches[0]), step)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(float(loss.parts["main"]))
    assert losses[-1] < 0.7 * losses[0]


def test_a_second_stage_begins_where_the_first_one_ended_with_new_prompts(world):
    run_recipe(RECIPES / "textless.yaml", ["out=out/debug/textless_plain", "model.prompts=[]", "prompts.weight=0"])
    stage = build(load_recipe(RECIPES / "textless.yaml", ["start=out/debug/textless_plain/final"]))
    first = SpeechToUnits.load(world / "textless_plain" / "final").float().state_dict()
    second = stage.model.translator.state_dict()
    assert set(second) - set(first) == {"prompts_PD"}
    assert all(torch.equal(second[name], value) for name, value in first.items())
    with pytest.raises(ConfigError, match="other sizes"):
        build(load_recipe(RECIPES / "textless.yaml", ["start=out/debug/textless_plain/final", "model.width=32"]))


@pytest.mark.parametrize(
    "change",
    [
        ["model.says=words"],
        ["tasks.target_words.cut=random", "per=own"],
        ["tasks.target_words.cut=bpe", "uses=[target_words]", "conflict=null"],
        ["uses=[]"],
        ["tasks.target_words.writes=text", "tasks.source_words.writes=text", "tasks.target_words.subwords=270"],
        ["prompts.apart=distance", "model.prompt_style=released"],
        ["model.prompts_alike=true", "prompts.weight=0"],
    ],
)
def test_every_arm_takes_a_step(world, change):
    stage = build(load_recipe(RECIPES / "textless.yaml", change))
    loss = stage.players[0].loss(stage.model(stage.batches[0]), 1)
    loss.total.backward()
    assert torch.isfinite(loss.total)


def test_a_frozen_encoders_states_are_an_arm(world):
    run_recipe(RECIPES / "encode.yaml", ["corpora=[out/debug/data/foreign]", "out=out/debug/states_foreign"])
    states = [
        "data.train.states=[out/debug/states_foreign/foreign]",
        "data.dev.states=[out/debug/states_foreign/foreign]",
    ]
    stage = build(load_recipe(RECIPES / "textless.yaml", states))
    assert stage.model.translator.config.input == "states" and stage.model.translator.config.input_width == 16
    assert torch.isfinite(stage.players[0].loss(stage.model(stage.batches[0]), 1).total)


def test_unequal_sides_are_refused(world, tmp_path):
    recipe = load_recipe(RECIPES / "textless.yaml")
    sides = recipe.data.train
    with pytest.raises(ConfigError, match="source_frames names 1 folders for 2"):
        read_sides(sides.model_copy(update={"sources": [*sides.sources, *sides.sources]}))
    with pytest.raises(InputError, match="have no target"):
        read_sides(sides.model_copy(update={"sources": [Path("out/debug/data/user")], "source_frames": []}))


def test_a_unit_outside_the_codebook_and_a_missing_language_are_refused(world):
    with pytest.raises(ConfigError, match="name the unit language"):
        build(load_recipe(RECIPES / "textless.yaml", ["tasks.source_words.language=null"]))
    with pytest.raises(ConfigError, match="of out/debug/units, out/debug/units_foreign is a language of 16 others"):
        build(load_recipe(RECIPES / "textless.yaml", ["data.language=out/debug/units_foreign"]))
    with pytest.raises(ConfigError, match="uses names the task nonsense"):
        build(load_recipe(RECIPES / "textless.yaml", ["uses=[nonsense]"]))
    with pytest.raises(ConfigError, match=r"give data\.train\.source_frames"):
        build(load_recipe(RECIPES / "textless.yaml", ["data.train.source_frames=[]"]))


def test_units_that_a_task_does_not_know_are_refused(world):
    recipe = load_recipe(RECIPES / "textless.yaml")
    pairs = read_sides(recipe.data.train)
    pairs[-1].source_units = np.array([3, 999])
    for name in ("source_units", "source_words"):
        with pytest.raises(ConfigError, match=f"tasks.{name} meets units outside 0 to"):
            stage_textless.writer_of(recipe.tasks[name], name, pairs)[0](pairs)


def test_dev_translations_may_be_as_long_as_targets(world, monkeypatch):
    seen = []

    def say(model, features, search, limits):
        seen.append(search.max_tokens)
        return [Hypothesis([], 0.0) for _ in features]

    monkeypatch.setattr(stage_textless, "translate_features", say)
    build(load_recipe(RECIPES / "textless.yaml", ["data.max_tokens=2500", "out=out/debug/long"])).evaluate()
    assert set(seen) == {2500}


@pytest.mark.parametrize(("prompts", "kept"), [("[2,3]", True), ("[2]", False)])
def test_a_start_keeps_its_prompts_unless_there_are_others_now(world, prompts, kept):
    overrides = ["start=out/debug/textless/final", f"model.prompts={prompts}"]
    made = build(load_recipe(RECIPES / "textless.yaml", overrides)).model.translator
    start = SpeechToUnits.load(world / "textless" / "final")
    assert torch.equal(made.layers[0].ffn_norm.weight, start.layers[0].ffn_norm.weight)
    assert torch.equal(made.prompts_PD[:1], start.prompts_PD[:1]) == kept
