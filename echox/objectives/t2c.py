"""Stage II: cross-entropy on unit words (spec section 3.2); it knows no data format.

Legend: B batch, U unit words, V vocabulary.
"""

import torch

from echox.objectives.loss import Loss, token_loss


def t2c_loss(outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], step: int = 0, smoothing: float = 0.0) -> Loss:
    """Return the loss of the unit words and EOS given the text, from T2C's logits, targets and mask."""
    logits_BUV, targets_BU, mask_BU = outputs
    return token_loss(logits_BUV[mask_BU], targets_BU[mask_BU], smoothing)
