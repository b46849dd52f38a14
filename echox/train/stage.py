"""What a stage is: a module whose call is the forward pass, players (a loss with its parameters), and batches; it knows no loop.

    batch ──stage.model(batch)──► outputs ──player.loss(outputs, step)──► Loss      one player after the other
                                                                            │
                    the player's own parameters, declared by name  ◄────────┘

The call is `stage.model(batch, step)` where the stage goes `by_step`; the module then has no step of its own to fall back on.

Which parameters train is a list of name patterns, never read from `requires_grad`: the loop sets that from the names at every
step, so that a recipe can freeze a part for some steps (`train.schedule`) and a resumed run knows its parameters at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field, NonNegativeInt, model_validator
from torch import nn

from echox.config.load import Settings
from echox.errors import ConfigError
from echox.objectives.loss import Loss
from echox.train.optim import OptimSettings


class Moves(Settings):
    """A pattern of parameter names, and the steps in which they train; outside of them they are frozen."""

    names: str  # as in "adapter.*"
    first: NonNegativeInt = 0
    end: int | None = Field(default=None, ge=1)  # the first step they are still again; none: never

    @model_validator(mode="after")
    def _check(self) -> "Moves":
        if self.end is not None and self.end <= self.first:
            raise ValueError(f"{self.names} would move from step {self.first} to {self.end}: give a later end")
        return self

    def at(self, step: int) -> bool:
        """Say whether they train at `step`."""
        return self.first <= step and (self.end is None or step < self.end)


class Batches(Protocol):
    """An endless, seeded stream of batches with random access by number; a batch may be None when it holds nothing."""

    def __getitem__(self, number: int, /) -> Any: ...


@dataclass
class Player:
    """A loss on the stage's outputs, the parameters (name patterns) that it alone trains, and their optimizer."""

    name: str
    loss: Callable[[Any, int], Loss]
    trains: tuple[str, ...]
    optim: OptimSettings


@dataclass
class Stage:
    """All that the loop needs: the module, its players, batches, and what to write at the end.

    Players take turns on the same outputs. A player that reads what another one trains reads it detached, or comes last.
    """

    model: nn.Module
    players: list[Player]
    batches: Batches
    save: Callable[[Path], None]
    evaluate: Callable[[], dict[str, float]] | None = None
    evaluate_every: int = 0
    frozen: tuple[nn.Module, ...] = ()  # what else must stand on the training device
    evaluates_parts: bool = False  # `evaluate` calls parts of the module, which one that is cut among processes cannot
    buffers: tuple[str, ...] = ()  # of the module, which a loss moves: the first process's are everyone's
    by_step: bool = False  # the forward pass is another one from some step on: it is told the step beside the batch

    def names(self) -> list[list[str]]:
        """Return the parameter names of every player; ConfigError for a pattern without a match, or a name of two players."""
        known, owners, found = [name for name, _ in self.model.named_parameters()], {}, []
        for player in self.players:
            for pattern in player.trains:
                if not any(fnmatchcase(name, pattern) for name in known):
                    raise ConfigError(f"player {player.name} trains {pattern}, which names no parameter.")
            mine = [name for name in known if matches(name, player.trains)]
            for name in mine:
                if owners.setdefault(name, player.name) != player.name:
                    raise ConfigError(f"{name} is trained by {owners[name]} and by {player.name}: give it to one.")
            found.append(mine)
        return found


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Say whether a parameter's name fits one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def moving(names: list[str], schedule: Sequence[Moves], step: int) -> list[str]:
    """Return those of `names` that train at `step`: scheduled ones in their steps, all others always."""
    found = []
    for name in names:
        spans = [moves for moves in schedule if fnmatchcase(name, moves.names)]
        if not spans or any(moves.at(step) for moves in spans):
            found.append(name)
    return found


def check_schedule(stage: Stage, schedule: Sequence[Moves]) -> None:
    """Raise ConfigError for a schedule entry that matches no trained parameter."""
    trained = [name for names in stage.names() for name in names]
    for moves in schedule:
        if not any(fnmatchcase(name, moves.names) for name in trained):
            raise ConfigError(f"train.schedule: no player trains {moves.names}: choose from names like {trained[0]}.")
