"""Stage II: cross-entropy on unit words (spec section 3.2); it knows no data format.

Legend: B batch, U unit words.
"""

import torch
from torch import nn

from echox.objectives.loss import Loss


def unit_cross_entropy(
    logits_BUV: torch.Tensor, targets_BU: torch.Tensor, mask_BU: torch.Tensor, smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean cross-entropy over unmasked unit words, and the share of them predicted right."""
    logits, targets = logits_BUV[mask_BU].float(), targets_BU[mask_BU]
    loss = nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    return loss, (logits.argmax(-1) == targets).float().mean()


class T2CObjective:
    """Negative log-likelihood of the unit words and EOS given the text."""

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = smoothing

    def __call__(self, outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], step: int = 0) -> Loss:
        """Return the loss of what T2C made of one batch: logits, targets, mask."""
        logits_BUV, targets_BU, mask_BU = outputs
        loss, accuracy = unit_cross_entropy(logits_BUV, targets_BU, mask_BU, self.smoothing)
        return Loss(loss, {"accuracy": accuracy.detach()}, tokens=int(mask_BU.sum()))
