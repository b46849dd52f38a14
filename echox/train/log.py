"""Where a run's numbers go: metrics.jsonl, tensorboard when it is installed, and a progress bar on a terminal.

Without a terminal (a batch queue, a log file) a line on standard error says now and then how far the run is.
"""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

QUIET_SECONDS = 30.0  # between two lines where there is no terminal


class MetricsLog:
    """Averages numbers between log lines and writes them to every sink."""

    def __init__(self, out: Path, steps: int, first: int) -> None:
        self.out, self.steps, self.first = Path(out), steps, first
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.out.mkdir(parents=True, exist_ok=True)
        self.file = (self.out / "metrics.jsonl").open("a", encoding="utf-8")
        self.board = _tensorboard(self.out)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty())
        self.progress.start()
        self.started = self.told = time.monotonic()
        self.task = self.progress.add_task(self.out.name, total=self.steps, completed=self.first)
        return self

    def write(self, step: int, numbers: dict[str, float], every: int) -> None:
        """Take the numbers of one step; every `every` steps, write their means."""
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        self.progress.update(self.task, completed=step)
        if step % every and step != self.steps:
            return
        means = {name: round(total / self.counts[name], 6) for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        self.file.write(json.dumps({"step": step} | means) + "\n")
        self.file.flush()
        if self.board is not None:
            for name, value in means.items():
                self.board.add_scalar(name, value, step)
        losses = [value for name, value in means.items() if name.rpartition("/")[2] == "loss" and "eval" not in name]
        if losses:
            label = " ".join(f"{value:.3f}" for value in losses)  # one a player
            self.progress.update(self.task, description=f"{self.out.name} loss {label}")
            self._tell(step, label)

    def _tell(self, step: int, label: str) -> None:
        """Write a line where no bar is seen: the first numbers, then one in half a minute, and the last."""
        now = time.monotonic()
        early = self.told > self.started and now - self.told < QUIET_SECONDS
        if not self.progress.disable or (early and step != self.steps):
            return
        self.told = now
        pace = (step - self.first) / max(now - self.started, 1e-9)
        sys.stderr.write(f"{self.out.name}: step {step} of {self.steps}, loss {label}, {pace:.3g} steps/s\n")
        sys.stderr.flush()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()
        self.file.close()
        if self.board is not None:
            self.board.close()


def _tensorboard(out: Path):
    """Return a tensorboard writer, or None where tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"))
