"""The loop: resumed runs end with the very weights of undisturbed ones; players, schedules and sums are what they say."""

import json
import os
import signal

import pytest
import torch
from torch import nn

from echox.errors import ConfigError, OutputError, Stopped
from echox.objectives.loss import Loss
from echox.train.checkpoint import mean_of
from echox.train.log import MetricsLog
from echox.train.loop import Moves, Player, Run, Stage, TrainSettings, timed_step, train, train_step, write_folder
from echox.train.optim import OptimSettings, rate_at

OPTIM = OptimSettings(lr=0.05, warmup_steps=2)


class Numbers:
    """Batches of so many rows, each a function of its number."""

    def __init__(self, rows: int = 8, stop_at: int | None = None) -> None:
        self.rows, self.stop_at = rows, stop_at

    def __getitem__(self, number: int) -> torch.Tensor:
        if number == self.stop_at:
            raise KeyboardInterrupt
        return torch.randn(self.rows, 4, generator=torch.Generator().manual_seed(number))


class Game(nn.Module):
    """A model whose output a judge reads."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(dropout), nn.Linear(8, 1))
        self.judge = nn.Linear(1, 1)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.model(batch), batch


def stage(stop_at: int | None = None) -> tuple[Stage, Game]:
    torch.manual_seed(0)
    game = Game()

    def generator(outputs: tuple, step: int) -> Loss:
        return Loss((game.judge(outputs[0]) - outputs[1].sum(1, keepdim=True)).square().mean())

    def judge(outputs: tuple, step: int) -> Loss:
        return Loss(game.judge(outputs[0].detach()).square().mean())

    players = [Player("judge", judge, ("judge.*",), OPTIM), Player("model", generator, ("model.*",), OPTIM)]
    return Stage(game, players, Numbers(stop_at=stop_at), lambda f: torch.save(0, f / "x")), game


SETTINGS = TrainSettings(steps=12, save_every=5, log_every=4, precision="fp32")


def values(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def test_resume_is_exact(tmp_path):
    whole, game = stage()
    train(whole, SETTINGS, tmp_path / "whole")
    killed, _ = stage(stop_at=8)
    with pytest.raises(KeyboardInterrupt):
        train(killed, SETTINGS, tmp_path / "killed")
    assert not (tmp_path / "killed" / "final").exists()
    again, resumed = stage()
    assert train(again, SETTINGS, tmp_path / "killed").name == "final"
    assert not moved(resumed, values(game))


def test_a_player_moves_only_its_own_parameters(tmp_path):
    one, game = stage()
    before = values(game)
    one.players = one.players[:1]
    train(one, SETTINGS, tmp_path)
    assert moved(game, before) == {"judge.weight", "judge.bias"}


def test_what_trains_is_declared_and_not_read_off(tmp_path):
    one, game = stage()
    game.requires_grad_(False)  # of no account
    before = values(game)
    train(one, SETTINGS, tmp_path)
    assert moved(game, before) == set(before)
    for trains, words in ((("nothing.*",), "names no parameter"), (("judge.*", "model.*"), "is trained by")):
        two, _ = stage()
        two.players[1].trains = trains
        with pytest.raises(ConfigError, match=words):
            train(two, SETTINGS, tmp_path / trains[0])


def test_a_schedule_holds_parameters_still_and_a_run_resumes_across_it(tmp_path):
    settings = SETTINGS.model_copy(update={"schedule": (Moves(names="model.2.*", first=6, end=9),)})
    one, game = stage()
    run, history = Run(one, settings), []
    for step in range(12):
        before = values(game)
        train_step(run, step)
        history.append("model.2.weight" in moved(game, before))
    assert history == [6 <= step < 9 for step in range(12)]
    killed, _ = stage(stop_at=7)
    with pytest.raises(KeyboardInterrupt):
        train(killed, settings, tmp_path)
    again, resumed = stage()
    train(again, settings, tmp_path)
    assert not moved(resumed, values(game))
    with pytest.raises(ConfigError, match="no player trains"):
        Run(stage()[0], SETTINGS.model_copy(update={"schedule": (Moves(names="ear.*"),)}))


class Ragged(Numbers):
    """Rows that differ in number from batch to batch: means of means would be wrong."""

    def __getitem__(self, number: int) -> torch.Tensor:
        return super().__getitem__(number)[: 1 + number % 7]


class Joined:
    """Two batches of `Ragged` as one."""

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.cat([Ragged()[2 * number], Ragged()[2 * number + 1]])


def regression(batches, **settings) -> tuple[Run, Game]:
    torch.manual_seed(0)
    game = Game(dropout=0.0)

    def loss(outputs: tuple, step: int) -> Loss:
        made, batch = outputs
        return Loss((made - batch.sum(1, keepdim=True)).square().mean(), tokens=len(batch))

    player = Player("model", loss, ("model.*",), OPTIM)
    return Run(
        Stage(game, [player], batches, lambda f: None), TrainSettings(steps=8, precision="fp32", **settings)
    ), game


def test_accumulated_batches_count_as_one_large_one():
    (small, one), (large, two) = regression(Ragged(), accumulate=2), regression(Joined())
    for step in range(8):
        few, many = train_step(small, step), train_step(large, step)
        assert few == pytest.approx(many, rel=1e-5)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, two.state_dict()[name], msg=name)


def test_a_step_goes_at_the_schedules_rate_by_gradients_that_are_clipped():
    run, game = regression(Numbers())
    run.stage.players[0].optim = OPTIM.model_copy(update={"clip": 0.01})
    before = game.model[2].bias.detach().clone()
    numbers = train_step(run, 0)
    assert numbers["lr"] == OPTIM.lr / 2 and numbers["grad_norm"] > 1  # half warmed up; the norm is that before
    assert (game.model[2].bias - before).abs().item() == pytest.approx(OPTIM.lr / 2, rel=1e-3)  # Adam's first step
    means = [held["exp_avg"] for held in run.optimizers[0].state.values()]
    assert nn.utils.get_total_norm(means).item() == pytest.approx(0.01 * (1 - OPTIM.betas[0]), rel=1e-3)
    assert all(weight.grad is None for weight in game.parameters())


class Reckoned(Numbers):
    """Batches that take arithmetic to make, as an LLM's own answers do."""

    def __getitem__(self, number: int) -> torch.Tensor:
        return super().__getitem__(number) + 0 * (torch.ones(64, 64) @ torch.ones(64, 64)).sum()


def test_operations_are_those_of_the_passes_and_not_of_making_the_batch():
    runs = [Run(stage()[0], SETTINGS) for _ in range(2)]
    runs[1].stage.batches = Reckoned()
    for run in runs:
        timed_step(run, 0)
    assert runs[0].flops == runs[1].flops and runs[0].flops


def test_operations_are_counted_once_a_step_has_moved_what_it_moves():
    run, _ = regression(Numbers())
    loss, seen = run.stage.players[0].loss, []
    run.stage.players[0].loss = lambda outputs, step: seen.append((step, run.batches)) or loss(outputs, step)
    timed_step(run, 0)
    timed_step(run, 1)
    assert seen == [(0, 0), (0, 1), (1, 1)]


def test_the_largest_seed_that_settings_take_trains(tmp_path):
    train(stage()[0], SETTINGS.model_copy(update={"steps": 1}), tmp_path, seed=2**63 - 1)


def test_a_batch_of_nothing_moves_nothing():
    run, game = regression([None])
    before = values(game)
    assert train_step(run, 0) == {"tokens": 0.0} and not moved(game, before)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_of_what_weighed_nothing_are_forgotten(accumulate):
    run, game = regression(Numbers(), accumulate=accumulate)
    player = run.stage.players[0]
    whole, player.loss = player.loss, lambda outputs, step: Loss(outputs[0].sum() * float("nan"), tokens=0)
    before = values(game)
    train_step(run, 0)
    assert not moved(game, before) and all(weight.grad is None for weight in game.parameters())
    player.loss = whole
    assert train_step(run, 1)["loss"] > 0 and all(weight.isfinite().all() for weight in game.parameters())


def test_the_result_is_the_mean_of_the_last_checkpoints(tmp_path):
    settings = SETTINGS.model_copy(update={"average": 3, "keep": 3, "save_every": 4})
    one, game = stage()
    train(one, settings, tmp_path)
    states = [torch.load(tmp_path / f"step-{step}" / "state.pt")["model"] for step in (4, 8, 12)]
    for name, value in game.state_dict().items():
        torch.testing.assert_close(value, sum(state[name] for state in states) / 3, msg=name)
    assert mean_of([{"n": torch.tensor(2)}, {"n": torch.tensor(5)}])["n"] == 5
    with pytest.raises(ValueError, match="raise keep"):
        TrainSettings(steps=1, average=3)


def test_a_run_that_was_stopped_ends_with_the_mean_of_the_same_checkpoints(tmp_path):
    settings = SETTINGS.model_copy(update={"average": 2, "save_every": 4})
    whole, game = stage()
    train(whole, settings, tmp_path / "whole")
    told, _ = stage()
    told.evaluate, told.evaluate_every = lambda: os.kill(os.getpid(), signal.SIGTERM) or {}, 9
    with pytest.raises(Stopped, match="after step 9 of 12"):
        train(told, settings, tmp_path / "told")
    assert sorted(path.name for path in (tmp_path / "told").glob("step-*")) == ["step-4", "step-8", "step-9"]
    again, resumed = stage()
    train(again, settings, tmp_path / "told")
    assert not moved(resumed, values(game))
    assert sorted(path.name for path in (tmp_path / "told").glob("step-*")) == ["step-12", "step-8", "step-9"]


def test_checkpoint_of_another_recipe_is_refused(tmp_path):
    one, _ = stage()
    train(one, SETTINGS, tmp_path)
    other, game = stage()
    game.model = nn.Sequential(nn.Linear(4, 1))
    with pytest.raises(ConfigError, match="another recipe"):
        train(other, TrainSettings(steps=20, precision="fp32"), tmp_path)


def test_a_loss_that_is_not_finite_stops(tmp_path):
    one, game = stage()
    one.players[1].loss = lambda outputs, step: Loss(outputs[0].sum() * float("nan"))
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


def test_schedules_of_the_rate():
    settings = OptimSettings(warmup_steps=10, final_ratio=0.1)
    assert rate_at(0, 100, settings) == pytest.approx(0.1)
    assert rate_at(9, 100, settings) == 1.0
    assert rate_at(55, 100, settings) == pytest.approx(0.55)
    assert rate_at(100, 100, settings) == pytest.approx(0.1)
    assert rate_at(99, 100, OptimSettings(warmup_steps=0, schedule="constant")) == 1.0
    root = OptimSettings(warmup_steps=10, schedule="inverse_sqrt")
    assert [rate_at(step, 100, root) for step in (4, 9, 39)] == pytest.approx([0.5, 1.0, 0.5])


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


def test_what_is_written_are_means_and_evaluation_has_its_own_pace(tmp_path):
    one, _ = stage()
    told = iter((1.0, 2.0, 4.0))
    one.evaluate, one.evaluate_every = lambda: {"right": next(told)}, 5
    train(one, SETTINGS, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row.get("eval/right")) for row in rows] == [(4, None), (8, 1.0), (12, 3.0)]  # 5; 10 and 12


def test_the_bar_names_the_loss_of_every_player(tmp_path):
    with MetricsLog(tmp_path, 2, 0) as log:
        log.write(1, {"judge/loss": 1.0, "model/loss": 2.0}, 1)
        assert log.bar.desc == f"{tmp_path.name} loss 1.000 2.000: "
        log.write(2, {"rate": 0.1}, 1)
        assert "nan" not in log.bar.desc


@pytest.mark.parametrize(("cost", "said"), [(2.0, True), (1.04, False), (0.6, False)])
def test_where_bfloat16_is_slower_than_float32_the_run_says_so(tmp_path, monkeypatch, caplog, cost, said):
    monkeypatch.setattr("echox.train.loop.bfloat16_costs", lambda: cost)
    train(stage()[0], SETTINGS.model_copy(update={"precision": "bf16", "steps": 1}), tmp_path)
    assert ("train.precision=fp32" in caplog.text) == said
