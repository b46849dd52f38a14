"""Logs a run's metrics: metrics.jsonl, tensorboard when it is installed, and a progress bar or, without a terminal, lines."""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tqdm import tqdm

from echox.errors import OutputError
from echox.files import write_text

METRICS = "metrics.jsonl"
LINE = '{"step": '  # with which each of its lines begins
QUIET_SECONDS = 30.0  # between two lines where there is no terminal


class MetricsLog:
    """Averages numbers between log lines and writes them everywhere, or nowhere unless `writes`."""

    def __init__(self, out: Path, steps: int, first: int, writes: bool = True) -> None:
        self.out, self.steps, self.first, self.writes = Path(out), steps, first, writes
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.file, self.board = None, None
        if self.writes:
            self.out.mkdir(parents=True, exist_ok=True)
            forget_after(self.out / METRICS, self.first)
            self.file = (self.out / METRICS).open("a", encoding="utf-8")
            self.board = _tensorboard(self.out, self.first)
        hidden = None if self.writes else True  # None: without a terminal
        self.bar = tqdm(total=self.steps, initial=self.first, desc=self.out.name, disable=hidden)
        self.started = self.told = time.monotonic()
        return self

    def write(self, step: int, numbers: dict[str, float], every: int) -> None:
        """Take the numbers of one step; every `every` steps, write their means."""
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        self.bar.update(step - self.bar.n)
        if step % every and step != self.steps:
            return
        means = {name: float(f"{total / self.counts[name]:.6g}") for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        if not self.writes:
            return
        self._append(json.dumps({"step": step} | means) + "\n")
        if self.board is not None:
            for name, value in means.items():
                self.board.add_scalar(name, value, step)
        losses = [value for name, value in means.items() if name.rpartition("/")[2] == "loss" and "eval" not in name]
        if losses:
            label = " ".join(f"{value:.3f}" for value in losses)  # one a player
            self.bar.set_description(f"{self.out.name} loss {label}")
            self._tell(step, label)

    def _append(self, line: str, sync: bool = False) -> None:
        try:
            if self.file is not None:
                self.file.write(line)
                self.file.flush()
            if self.file is not None and sync:
                os.fsync(self.file.fileno())
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"{self.out / METRICS} cannot be written ({reason}): free some space there.") from error

    def flush(self) -> None:
        """Flush to the disk, so that a checkpoint is never ahead of its metrics."""
        self._append("", sync=True)

    def _tell(self, step: int, label: str) -> None:
        """Without a progress bar, print the first numbers, then a line every half minute, and the last."""
        now = time.monotonic()
        early = self.told > self.started and now - self.told < QUIET_SECONDS
        if not self.bar.disable or (early and step != self.steps):
            return
        self.told = now
        pace = (step - self.first) / max(now - self.started, 1e-9)
        sys.stderr.write(f"{self.out.name}: step {step} of {self.steps}, loss {label}, {pace:.3g} steps/s\n")
        sys.stderr.flush()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.close()
        if self.file is not None:
            with suppress(OSError):  # a full disk was reported when it was met
                self.file.close()
        if self.board is not None:
            self.board.close()


def forget_after(path: Path, step: int) -> None:
    """Drop the lines after `step`, which a killed run wrote and this one writes again; OutputError for another kind of file."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if any(not line.startswith(LINE[: len(line)]) for line in lines):
        raise OutputError(f"{path} holds no metrics of a run: move it away or train into another folder.")
    kept = [line for line in lines if _step_of(line) <= step]
    if len(kept) < len(lines):
        write_text(path, "".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):  # half a line
        return float("inf")


def _tensorboard(out: Path, first: int):
    """Return a tensorboard writer that forgets steps after `first`, or None where tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"), purge_step=first + 1)
