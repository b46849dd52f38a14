"""Hearing by attention: cross-entropy on the words that were said; it knows no data format.

Legend: B batch, N text tokens, W width.
"""

from dataclasses import dataclass

import torch
from torch import nn

from echox.models.listener import Listener
from echox.models.ragged import pad_right
from echox.objectives.loss import Loss


@dataclass
class ListenerBatch:
    """Encoder states, right-padded, and the text tokens of each row, from the first of `begin` to the end token."""

    states_BTW: torch.Tensor
    frames_B: torch.Tensor
    tokens: list[list[int]]
    given: int  # tokens at the front that are not predicted


class ListenerObjective:
    """Negative log-likelihood of text and end token given the speech."""

    def __init__(self, model: Listener, smoothing: float = 0.0) -> None:
        self.model, self.smoothing = model, smoothing

    def __call__(self, batch: ListenerBatch, step: int) -> Loss:
        """Return the loss of one batch."""
        model, device = self.model, self.model.layer_norm.weight.device
        tokens_BN, mask_BN = pad_right([torch.tensor(row, device=device) for row in batch.tokens])
        state = model.start(batch.states_BTW.to(device), batch.frames_B.to(device))
        hidden_BNW = model(tokens_BN[:, :-1], state)
        asked = mask_BN[:, 1:].clone()
        asked[:, : batch.given - 1] = False
        logits, targets = model.logits(hidden_BNW[asked]), tokens_BN[:, 1:][asked]
        loss = nn.functional.cross_entropy(logits.float(), targets, label_smoothing=self.smoothing)
        return Loss(loss, {"accuracy": (logits.argmax(-1) == targets).float().mean().detach()})
