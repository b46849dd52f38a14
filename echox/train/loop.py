"""One optimisation step and the loop around it, for every stage; it knows no model, no loss and no data format.

The resumable state is the step, the number of batches taken, and the players' parameters and optimizers; random numbers are
functions of the seed and the batch's number. A killed run resumes with the batch it would have seen next and ends with the same
weights. Processes and micro-batches share one stream of batches:

    batch     0 1 2 3 | 4 5 6 7 | ...      two processes, two micro-batches each: rank 0 takes 0 and 2, rank 1 takes 1 and 3
    step         0         1
"""

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator

from echox.config.load import Seed, Settings
from echox.config.record import Record, check_same, write_run
from echox.errors import ConfigError, Stopped
from echox.files import check_ours, only_one, write_folder, write_json
from echox.objectives.loss import Loss
from echox.train.checkpoint import Checkpoints, State, load_moments, load_trained, mean_of, moments_of, trained_state
from echox.train.dropout import use_cheap_masks
from echox.train.flops import bfloat16_costs, flops_per_token, peak_of, rates
from echox.train.log import MetricsLog
from echox.train.optim import OptimSettings, build_optimizer, clip_gradients, rate_at
from echox.train.ranks import Ranks
from echox.train.sharding import gather_in_place, is_cut, save_pieces, shard_model
from echox.train.stage import Moves, Player, Stage, check_schedule, moving
from echox.train.stop import stop_signals

log = logging.getLogger(__name__)


class TrainSettings(Settings):
    """How long and how a stage trains."""

    steps: PositiveInt
    optim: OptimSettings = OptimSettings()
    accumulate: PositiveInt = 1  # batches of one process to a step
    schedule: tuple[Moves, ...] = ()  # parameters that move in some steps only
    average: PositiveInt = 1  # the result is the mean of so many last checkpoints
    precision: Literal["bf16", "fp32"] = "bf16"  # autocast of the forward pass; fp32: none
    save_every: PositiveInt = 200  # steps between checkpoints
    log_every: PositiveInt = 10
    keep: PositiveInt = 2  # checkpoints
    threads: int = Field(default=0, ge=0, le=1024)  # CPU threads; 0 leaves torch's choice
    parallel: Literal["replicate", "shard"] = "replicate"  # the whole model in each process, or cut among them
    peak_tflops: float | None = Field(default=None, gt=0)  # for `mfu`; none: that of a known GPU in bfloat16
    allow: tuple[str, ...] = ()  # names in which a recipe may differ from the one that the run in `out` began with

    @model_validator(mode="after")
    def _check(self) -> "TrainSettings":
        if self.average > self.keep:
            raise ValueError(f"average {self.average} needs as many checkpoints: raise keep to it")
        return self


class TrainingRecipe(Settings):
    """Settings that the recipes of all stages that train share."""

    out: Path
    seed: Seed = 0
    train: TrainSettings

    @property
    def of_checkpoints(self) -> bool:
        """Whether the result is made of more than the last weights, so that it matters when checkpoints are written."""
        return self.train.average > 1

    @property
    def free(self) -> list[str]:
        """The settings that change no number of the result."""
        names = ["allow", "log_every", "keep", "threads", "parallel", "peak_tflops"]
        return ["out", *(f"train.{name}" for name in (names if self.of_checkpoints else [*names, "save_every"]))]


@dataclass
class Run:
    """A stage in training, with its optimizers and its position."""

    stage: Stage
    settings: TrainSettings
    seed: int = 0
    ranks: Ranks = field(default_factory=Ranks)
    batches: int = 0  # taken so far, by all processes together
    flops: float | None = None  # operations a token, once they were counted

    def __post_init__(self) -> None:
        check_schedule(self.stage, self.settings.schedule)
        use_cheap_masks(self.stage.model)
        self.names = self.stage.names()
        self.parameters = dict(self.stage.model.named_parameters())
        self.buffers = [self.stage.model.get_buffer(name) for name in self.stage.buffers]
        self.optimizers = [
            build_optimizer({name: self.parameters[name] for name in names}, player.optim)
            for names, player in zip(self.names, self.stage.players, strict=True)
        ]

    @property
    def cut(self) -> bool:
        """Whether the model lies in pieces on several processes."""
        return any(is_cut(parameter) for parameter in self.parameters.values())

    @property
    def trained(self) -> list[str]:
        """The names of all parameters that any player moves."""
        return [name for names in self.names for name in names]

    def let_move(self, names: list[str]) -> None:
        """Enable gradients of these parameters alone."""
        wanted = set(names)
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(name in wanted)

    def autocast(self) -> AbstractContextManager:
        """Return the precision of forward passes."""
        return torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def batch(self, number: int) -> Any:
        """Return a batch by its number, which also seeds the random numbers, so that resuming needs no generator state."""
        seed = self.seed * 1_000_003 + number
        torch.manual_seed(seed % 2**63)
        np.random.seed(seed % 2**32)
        return self.stage.batches[number]

    def stand_in(self, number: int) -> Any:
        """Return the next batch that holds something, None where none of a thousand does."""
        later = (self.batch(number + ahead) for ahead in range(1, 1001))
        return next((batch for batch in later if batch is not None), None)

    def forward(self, batch: Any, parts: list["PlayerStep"]) -> Any:
        """Return what the model makes of a batch, with gradients for the parameters of all `parts`."""
        self.let_move([name for part in parts for name in part.names])
        step = [parts[0].step] if self.stage.by_step else []
        with self.autocast():
            return self.stage.model(batch, *step)

    def state(self, step: int) -> State:
        """Return all that a resumed run needs."""
        return {
            "step": step,
            "batches": self.batches,
            "model": trained_state(self.stage.model, self.trained),
            "moments": moments_of(self.optimizers),
        }

    def save(self, checkpoints: Checkpoints, step: int) -> None:
        """Write a checkpoint: the first process alone, or all where the model is sharded."""
        if not self.ranks.rank:
            checkpoints.save(step, self.state(step), self.cut)
        elif self.cut:
            save_pieces(None, self.state(step))

    def restore(self, checkpoints: Checkpoints) -> int:
        """Take the newest checkpoint, if any; return the number of steps already done."""
        state = checkpoints.newest(self.parameters)
        if state is None:
            return 0
        load_trained(self.stage.model, self.trained, state["model"], f"the checkpoint in {checkpoints.out}")
        load_moments(self.optimizers, state["moments"])
        self.batches = state["batches"]
        return state["step"]


def train(stage: Stage, settings: TrainSettings, out: Path, seed: int = 0, recipe: Settings | None = None) -> Path:
    """Train `stage` to `settings.steps`, resuming from a checkpoint in `out`; return the folder of the result.

    OutputError, before any step, when echox did not write `out`/final, or another process trains in `out`. ConfigError when the
    run in `out` began with another recipe. Stopped after a signal: everything is saved, and the same call resumes.
    """
    out, ranks = Path(out), Ranks.here()
    with only_one(out) if not ranks.rank else nullcontext():
        check_ours(out / "final")
        record = Record() if recipe is None else Record.of(recipe)
        if recipe is not None:
            check_same(out, record, settings.allow)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        if settings.precision == "bf16" and ranks.device.type == "cpu" and (cost := bfloat16_costs()) > 1.1:
            log.warning("bf16 is %.1f times slower than float32 on this CPU: set train.precision=fp32.", cost)
        for module in (stage.model, *stage.frozen):
            module.to(ranks.device).requires_grad_(False)
        stage.model.train()
        cut = ranks.world > 1 and settings.parallel == "shard"
        if cut:
            check_shardable(stage, settings)
            shard_model(stage.model)
        run = Run(stage, settings, seed, ranks)
        checkpoints = Checkpoints(out, settings.keep, settings.save_every, settings.steps)
        first = run.restore(checkpoints)
        if not ranks.rank and first < settings.steps:
            write_run(out, record, f"step {first} of {settings.steps}")
        _go_on(run, checkpoints, first)
        if cut:
            gather_in_place(stage.model, keep=not ranks.rank)
        if not ranks.rank:
            write_folder(out / "final", lambda folder: write_result(run, checkpoints, folder, recipe, record))
            write_run(out, record, "done")
        ranks.barrier()
    return out / "final"


def check_shardable(stage: Stage, settings: TrainSettings) -> None:
    """Raise ConfigError for what a sharded model cannot do."""
    if len(stage.players) > 1:
        raise ConfigError(f"train.parallel: shard trains one player, not {len(stage.players)}: use replicate.")
    if stage.evaluates_parts:
        raise ConfigError("train.parallel: shard cannot translate or find units while it trains: use replicate.")
    if settings.schedule or settings.average > 1:
        raise ConfigError("train.parallel: shard knows no schedule and no average: use replicate.")


def _go_on(run: Run, checkpoints: Checkpoints, first: int) -> None:
    """Run the remaining steps, with logging and checkpoints; Stopped when a signal comes before the last."""
    stage, settings, ranks, out = run.stage, run.settings, run.ranks, checkpoints.out
    with stop_signals() as told, MetricsLog(out, settings.steps, first, writes=not ranks.rank) as metrics:
        for step in range(first, settings.steps):
            numbers = timed_step(run, step)
            done = step + 1
            if stage.evaluate and stage.evaluate_every and (done % stage.evaluate_every == 0 or done == settings.steps):
                numbers |= {f"eval/{name}": value for name, value in stage.evaluate().items()}
            metrics.write(done, numbers, every=settings.log_every)
            stopping = ranks.sum([float(bool(told))])[0] > 0
            if done % settings.save_every == 0 or done == settings.steps or stopping:
                metrics.flush()
                run.save(checkpoints, done)
            if stopping and done < settings.steps:
                raise Stopped(f"{out} was stopped after step {done} of {settings.steps}: run it again to go on.")


def write_result(run: Run, checkpoints: Checkpoints, folder: Path, recipe: Settings | None, record: Record) -> None:
    """Write the result, from the last weights or the mean of the last checkpoints."""
    if run.settings.average > 1:
        last = checkpoints.planned()[-run.settings.average :]
        states = [checkpoints.read(n, run.parameters)["model"] for n in last]
        load_trained(run.stage.model, run.trained, mean_of(states), str(folder))
    run.stage.save(folder)
    if recipe is not None:
        write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
        write_run(folder, record, "done")


def timed_step(run: Run, step: int) -> dict[str, float]:
    """Run one step and return its numbers with its time, tokens per second and device utilisation."""
    first, started = run.batches, time.perf_counter()
    numbers = train_step(run, step)
    seconds = time.perf_counter() - started
    if run.flops is None:
        run.flops = count_flops(run, step, run.batch(first)) if run.ranks.world == 1 else 0.0
    peak = run.settings.peak_tflops or peak_of(run.ranks.device)
    return numbers | {"step_seconds": seconds} | rates(numbers["tokens"], seconds, run.flops, peak)


def count_flops(run: Run, step: int, batch: Any) -> float:
    """Return the operations per token of the passes that `step` has made over a batch, made once more without an update.

    What a loss moves in a step is moved by then (objectives/translation.py): a count before it would move it by other kernels.
    """
    parts = [PlayerStep(run, number, step) for number in range(len(run.stage.players))]

    def passes() -> float:
        outputs = run.forward(batch, parts)
        for part in parts:
            part.backward(outputs, keep_graph=part is not parts[-1])
            part.optimizer.zero_grad()
        return parts[-1].tokens

    return 0.0 if batch is None else flops_per_token(passes)


def train_step(run: Run, step: int) -> dict[str, float]:
    """Run one optimizer step of every player on the next batches; return the numbers to log, over all processes."""
    stage, settings, ranks = run.stage, run.settings, run.ranks
    parts = [PlayerStep(run, number, step) for number in range(len(stage.players))]
    for micro in range(settings.accumulate):
        batch, share = run.batch(number := run.batches + micro * ranks.world + ranks.rank), 1.0
        if batch is None and run.cut:  # the others wait for this process's part of the pass
            batch, share = run.stand_in(number), 0.0
        outputs = None if batch is None else run.forward(batch, parts)
        for part in parts:  # the next one sees what this one has moved
            if batch is not None:
                part.backward(outputs, part is not parts[-1], share)
            if micro == settings.accumulate - 1:
                part.update()
    ranks.share(run.buffers)
    run.batches += settings.accumulate * ranks.world
    numbers = {"tokens": parts[-1].tokens}
    for part in parts:
        prefix = f"{part.player.name}/" if len(parts) > 1 else ""
        numbers |= {f"{prefix}{name}": value for name, value in part.numbers.items()}
    return numbers


class PlayerStep:
    """One player's part of a step: gradients of its parameters, weighted by the counts that the losses are means over."""

    def __init__(self, run: Run, number: int, step: int) -> None:
        self.run, self.step, self.player = run, step, run.stage.players[number]
        self.names = moving(run.names[number], run.settings.schedule, step)
        self.parameters = [run.parameters[name] for name in self.names]
        self.optimizer = run.optimizers[number]
        self.alone = run.settings.accumulate * run.ranks.world == 1  # then weighing would only round
        self.count = self.tokens = 0.0
        self.sums: dict[str, tuple[float, float]] = {}  # and what they are sums over
        self.numbers: dict[str, float] = {}

    def backward(self, outputs: Any, keep_graph: bool, share: float = 1.0) -> None:
        """Accumulate the gradients of one batch; with a `share` of 0 nothing of it counts."""
        self.run.let_move(self.names)
        with self.run.autocast():
            loss: Loss = self.player.loss(outputs, self.step)
        total = loss.total if self.alone else loss.total * (loss.count * share)
        if total.requires_grad:
            total.backward(retain_graph=keep_graph)
        if share:
            self.count += loss.count
            self.tokens += loss.tokens
            loss.add_to(self.sums)

    def update(self) -> None:
        """Apply the optimizer step; ConfigError, before it, when loss or gradient is not finite."""
        ranks, step, optimizer = self.run.ranks, self.step, self.optimizer
        ranks.sum_gradients([parameter for parameter in self.parameters if not is_cut(parameter)])
        self.count, self.tokens = ranks.sum([self.count, self.tokens])
        self.numbers = ranks.merge(self.sums)
        if not self.count:  # batches of nothing
            optimizer.zero_grad()
            return
        if not self.alone:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(self.count)
                    if is_cut(parameter):  # those gradients are means over processes
                        parameter.grad.mul_(ranks.world)
        norm = clip_gradients(self.parameters, self.player.optim.clip)
        for name, value in (("loss", self.numbers["loss"]), ("gradient", norm)):
            if not np.isfinite(value):
                raise ConfigError(f"the {name} of {self.player.name} is not finite at step {step}: lower its optim.lr.")
        rate = self.player.optim.lr * rate_at(step, self.run.settings.steps, self.player.optim)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        self.numbers |= {"grad_norm": norm, "lr": rate}


__all__ = ["Moves", "OptimSettings", "Player", "Run", "Stage", "TrainSettings", "TrainingRecipe", "train", "train_step"]
