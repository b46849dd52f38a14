"""The best few weights of a run by a number measured on held-out examples, kept beside its checkpoints; it knows no model.

OUT/best/0012.345/model.safetensors      higher is better; the mean of all that are kept is the result
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from echox.files import is_ours, remove, write_folder
from echox.train.checkpoint import mean_of

WEIGHTS = "model.safetensors"


class Best:
    """`out`/best: at most `keep` sets of weights; what was measured equal replaces what was there."""

    def __init__(self, out: Path, keep: int) -> None:
        self.folder, self.keep = Path(out) / "best", keep

    def scores(self) -> list[str]:
        """Return the scores of what is kept, worst first."""
        return sorted(path.parent.name for path in self.folder.glob(f"*/{WEIGHTS}"))

    def offer(self, score: float, state: dict[str, torch.Tensor]) -> bool:
        """Keep `state` if it is among the best so far, and say whether it is."""
        name, kept = f"{max(score, 0.0):08.3f}", self.scores()
        if len(kept) >= self.keep and name <= kept[0]:
            return False
        whole = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
        write_folder(self.folder / name, lambda folder: save_file(whole, folder / WEIGHTS))
        for old in self.scores()[: -self.keep]:
            if is_ours(self.folder / old):
                remove(self.folder / old)
        return True

    def mean(self) -> dict[str, torch.Tensor] | None:
        """Return the mean of what is kept, or None where nothing is."""
        kept = self.scores()
        return mean_of([load_file(self.folder / name / WEIGHTS) for name in kept]) if kept else None
