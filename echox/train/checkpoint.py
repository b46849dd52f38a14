"""Checkpoints: numbered folders that each hold a complete training state; means of weights. Knows neither stages nor losses."""

import logging
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar
from zipfile import BadZipFile, ZipFile

import torch
from torch import nn

from echox.errors import ConfigError
from echox.files import is_ours, remove, write_file, write_folder
from echox.train.sharding import METADATA, cut_like, load_pieces, save_pieces

STATE = "state.pt"
log = logging.getLogger(__name__)
State = dict[str, Any]
Module = TypeVar("Module", bound=nn.Module)


class Checkpoints:
    """`out`/step-N; the newest complete one is where a run resumes.

    A run that is told to stop saves between the steps that are `planned`: such a checkpoint takes no other's place and counts in no
    mean, so that a run that was stopped ends as one that was not.
    """

    def __init__(self, out: Path, keep: int, every: int = 1, last: int = 0) -> None:
        self.out, self.keep = Path(out), keep
        self.every, self.last = every, last
        self.broken: set[int] = set()  # found not to be whole

    def steps(self) -> list[int]:
        """Return the steps of all complete checkpoints, ascending."""
        found = [p for p in self.out.glob("step-*") if (p / STATE).is_file() or (p / METADATA).is_file()]
        steps = {int(name) for p in found if (name := p.name.removeprefix("step-")).isdecimal()}
        return sorted(steps - self.broken)

    def planned(self) -> list[int]:
        """Return those of them that an undisturbed run writes: after every so many steps, and after the last."""
        return [step for step in self.steps() if step % self.every == 0 or step == self.last]

    def save(self, step: int, state: State, pieces: bool = False) -> None:
        """Write the state after `step` steps, sharded if in `pieces`; the last `keep` stay, and the last `keep` planned ones."""

        def write(folder: Path) -> None:
            if pieces:
                return save_pieces(folder, state)
            with write_file(folder / STATE) as partial:
                try:
                    torch.save(state, partial)
                except RuntimeError as error:  # torch's for a full disk
                    raise OSError(str(error)) from error

        write_folder(self.out / f"step-{step}", write)
        self.broken.discard(step)
        kept = {*self.steps()[-self.keep :], *self.planned()[-self.keep :]}
        for old in self.steps():
            if old not in kept and is_ours(self.out / f"step-{old}"):
                remove(self.out / f"step-{old}")

    def newest(self, parameters: dict[str, nn.Parameter]) -> State | None:
        """Return the newest complete state, None where there is no checkpoint; a broken one is skipped with a warning.

        Sharded states are loaded as `parameters` are sharded. ConfigError when all are broken: nothing is restarted unasked.
        """
        found = self.steps()
        for step in reversed(found):
            try:
                return self.read(step, parameters)
            except ConfigError as error:
                self.broken.add(step)
                log.warning("%s The one before it is taken.", error)
        if found:
            raise ConfigError(
                f"{self.out} holds no whole checkpoint: remove its folders step-* and best to begin anew."
            )
        return None

    def read(self, step: int, parameters: dict[str, nn.Parameter]) -> State:
        """Return the state after `step` steps; ConfigError when it is broken."""
        path = self.out / f"step-{step}" / STATE
        if not path.is_file():
            return load_pieces(path.parent, parameters)
        try:
            with ZipFile(path) as archive:
                changed = archive.testzip()  # torch looks at no checksum
            state = torch.load(path, map_location="cpu", weights_only=True)
            if changed is None and state["step"] == step and isinstance(state["model"], dict):
                return state
            reason = "a byte of it has changed" if changed else "it is of another step"
        except (OSError, RuntimeError, UnpicklingError, EOFError, KeyError, ValueError, TypeError, BadZipFile) as error:
            reason = type(error).__name__
        raise ConfigError(f"{path} is no whole checkpoint of echox ({reason}).")


def trained_state(model: nn.Module, names: list[str]) -> dict[str, torch.Tensor]:
    """Return what training changes: the named parameters and all persistent buffers."""
    wanted = {*names, *(name for name, _ in model.named_buffers())}
    return {name: value for name, value in model.state_dict().items() if name in wanted}


def load_trained(model: nn.Module, names: list[str], state: dict[str, torch.Tensor], source: str) -> None:
    """Load what `trained_state` returned; ConfigError when `state` has other parameters."""
    differ = set(trained_state(model, names)) ^ set(state)
    if differ:
        raise ConfigError(f"{source} is of another recipe ({sorted(differ)[0]} differs): choose another `out`.")
    own = model.state_dict()
    try:
        model.load_state_dict({name: cut_like(value, own[name]) for name, value in state.items()}, strict=False)
    except RuntimeError as error:  # another shape
        reason = str(error).splitlines()[-1].strip().rstrip(".")
        raise ConfigError(f"{source} is of another recipe ({reason}): choose another `out`.") from error


def moments_of(optimizers: list[torch.optim.AdamW]) -> State:
    """Return the state of the optimizers by parameter name."""
    places = [(optimizer.state, name, parameter) for optimizer in optimizers for name, parameter in _named(optimizer)]
    return {name: dict(state[parameter]) for state, name, parameter in places if parameter in state}


def load_moments(optimizers: list[torch.optim.AdamW], moments: State) -> None:
    """Load what `moments_of` returned into the optimizers."""
    for optimizer in optimizers:
        for name, parameter in _named(optimizer):
            if name in moments:
                held = moments[name]
                optimizer.state[parameter] = {k: v if k == "step" else cut_like(v, parameter) for k, v in held.items()}


def _named(optimizer: torch.optim.AdamW) -> list[tuple[str, nn.Parameter]]:
    groups = optimizer.param_groups
    return [pair for group in groups for pair in zip(group["param_names"], group["params"], strict=True)]


def mean_of(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the mean of every floating-point tensor over checkpoints, taken in float64; other tensors are the last one's."""
    found = dict(states[-1])
    for name, last in states[-1].items():
        if last.is_floating_point():
            found[name] = torch.stack([state[name].double() for state in states]).mean(0).to(last.dtype)
    return found


@torch.no_grad()
def blend(start: Module, tuned: Module, share: float) -> Module:
    """Return `start` with its weights interpolated in place: `share` of its own, the rest from `tuned`.

    Tuning on narrow data forgets some of what was known before; interpolation keeps most of both (arXiv 2109.01903).
    """
    state = start.state_dict()
    for name, value in tuned.state_dict().items():
        state[name].mul_(share).add_(value.to(state[name].device), alpha=1 - share)
    return start
