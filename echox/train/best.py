"""Keeps the best weights of a run by a number measured on held-out examples, beside its checkpoints; it knows no model.

OUT/best/0012.3450/model.safetensors      the mean of all that are kept is the result
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import PositiveInt, model_validator
from safetensors.torch import load_file, save_file
from torch import nn

from echox.config.load import Settings
from echox.errors import require
from echox.files import is_ours, remove, write_folder
from echox.train.checkpoint import load_trained, mean_of, trained_state
from echox.train.ranks import Ranks

WEIGHTS = "model.safetensors"


class Selection(Settings):
    """The number by which weights are selected, and how many of the best are averaged; a bare number is `keep`."""

    by: str  # every stage says by which
    keep: PositiveInt = 5

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, given: Any) -> Any:
        return {"keep": given} if isinstance(given, int) else given


class Best:
    """`out`/best: the best weights of a module, at most `keep` of them; an equal score replaces an older one.

    Lower is better for a loss, higher for any other number. MissingDependency without the scorer of BLEU.
    """

    def __init__(self, out: Path, selection: Selection, module: nn.Module) -> None:
        self.folder, self.module = Path(out) / "best", module
        self.by, self.keep = selection.by, selection.keep
        self.names = [name for name, _ in module.named_parameters()]
        if self.by.endswith("bleu"):
            require("sacrebleu", "eval")

    def scores(self) -> list[str]:
        """Return the scores of the kept weights, worst first."""
        return sorted((path.parent.name for path in self.folder.glob(f"*/{WEIGHTS}")), key=self._worth)

    def offer(self, numbers: Mapping[str, float]) -> bool:
        """Save the weights, in the first process, if they are among the best so far, and say whether they are."""
        score, kept = numbers[self.by], self.scores()
        name = f"{max(score, 0.0):09.4f}"
        if Ranks.here().rank or not math.isfinite(score):
            return False
        if len(kept) >= self.keep and self._worth(name) < self._worth(kept[0]):
            return False
        state = trained_state(self.module, self.names)
        whole = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
        write_folder(self.folder / name, lambda folder: save_file(whole, folder / WEIGHTS))
        for old in self.scores()[: -self.keep]:
            if is_ours(self.folder / old):
                remove(self.folder / old)
        return True

    def take_mean(self) -> None:
        """Load the mean of the kept weights into the module, if any are kept."""
        if kept := self.scores():
            mean = mean_of([load_file(self.folder / name / WEIGHTS) for name in kept])
            load_trained(self.module, self.names, mean, str(self.folder))

    def _worth(self, name: str) -> float:
        return -float(name) if self.by == "loss" else float(name)
