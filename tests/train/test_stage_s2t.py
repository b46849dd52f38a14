"""The S2T stage on the toy world: adapters learn in float32 on an LLM in bfloat16, frozen weights stay out of checkpoints."""

from pathlib import Path

import pytest
import torch

from echox.errors import ConfigError, ModelError
from echox.train import stage_align, stage_s2t
from echox.train.loop import Run, train, train_step
from echox.train.stages import load_recipe, run_recipe
from tests.toy_model import RECIPES, toy_model  # noqa: F401 - a fixture


@pytest.fixture
def built(toy_model, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(toy_model.parents[2])

    def build(*overrides):
        recipe = load_recipe(RECIPES / "s2t.yaml", [f"out={tmp_path / 's2t'}", *overrides])
        return recipe, stage_s2t.build(recipe)

    return build


def test_a_small_step_moves_the_adapters_of_an_llm_in_bfloat16(built):
    recipe, stage = built(
        "llm_dtype=bfloat16", "train.precision=bf16", "train.optim.lr=2.5e-5", "train.optim.warmup_steps=1"
    )
    run = Run(stage, recipe.train)
    matrices = {name: value for name, value in run.parameters.items() if "lora_A" in name}
    with torch.no_grad():
        for value in matrices.values():
            value.fill_(0.04)  # in bfloat16 such a step on such a weight rounds to none
    for step in range(3):
        train_step(run, step)
    kinds = {run.parameters[name].dtype for name in run.trained}
    moments = {v.dtype for held in run.state(3)["moments"].values() for v in held.values()}
    assert kinds == {torch.float32} and moments == {torch.float32}
    assert all((value != 0.04).any() for value in matrices.values())
    assert next(iter(stage.model.model.llm.get_input_embeddings().parameters())).dtype == torch.bfloat16


def test_a_checkpoint_holds_what_moves_and_not_the_llm(built, tmp_path):
    recipe, stage = built()
    assert stage.model.model.llm.config.tie_word_embeddings
    train(stage, recipe.train, recipe.out)
    state = torch.load(recipe.out / "step-4" / "state.pt")["model"]
    foreign = [name for name in state if ".llm." in name and ".lora_" not in name]
    assert not foreign and any(".lora_A." in name for name in state) and any(".adapter." in name for name in state)


def test_the_llm_is_loaded_once(built, monkeypatch, tmp_path):
    loaded, load_llm = [], stage_s2t.load_llm
    monkeypatch.setattr(stage_s2t, "load_llm", lambda *given: loaded.append(given) or load_llm(*given))
    _, stage = built()
    stage.save(tmp_path / "part")
    assert len(loaded) == 1 and (tmp_path / "part" / "model.safetensors").is_file()


def test_aligning_takes_the_table_of_the_llm_and_no_more(built):
    model = stage_align.build(load_recipe(RECIPES / "align.yaml")).model.model
    assert [name for name, _ in model.llm.named_parameters()] == ["table.weight"]


@pytest.mark.parametrize(("stage", "setting"), [("t2c", "model"), ("align", "adapter")])
def test_heads_that_do_not_divide_the_width_are_one_sentence(built, stage, setting):
    with pytest.raises(ModelError, match=r"^[^\n]*5 heads \([^\n]*\) do not divide the width 32\.$"):
        run_recipe(RECIPES / f"{stage}.yaml", [f"{setting}.heads=5", f"out=out/debug/five/{stage}"])
    assert not Path(f"out/debug/five/{stage}").exists()


def test_typed_questions_alone_are_refused(built):
    with pytest.raises(ConfigError, match=r"data\.corpora is empty"):
        built("data.corpora=[]", "data.states=[]")


def test_hearing_stays_as_it_was_aligned_when_asked(built):
    _, stage = built("train_hearing=false", "ctc_weight=0.0")
    names = [name for name in stage.names()[0] if "adapter" in name]
    assert names and not any(part in name for name in names for part in ("linear", "transformer", "blank", "ctc_"))


def test_a_model_is_not_packed_with_another_layer_than_it_learnt_from(built):
    with pytest.raises(ModelError, match="learnt from layer"):
        run_recipe(RECIPES / "pack.yaml", ["out=out/debug/packed", "encoder_layer=1"])
    assert not Path("out/debug/packed").exists()
