"""Stage II: cross-entropy on unit words (spec section 3.2); it knows no data format.

Legend: B batch, U unit words.
"""

import torch

from echox.objectives.loss import Loss, token_loss


class T2CObjective:
    """Negative log-likelihood of the unit words and EOS given the text."""

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = smoothing

    def __call__(self, outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], step: int = 0) -> Loss:
        """Return the loss of what T2C made of one batch: logits, targets, mask."""
        logits_BUV, targets_BU, mask_BU = outputs
        return token_loss(logits_BUV[mask_BU], targets_BU[mask_BU], self.smoothing)
