"""Text pairs to a text model to a model of three tasks, at toy size; what does not fit is refused."""

import pytest
import torch
from safetensors.torch import load_file

from echox.data.manifest import read_jsonl, write_manifest
from echox.errors import ConfigError, InputError
from echox.models.hearing import Hearing
from echox.models.speech_translator import SpeechTranslatorModel
from echox.text.pieces import Pieces
from echox.train.checkpoint import mean_of
from echox.train.loop import Run, TrainSettings, train_step
from echox.train.stage_translate import TextSelection, build, measure_bleu
from echox.train.stages import load_recipe, run_recipe
from echox.train.toy import sound_of
from tests.toy_model import RECIPES, run_stages

STAGES = ("encode", "text_pairs", "vocabulary", "translate_text", "translate")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return run_stages(tmp_path_factory.mktemp("translate"), STAGES)


@pytest.fixture
def world(made, monkeypatch):
    monkeypatch.chdir(made.parents[1])
    return made


def test_every_stage_writes_a_model_that_loads(world):
    text = SpeechTranslatorModel.load(world / "translate_text" / "final")
    joint = SpeechTranslatorModel.load(world / "translate" / "final")
    assert text.speech is None and joint.speech is not None and joint.config.encoder_width == 16
    assert (world / "translate" / "final" / "vocabulary.model").is_file()


def test_the_joint_stage_begins_with_the_text_model(world):
    stage = build(load_recipe(RECIPES / "translate.yaml"))
    text = SpeechTranslatorModel.load(world / "translate_text" / "final")
    for name, value in text.text.state_dict().items():
        torch.testing.assert_close(stage.model.model.text.state_dict()[name], value)
    assert [player.name for player in stage.players] == ["discriminator", "model"]
    assert not set(stage.names()[0]) & set(stage.names()[1])


@pytest.mark.parametrize("start", ["translate_text", "translate"])
def test_speech_that_is_read_as_text_for_the_first_time_begins_with_the_norm_of_text(world, start):
    overrides = ["model.runs=tokens", f"start=out/debug/{start}/final"]
    model = build(load_recipe(RECIPES / "translate.yaml", overrides)).model.model
    norm = model.text.model.encoder.layer_norm
    assert torch.equal(model.speech.last_norm.weight, norm.weight) and (norm.weight != 1).any()


def test_the_joint_stage_learns_its_three_tasks(world):
    overrides = ["schedule.encoders_from=0", "schedule.shrink_from=0", "schedule.translate_from=0", "data.pairs=[]",
                 "schedule.recognise_until=null", "weights.masks=0"]  # fmt: skip
    stage = build(load_recipe(RECIPES / "translate.yaml", overrides))
    optimizer = torch.optim.AdamW(stage.model.parameters(), lr=5e-3)
    first, last = {}, {}
    for step in range(50):
        loss = stage.players[-1].loss(stage.model(stage.batches[step], step), step)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        last = loss.numbers()
        first = first or last
    assert all(last[name] < 0.8 * first[name] for name in ("mt", "st", "ctc"))


def test_the_schedule_goes_by_steps_however_many_batches_one_takes(world):
    """A run that goes on in another number of processes has taken other batches than its steps would."""
    stage = build(load_recipe(RECIPES / "translate.yaml", ["schedule.translate_from=7"]))
    run = Run(stage, TrainSettings(steps=9, precision="fp32"))
    run.batches = 100
    assert "model/st" not in train_step(run, 6)
    run.batches = 0
    assert "model/st" in train_step(run, 7)


def test_weights_are_chosen_by_bleu_of_held_out_text_and_speech(world):
    rows = read_jsonl(world / "translate" / "metrics.jsonl")
    assert "eval/mt_bleu" in rows[-1] and "eval/st_bleu" not in rows[-1] and "eval/loss" in rows[-1]
    kept = sorted((world / "translate" / "best").glob("*/model.safetensors"))
    assert 1 <= len(kept) <= 2
    spoken = ["data.held_out=[out/debug/data/user]", "data.held_out_states=[out/debug/states/user]"]
    stage = build(load_recipe(RECIPES / "translate.yaml", [*spoken, "out=out/debug/chosen", "best.beams=2"]))
    numbers = stage.evaluate()
    assert numbers["bleu"] == numbers["st_bleu"] and {"mt_bleu", "token_error", "loss"} <= set(numbers)
    assert stage.model.training


def test_what_is_written_is_the_mean_of_the_best(world):
    mean = mean_of([load_file(path) for path in (world / "translate" / "best").glob("*/model.safetensors")])
    written = SpeechTranslatorModel.load(world / "translate" / "final").state_dict()
    assert all(torch.equal(written[name.removeprefix("model.")], value.half().float()) for name, value in mean.items())


def test_text_that_is_known_by_heart_scores_100(world):
    stage = build(load_recipe(RECIPES / "translate_text.yaml", ["model.dropout=0", "out=out/debug/heart"]))
    joint, pieces = stage.model, Pieces.load(world / "vocabulary")
    row = stage.batches[0][0]
    optimizer = torch.optim.AdamW(joint.parameters(), lr=5e-3)
    for step in range(60):
        loss = stage.players[-1].loss(joint([row], step), step)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert measure_bleu(joint, [row], pieces, TextSelection(), 4000)["bleu"] == pytest.approx(100)


HEARS = ["data.states=[]", "encoder.folder=out/debug/encoder", "encoder.layer=2"]


def test_a_frozen_encoder_of_the_model_is_as_its_cached_states(world):
    cached = build(load_recipe(RECIPES / "translate.yaml"))
    heard = build(load_recipe(RECIPES / "translate.yaml", [*HEARS, "encoder.trainable=false"]))
    assert not [name for names in heard.names() for name in names if name.startswith("encoder.")]
    first = [row for row in cached.batches[0] if row.spoken][:3]
    ids = {row.id: row for number in range(4) for row in heard.batches[number] if row.spoken}
    other = [ids.get(row.id) for row in first if row.id in ids]
    first = [row for row in first if row.id in ids]
    assert first and [row.cost for row in first] == [row.cost for row in other]
    for one, two in zip(cached.model.frames(first), heard.model.frames(other), strict=True):
        torch.testing.assert_close(one, two, atol=2e-3, rtol=2e-3)


def test_an_encoder_that_learns_is_saved_packed_and_loaded(world):
    from echox.translator import SpeechTranslator

    out = ["out=out/debug/hearing", "train.steps=2", "train.save_every=2"]
    run_recipe(RECIPES / "translate.yaml", [*HEARS, *out])
    learnt, given = (
        Hearing.from_pretrained(folder, 2).state_dict()
        for folder in (world / "hearing/final/encoder", world / "encoder")
    )
    assert any((value - given[name]).abs().max() > 1e-3 for name, value in learnt.items())
    pack = ["out=out/debug/hears", "translator=out/debug/hearing/final"]
    with pytest.raises(ConfigError, match="an encoder of its own"):
        run_recipe(RECIPES / "pack_joint.yaml", pack)
    run_recipe(RECIPES / "pack_joint.yaml", [*pack, "encoder=null"])
    packed = SpeechTranslator.load(world / "hears")
    assert all(torch.equal(value, learnt[name]) for name, value in packed.model.encoder.state_dict().items())
    assert packed.translate(sound_of("the river"), beams=1).finish in ("stop", "length", "empty")


def test_a_random_discriminator_takes_no_step(world):
    stage = build(load_recipe(RECIPES / "translate.yaml", ["alignment.learns=false"]))
    assert [player.name for player in stage.players] == ["model"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.width=64"], "model.width is 64"),
        (["start=out/debug/translate/final", "model.convolutions=3"], "model.convolutions is 3"),
        (["data.corpora=[]", "data.states=[]"], "alignment needs speech"),
        (["start=null"], "name a vocabulary"),
        (["data.states=[]"], "states names 0 folders"),
        (["train.keep=2", "train.average=2"], "set train.average to 1"),
        (HEARS[1:], "leave data.states and data.held_out_states out"),
        (["data.held_out_pairs=[]"], "best is measured on held-out rows"),
        (["vocabulary=out/debug/other"], "another vocabulary"),
    ],
)
def test_what_does_not_fit_is_refused(world, overrides, message):
    if "vocabulary" in message:
        run_recipe(RECIPES / "vocabulary.yaml", ["out=out/debug/other", "size=50"])
    with pytest.raises(ConfigError, match=message):
        build(load_recipe(RECIPES / "translate.yaml", overrides))


def test_speech_without_a_transcript_is_refused(world, tmp_path):
    for path in (world / "data" / "user").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    rows = read_jsonl(tmp_path / "shard-00000.jsonl")
    write_manifest(tmp_path / "shard-00000.jsonl", [row | {"text": "?"} for row in rows])
    with pytest.raises(InputError, match="has no usable `text`"):
        build(load_recipe(RECIPES / "translate.yaml", [f"data.corpora=[{tmp_path}]"]))
