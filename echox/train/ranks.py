"""Data parallelism: several processes train one model on their own batches; knows gradients and counts, not models or files.

Gradients are summed once a step, over all parameters of a player at once. Torch's DistributedDataParallel would overlap that with
the backward pass, but needs every module called once a step and a fixed set of trained parameters, which alternating players and
scheduled parts do not give.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import distributed, nn


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes that torchrun started, if it did, and leave them at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


@dataclass
class Ranks:
    """This process's number among `world` processes, and the device it trains on."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    @classmethod
    def here(cls) -> "Ranks":
        """Return this process's place in the default process group; alone without one."""
        if not distributed.is_initialized():
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def sum(self, values: list[float]) -> list[float]:
        """Return every number added up over all processes."""
        if self.world == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return total.tolist()

    def merge(self, numbers: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return the mean of every name over all processes, from sums and counts; a process may lack a name."""
        every: list[Any] = [numbers] * self.world
        if self.world > 1:
            distributed.all_gather_object(every, numbers)
        names = dict.fromkeys(name for one in every for name in one)
        pairs = {name: [one[name] for one in every if name in one] for name in names}
        return {name: sum(s for s, _ in found) / max(sum(n for _, n in found), 1) for name, found in pairs.items()}

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            distributed.barrier()

    def share(self, values: list[torch.Tensor]) -> None:
        """Broadcast the first process's values, in place."""
        if self.world > 1:
            for value in values:
                distributed.broadcast(value, 0)

    def sum_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Sum the gradients over all processes; a parameter gets one where any process has one."""
        if self.world == 1 or not parameters:
            return
        has = self.sum([float(parameter.grad is not None) for parameter in parameters])
        used = [parameter for parameter, count in zip(parameters, has, strict=True) if count]
        for dtype in sorted({parameter.dtype for parameter in used}, key=str):
            alike = [parameter for parameter in used if parameter.dtype == dtype]
            grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in alike]
            flat = torch.cat([grad.flatten() for grad in grads])
            distributed.all_reduce(flat)
            for parameter, piece in zip(alike, flat.split([p.numel() for p in alike]), strict=True):
                parameter.grad = piece.view_as(parameter)
