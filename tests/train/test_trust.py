"""What may go wrong around a run, and is not silent: bad numbers, signals, broken checkpoints, other recipes, two at once."""

import errno
import json
import os
import signal
import threading
from pathlib import Path
from typing import Literal

import pytest
import torch

from echox import cli
from echox.config.record import Record, check_finished, read_run
from echox.errors import ConfigError, ModelError, OutputError, Stopped
from echox.files import only_one
from echox.models.io import save_part
from echox.models.t2c import TextToCodec
from echox.models.t2c_config import T2CConfig
from echox.objectives.loss import Loss
from echox.train import stage_translate as translate
from echox.train.checkpoint import Checkpoints
from echox.train.loop import TrainingRecipe, TrainSettings, train
from echox.train.stages import STAGES
from tests.train.test_loop import SETTINGS, moved, stage, values


def steps_in(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("step-*"))


def test_a_gradient_that_is_not_finite_is_seen_before_the_step(tmp_path):
    one, game = stage()
    before = values(game)
    root = one.players[1].loss

    def loss(outputs, step):
        found = root(outputs, step)
        at_zero = (outputs[0] * 0).sum().sqrt()  # 0, with an infinite slope
        return Loss(found.total + at_zero) if step == 3 else found

    one.players[1].loss = loss
    with pytest.raises(ConfigError, match="the gradient of model is not finite at step 3"):
        train(one, SETTINGS.model_copy(update={"save_every": 2}), tmp_path)
    assert steps_in(tmp_path) == ["step-2"]
    assert moved(game, before) and all(torch.isfinite(value).all() for value in game.state_dict().values())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_told_to_end_saves_fails_and_leaves_its_result_stale(tmp_path, number):
    train(stage()[0], SETTINGS.model_copy(update={"steps": 4}), tmp_path)
    check_finished(tmp_path / "final")
    handler = signal.getsignal(number)
    told, _ = stage()
    loss = told.players[1].loss

    def tells(outputs, step):
        if step == 6:
            os.kill(os.getpid(), number)
        return loss(outputs, step)

    told.players[1].loss = tells
    with pytest.raises(Stopped, match="after step 7 of 12"):
        train(told, SETTINGS, tmp_path)
    assert signal.getsignal(number) is handler and "step-7" in steps_in(tmp_path)
    with pytest.raises(ModelError, match="stale"):
        check_finished(tmp_path / "final")
    (tmp_path / "final").rename(tmp_path / "aside")
    with pytest.raises(ModelError, match="not there yet"):
        check_finished(tmp_path / "final")
    train(stage()[0], SETTINGS, tmp_path)
    check_finished(tmp_path / "final")


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "a flipped bit", "of another step"])
def test_a_broken_newest_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog, damage):
    settings = SETTINGS.model_copy(update={"keep": 3, "save_every": 3})
    whole, game = stage()
    train(whole, settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(stage(stop_at=8)[0], settings, tmp_path / "killed")
    newest = tmp_path / "killed" / "step-6" / "state.pt"
    content = newest.read_bytes()
    other = (tmp_path / "killed" / "step-3" / "state.pt").read_bytes()
    at = content.index(torch.load(newest)["model"]["model.0.weight"].numpy().tobytes())
    flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    broken = {"empty": b"", "cut": content[:-100], "text": b"hello", "a flipped bit": flipped, "of another step": other}
    newest.write_bytes(broken[damage])
    again, resumed = stage()
    train(again, settings, tmp_path / "killed")
    assert "step-6" in caplog.text and not moved(resumed, values(game))


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, unsure, fsync, replace = set(), [], os.fsync, os.replace

    def renames(source, target):
        unsure.extend(path for path in (source, *source.rglob("*")) if path.stat().st_ino not in synced)
        synced.clear()
        replace(source, target)

    monkeypatch.setattr(os, "fsync", lambda file: synced.add(os.fstat(file).st_ino) or fsync(file))
    monkeypatch.setattr(os, "replace", renames)
    Checkpoints(tmp_path, 2).save(3, {"step": 3, "model": {}})
    assert unsure == [] and synced == {tmp_path.stat().st_ino} and steps_in(tmp_path) == ["step-3"]


@pytest.mark.parametrize(
    "writer", ["echox.train.checkpoint.torch.save", "echox.files.Path.mkdir", "echox.train.log.os.fsync"]
)
def test_a_disk_that_becomes_read_only_ends_a_run_in_a_sentence(tmp_path, monkeypatch, writer):
    def refuses(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    def loss(outputs, step):
        if step == 8:
            monkeypatch.setattr(writer, refuses)
        return root(outputs, step)

    one, game = stage()
    root, one.players[1].loss = one.players[1].loss, loss
    with pytest.raises(OutputError, match=rf"^{tmp_path}\S+ cannot be written \(Read-only file system\): [^.]+\.$"):
        train(one, SETTINGS, tmp_path)
    assert steps_in(tmp_path) == ["step-5"] and not list(tmp_path.rglob("*.part")) and not (tmp_path / "final").exists()
    monkeypatch.undo()
    whole, game = stage()
    train(whole, SETTINGS, tmp_path / "whole")
    again, resumed = stage()
    train(again, SETTINGS, tmp_path)
    assert not moved(resumed, values(game))


def test_nothing_is_begun_anew_where_every_checkpoint_is_broken(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(stage(stop_at=6)[0], SETTINGS, tmp_path)
    (tmp_path / "step-5" / "state.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no whole checkpoint: remove its folders step-\* and best"):
        train(stage()[0], SETTINGS, tmp_path)


def test_two_runs_do_not_share_a_folder(tmp_path):
    held, done = threading.Event(), threading.Event()

    def hold():
        with only_one(tmp_path):
            held.set()
            done.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(10)
    try:
        with pytest.raises(OutputError, match="another process"):
            train(stage()[0], SETTINGS, tmp_path)
    finally:
        done.set()
        other.join()
    train(stage()[0], SETTINGS, tmp_path)


class Recipe(TrainingRecipe):
    stage: Literal["toy", "other"] = "toy"
    data: Path
    out: Path = Path("anywhere")
    seed: int = 0
    times: int = 0
    train: TrainSettings = SETTINGS


def build(recipe: Recipe):
    """Return what `echox train` finds in this module: a stage that Ctrl-C interrupts `recipe.times` in step 6."""
    one, _ = stage()
    loss = one.players[1].loss

    def interrupted(outputs, step):
        for _ in range(recipe.times if step == 6 else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return loss(outputs, step)

    one.players[1].loss = interrupted
    return one


@pytest.mark.parametrize(("times", "status", "kept"), [(1, 1, ["step-5", "step-7"]), (2, 130, ["step-5"])])
def test_ctrl_c_ends_the_command_with_its_status_and_keeps_checkpoints(
    tmp_path, monkeypatch, capsys, times, status, kept
):
    recipe = tmp_path / "toy.yaml"
    recipe.write_text("stage: toy\ntrain: {steps: 12, save_every: 5, precision: fp32}\n")
    monkeypatch.setitem(STAGES, "toy", __name__)
    where = [f"data={recipe}", f"out={tmp_path / 'out'}", f"times={times}"]
    monkeypatch.setattr("sys.argv", ["echox", "train", str(recipe), *where])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == status and steps_in(tmp_path / "out") == kept
    said = capsys.readouterr().err
    assert "Traceback" not in said and ("run it again to go on" in said) == (times == 1)


def resumed(out: Path, **changes):
    recipe = Recipe(**changes)
    return train(stage()[0], recipe.train, out, recipe=recipe)


def test_names_on_the_hub_are_told_apart():
    one, other = (Record({}, {"encoder": name}) for name in ("a/b", "a/c"))
    assert one.differences(other) == ["encoder"]


def test_a_run_goes_on_with_the_recipe_it_began_with(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "a.txt").write_text("one")
    recipe = Recipe(data=data)
    with pytest.raises(KeyboardInterrupt):
        train(stage(stop_at=6)[0], recipe.train, out, recipe=recipe)
    longer = SETTINGS.model_copy(update={"steps": 14})
    with pytest.raises(ConfigError, match=r"train.steps \(12 before, 14 now\).*train.allow=\[train.steps\]"):
        resumed(out, data=data, train=longer)
    with pytest.raises(ConfigError, match="a run of stage toy"):
        resumed(out, data=data, stage="other")
    (data / "a.txt").write_text("two")
    with pytest.raises(ConfigError, match="another data .its content has changed"):
        resumed(out, data=data)
    assert steps_in(out) == ["step-5"]
    free = longer.model_copy(update={"allow": ("train.steps", "data"), "save_every": 50, "threads": 1})
    final = resumed(out, data=data, train=free)
    assert read_run(out)[0] == "done" and read_run(final)[1].settings["train.steps"] == 14


def test_when_checkpoints_are_written_is_free_until_the_result_is_made_of_them(tmp_path):
    averaged = SETTINGS.model_copy(update={"average": 2})
    data, out = tmp_path / "data", tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train(stage(stop_at=6)[0], averaged, out, recipe=Recipe(data=data, train=averaged))
    with pytest.raises(ConfigError, match=r"train.save_every \(5 before, 4 now\)"):
        resumed(out, data=data, train=averaged.model_copy(update={"save_every": 4}))
    begun = json.loads((out / "run.json").read_text())
    del begun["settings"]["train.save_every"], begun["free"]  # as records were that knew it as free
    (out / "run.json").write_text(json.dumps(begun))
    assert resumed(out, data=data, train=averaged).is_dir()
    assert read_run(out)[1].settings["train.save_every"] == 5
    assert "train.save_every" not in Record.of(Recipe(data=data)).settings
    text = {"out": tmp_path, "vocabulary": tmp_path, "data": {"pairs": [tmp_path], "held_out_pairs": [tmp_path]}}
    best = text | {"stage": "translate", "train": {"steps": 1}, "best": 2}
    for pace, counts in ((None, True), (50, False)):  # none: measured, and kept if best, whenever one is written
        recipe = translate.Recipe(**best, evaluate_every=pace)
        assert ("train.save_every" in Record.of(recipe).settings) is counts


def test_no_step_is_logged_twice_after_a_kill(tmp_path):
    settings = SETTINGS.model_copy(update={"log_every": 1})
    with pytest.raises(KeyboardInterrupt):
        train(stage(stop_at=8)[0], settings, tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    train(stage()[0], settings, tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))


def test_a_number_that_float16_does_not_hold_is_refused(tmp_path):
    sizes = {"llm_width": 16, "width": 32, "layers": 1, "heads": 4, "kv_heads": 2, "ffn": 64, "unit_vocab_size": 20}
    model = TextToCodec(T2CConfig(**sizes))
    model.head.weight.data[0, 0] = 7e4
    with pytest.raises(ModelError, match=r"head.weight holds 70000"):
        save_part(tmp_path / "part", model)
    assert not (tmp_path / "part" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"steps": -5}, {"save_every": 0}, {"optim": {"lr": -1.0}}, {"optim": {"lr": float("nan")}}, {"accumulate": 0}],
)
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ConfigError):
        TrainSettings.parse({"steps": 3} | wrong, "test")
