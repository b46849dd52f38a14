"""One optimisation step and the loop around it, for every stage; it knows no model, no loss and no data format.

A stage is data: players (an objective, the parameters it moves, its optimizer), batches that can start anywhere, and a function
that saves the trained parts. An ordinary stage has one player; an adversarial one has two, which take turns on each batch. The
whole resumable state is `step`, the players' optimizers and the generators of random numbers: a run that was killed goes on
with the very batch it would have seen next, and ends with the very weights.
"""

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import Field
from torch import nn

from echox.config.load import Settings
from echox.errors import ConfigError
from echox.files import check_ours, is_ours, remove, write_folder, write_text
from echox.objectives.loss import Loss
from echox.train.log import MetricsLog
from echox.train.optim import OptimSettings, build_optimizer, rate_at


class TrainSettings(Settings):
    """How long and how a stage trains."""

    steps: int = Field(ge=1)
    optim: OptimSettings = OptimSettings()
    precision: Literal["bf16", "fp32"] = "bf16"  # autocast of the forward pass; fp32: none
    save_every: int = Field(200, ge=1)  # steps between checkpoints
    log_every: int = Field(10, ge=1)
    keep: int = Field(2, ge=1)  # checkpoints
    threads: int = Field(0, ge=0, le=1024)  # CPU threads; 0 leaves torch's choice


class Batches(Protocol):
    """An endless, seeded stream of batches with random access by step."""

    def __getitem__(self, step: int) -> Any: ...


@dataclass
class Player:
    """An objective and the parameters that it alone moves."""

    name: str
    objective: Callable[[Any, int], Loss]
    parameters: list[nn.Parameter]
    optim: OptimSettings


@dataclass
class Stage:
    """All that the loop needs: modules (their full state is checkpointed), players, batches, and what to write at the end."""

    modules: dict[str, nn.Module]
    players: list[Player]
    batches: Batches
    save: Callable[[Path], None]
    evaluate: Callable[[], dict[str, float]] | None = None
    evaluate_every: int = 0
    frozen: tuple[nn.Module, ...] = ()  # what else must stand on the training device


def train(stage: Stage, settings: TrainSettings, out: Path, seed: int = 0, recipe: dict | None = None) -> Path:
    """Train `stage` to `settings.steps`, resuming from `out` when it holds a checkpoint; return the folder of the result.

    OutputError, before any step, when `out`/final is there and echox did not write it: it is never replaced.
    """
    final = Path(out) / "final"
    check_ours(final)

    def save(folder: Path) -> None:
        stage.save(folder)
        if recipe is not None:
            write_text(folder / "recipe.json", json.dumps(recipe, indent=2, default=str) + "\n")

    if settings.threads:
        torch.set_num_threads(settings.threads)
    precision = "no" if settings.precision == "fp32" else settings.precision
    accelerator = Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())
    for module in (*stage.modules.values(), *stage.frozen):
        module.to(accelerator.device)
    optimizers = [build_optimizer(player.parameters, player.optim) for player in stage.players]
    checkpoints = Checkpoints(out, settings.keep)
    first = checkpoints.restore(stage, optimizers)
    stop = StopFlag()
    with MetricsLog(out, settings.steps, first) as log:
        for step in range(first, settings.steps):
            started = time.perf_counter()
            _seed_everything(seed, step)
            numbers = train_step(stage, optimizers, accelerator, step, settings.steps)
            numbers["step_seconds"] = time.perf_counter() - started
            done = step + 1
            if stage.evaluate and stage.evaluate_every and (done % stage.evaluate_every == 0 or done == settings.steps):
                numbers |= {f"eval/{name}": value for name, value in stage.evaluate().items()}
            log.write(done, numbers, every=settings.log_every)
            if done % settings.save_every == 0 or done == settings.steps or stop.requested:
                checkpoints.save(done, stage, optimizers)
            if stop.requested:
                break
    if not stop.requested:
        write_folder(final, save)
    return final


def train_step(
    stage: Stage, optimizers: list[torch.optim.Optimizer], accelerator: Accelerator, step: int, steps: int
) -> dict[str, float]:
    """Let every player take one step on batch `step`; return the numbers to log."""
    batch, numbers = stage.batches[step], {}
    for player, optimizer in zip(stage.players, optimizers, strict=True):
        rate = player.optim.lr * rate_at(step, steps, player.optim)
        for group in optimizer.param_groups:
            group["lr"] = rate
        # ---------------------------------------------------------------------- one step
        with accelerator.autocast():
            loss = player.objective(batch, step)
        accelerator.backward(loss.total)
        norm = torch.nn.utils.clip_grad_norm_(player.parameters, player.optim.clip)
        optimizer.step()
        for other in stage.players:  # a player's loss may reach another player's parameters
            for parameter in other.parameters:
                parameter.grad = None
        # ----------------------------------------------------------------------
        prefix = f"{player.name}/" if len(stage.players) > 1 else ""
        numbers |= {f"{prefix}{name}": value for name, value in loss.numbers().items()}
        numbers |= {f"{prefix}grad_norm": float(norm), f"{prefix}lr": rate}
        if not np.isfinite(numbers[f"{prefix}loss"]):
            raise ConfigError(f"the loss of {player.name} is not finite at step {step}: lower train.optim.lr.")
    return numbers


def _seed_everything(seed: int, step: int) -> None:
    """Make dropout and sampling functions of (seed, step), so that resuming needs no generator state."""
    torch.manual_seed(seed * 1_000_003 + step)
    np.random.seed((seed * 1_000_003 + step) % 2**32)


class StopFlag:
    """Asks the loop to save and end when the process is told to terminate."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                signal.signal(number, self._request)
            except ValueError:  # not the main thread: the caller owns the signals
                return

    def _request(self, *_: Any) -> None:
        self.requested = True


class Checkpoints:
    """Numbered folders under `out`, each a whole state; the newest complete one is where a run resumes."""

    def __init__(self, out: Path, keep: int) -> None:
        self.out, self.keep = Path(out), keep

    def steps(self) -> list[int]:
        """Return the steps of all complete checkpoints, ascending."""
        found = [p for p in self.out.glob("step-*") if (p / "state.pt").is_file()]
        return sorted(int(name) for p in found if (name := p.name.removeprefix("step-")).isdecimal())

    def save(self, step: int, stage: Stage, optimizers: list[torch.optim.Optimizer]) -> None:
        """Write the state after `step` steps and forget the oldest of those that are ours to remove."""

        def write(folder: Path) -> None:
            modules = {name: trainable_state(module) for name, module in stage.modules.items()}
            state = {"step": step, "modules": modules, "optimizers": [o.state_dict() for o in optimizers]}
            torch.save(state, folder / "state.pt")

        write_folder(self.out / f"step-{step}", write)
        for old in self.steps()[: -self.keep]:
            if is_ours(self.out / f"step-{old}"):
                remove(self.out / f"step-{old}")

    def restore(self, stage: Stage, optimizers: list[torch.optim.Optimizer]) -> int:
        """Load the newest checkpoint, if any; return the number of steps already done."""
        steps = self.steps()
        if not steps:
            return 0
        path = self.out / f"step-{steps[-1]}" / "state.pt"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, UnpicklingError, EOFError, KeyError, ValueError) as error:
            raise ConfigError(
                f"{path} is no whole checkpoint of echox: remove {path.parent} to go on without it."
            ) from error
        for name, module in stage.modules.items():
            missing = set(trainable_state(module)) ^ set(state["modules"][name])
            if missing:
                raise ConfigError(f"{path} is of another recipe ({sorted(missing)[0]} differs): choose another `out`.")
            module.load_state_dict(state["modules"][name], strict=False)
        for optimizer, values in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        return int(state["step"])


def trainable_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return what training changes: parameters that require gradients, and persistent buffers of their modules."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}
