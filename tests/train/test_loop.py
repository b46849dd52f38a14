"""The loop: killed and resumed runs end with the very weights of an undisturbed one; nothing half-written is ever loaded."""

import pytest
import torch
from torch import nn

from echox.errors import ConfigError, OutputError
from echox.objectives.loss import Loss
from echox.train.log import MetricsLog
from echox.train.loop import Player, Stage, TrainSettings, train, write_folder
from echox.train.optim import OptimSettings, rate_at


class Numbers:
    def __getitem__(self, step: int) -> torch.Tensor:
        return torch.randn(8, 4, generator=torch.Generator().manual_seed(step))


def stage(stop_at: int | None = None) -> tuple[Stage, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))
    judge = nn.Linear(1, 1)

    def objective(batch: torch.Tensor, step: int) -> Loss:
        if step == stop_at:
            raise KeyboardInterrupt
        return Loss((judge(model(batch)) - batch.sum(1, keepdim=True)).square().mean())

    def judged(batch: torch.Tensor, step: int) -> Loss:
        return Loss(judge(model(batch).detach()).square().mean())

    optim = OptimSettings(lr=0.05, warmup_steps=2)
    players = [
        Player("judge", judged, list(judge.parameters()), optim),
        Player("model", objective, list(model.parameters()), optim),
    ]
    return Stage({"model": model, "judge": judge}, players, Numbers(), lambda f: torch.save(0, f / "x")), model


SETTINGS = TrainSettings(steps=12, save_every=5, log_every=4, precision="fp32")


def test_resume_is_exact(tmp_path):
    whole, model = stage()
    train(whole, SETTINGS, tmp_path / "whole")
    killed, _ = stage(stop_at=8)
    with pytest.raises(KeyboardInterrupt):
        train(killed, SETTINGS, tmp_path / "killed")
    assert not (tmp_path / "killed" / "final").exists()
    again, resumed = stage()
    assert train(again, SETTINGS, tmp_path / "killed").name == "final"
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_player_moves_only_its_own_parameters(tmp_path):
    one, model = stage()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one.players = one.players[:1]
    train(one, SETTINGS, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_checkpoint_of_another_recipe_is_refused(tmp_path):
    one, _ = stage()
    train(one, SETTINGS, tmp_path)
    other, _ = stage()
    other.modules["model"] = nn.Sequential(nn.Linear(4, 8))
    with pytest.raises(ConfigError, match="another recipe"):
        train(other, TrainSettings(steps=20, precision="fp32"), tmp_path)


def test_a_loss_that_is_not_finite_stops(tmp_path):
    one, _ = stage()
    one.players[1].objective = lambda batch, step: Loss(one.modules["model"](batch).sum() * float("nan"))
    with pytest.raises(ConfigError, match="not finite at step 0"):
        train(one, SETTINGS, tmp_path)


def test_half_written_folder_is_never_seen(tmp_path):
    def breaks(folder):
        (folder / "a").write_text("half")
        raise RuntimeError("killed")

    write_folder(tmp_path / "x", lambda folder: (folder / "a").write_text("old"))
    with pytest.raises(RuntimeError):
        write_folder(tmp_path / "x", breaks)
    assert (tmp_path / "x" / "a").read_text() == "old"


def test_schedule():
    settings = OptimSettings(warmup_steps=10, final_ratio=0.1)
    assert rate_at(0, 100, settings) == pytest.approx(0.1)
    assert rate_at(9, 100, settings) == 1.0
    assert rate_at(55, 100, settings) == pytest.approx(0.55)
    assert rate_at(100, 100, settings) == pytest.approx(0.1)


def test_a_run_never_writes_over_somebody_elses_folder_and_says_so_before_it_trains(tmp_path):
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "thesis.txt").write_text("years of work")
    one, _ = stage(stop_at=0)
    with pytest.raises(OutputError, match="final"):
        train(one, SETTINGS, tmp_path)
    assert (tmp_path / "final" / "thesis.txt").read_text() == "years of work"


def test_checkpoints_to_which_somebody_added_are_kept(tmp_path):
    killed, _ = stage(stop_at=6)
    with pytest.raises(KeyboardInterrupt):
        train(killed, SETTINGS, tmp_path)
    (tmp_path / "step-5" / "notes.txt").write_text("this one is good")
    again, _ = stage()
    train(again, SETTINGS.model_copy(update={"keep": 1}), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-12", "step-5"]


def test_the_bar_names_the_loss_of_every_player(tmp_path):
    with MetricsLog(tmp_path, 2, 0) as log:
        log.write(1, {"judge/loss": 1.0, "model/loss": 2.0}, 1)
        assert log.progress.tasks[0].description == f"{tmp_path.name} loss 1.000 2.000"
        log.write(2, {"rate": 0.1}, 1)
        assert "nan" not in log.progress.tasks[0].description
