"""Where the time of an answer goes: seconds inside each part of a model, taken by hooks in a run of their own.

Hooks on every module cost a little themselves, so stage times come from separate answers and never mix with the
latency that is reported. Time belongs to the innermost part that is running: the adapter's excludes the LLM's.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from echox.eval.tables import Table


def stages_of(subject: Any) -> dict[str, Any]:
    """Return the torch modules of a model's parts by name, the LLM before the part that holds it; {} for others."""
    parts = getattr(subject, "parts", None)
    found = {"llm": getattr(getattr(parts, "s2t", None), "llm", None)}
    found |= {name: getattr(parts, name, None) for name in ("encoder", "s2t", "t2c", "echo", "vocoder")}
    return {name: module for name, module in found.items() if hasattr(module, "modules")}


class StageClock:
    """Counts `seconds` by part while it is entered; a module in several parts counts for the first."""

    def __init__(self, stages: dict[str, Any], clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = dict.fromkeys(stages, 0.0)
        self._stages, self._clock = stages, clock
        self._running: list[str] = []
        self._since = 0.0
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        claimed: set[int] = set()
        for name, part in self._stages.items():
            for module in part.modules():
                if id(module) in claimed:
                    continue
                claimed.add(id(module))
                self._hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self._enter(name)))
                self._hooks.append(module.register_forward_hook(lambda *_: self._leave(), always_call=True))
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _enter(self, name: str) -> None:
        self._count()
        self._running.append(name)

    def _leave(self) -> None:
        self._count()
        if self._running:
            self._running.pop()

    def _count(self) -> None:
        """Give the time since the last event to the part that was running."""
        _wait_for_device()
        now = self._clock()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


def stage_table(seconds: dict[str, float], total: float, answers: int) -> Table:
    """Return seconds and share by part, what is left going to `other` (Python, sampling, copying)."""
    rows = [(name, value) for name, value in seconds.items() if value > 0]
    rows.append(("other", max(total - sum(value for _, value in rows), 0.0)))
    shown = tuple((name, f"{value / answers:.3f}", f"{100 * value / total:.0f}") for name, value in rows)
    note = "Taken with hooks in answers of their own, which slows them; read the shares. No scorer, no judge."
    return Table(f"Stages, n = {answers}", ("part", "s an answer", "%"), shown, note)


def _wait_for_device() -> None:
    """Let an accelerator finish, so that its work counts where it was asked for."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
