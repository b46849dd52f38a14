"""What every objective returns; it knows no stage."""

from dataclasses import dataclass, field

import torch


@dataclass
class Loss:
    """A scalar to minimise, the named scalars worth logging, and how many tokens they stand for.

    `total` is a mean over `weight` things, which are the tokens unless said otherwise: micro-batches and ranks are added up by it,
    so that many small batches count as one large one.
    """

    total: torch.Tensor
    parts: dict[str, torch.Tensor] = field(default_factory=dict)
    tokens: int = 1
    weight: int | None = None

    @property
    def count(self) -> int:
        """How many things `total` is a mean over."""
        return self.tokens if self.weight is None else self.weight

    def numbers(self) -> dict[str, float]:
        """Return every part and the total as floats."""
        return {"loss": float(self.total.detach())} | {name: float(value) for name, value in self.parts.items()}
