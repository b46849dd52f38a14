"""What every objective returns, and that of words one after the other; it knows no stage."""

from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class Loss:
    """A scalar to minimise, the named scalars worth logging, and how many tokens they stand for.

    `total` is a mean over `weight` things, which are the tokens unless said otherwise: micro-batches and ranks are added up by it,
    so that many small batches count as one large one, nearly so where it sums means over several things. So are the parts, or by
    what they are means over, where `over` says that.
    """

    total: torch.Tensor
    parts: dict[str, torch.Tensor] = field(default_factory=dict)
    tokens: int = 1
    weight: int | None = None
    over: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many things `total` is a mean over."""
        return self.tokens if self.weight is None else self.weight

    def numbers(self) -> dict[str, float]:
        """Return the total and every part as floats, fetched from the device all at once."""
        named = {"loss": self.total} | self.parts
        values = [value.detach().to(self.total.device, torch.float32) for value in named.values()]
        return dict(zip(named, torch.stack(values).tolist(), strict=True))

    def add_to(self, sums: dict[str, tuple[float, float]]) -> None:
        """Add the numbers, times what they are means over, to sums by name; each stands beside its count."""
        for name, value in self.numbers().items():
            (total, count), own = sums.get(name, (0.0, 0.0)), self.over.get(name, self.count)
            sums[name] = total + value * own, count + own


def token_loss(logits_NV: torch.Tensor, targets_N: torch.Tensor, smoothing: float = 0.0) -> Loss:
    """Return the mean cross-entropy of tokens, and beside it the share of them predicted right."""
    loss = nn.functional.cross_entropy(logits_NV.float(), targets_N, label_smoothing=smoothing)
    accuracy = (logits_NV.argmax(-1) == targets_N).float().mean()
    return Loss(loss, {"accuracy": accuracy.detach()}, tokens=len(targets_N))
