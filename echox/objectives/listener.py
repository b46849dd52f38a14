"""Hearing by attention: cross-entropy on the words that were said; it knows no data format.

Legend: B batch, N text tokens, T frames, V vocabulary, W width.
"""

from dataclasses import dataclass

import torch
from torch import nn

from echox.models.listener import Listener
from echox.models.ragged import pad_right
from echox.objectives.loss import Loss, token_loss


@dataclass
class ListenerBatch:
    """Encoder states, right-padded, and the text tokens of each row, from the first of `begin` to the end token."""

    states_BTW: torch.Tensor
    frames_B: torch.Tensor
    tokens: list[list[int]]
    given: int  # tokens at the front that are not predicted


class Dictation(nn.Module):
    """The forward pass: what the listener expects of every token that is asked for, and the token itself."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.listener = listener

    def forward(self, batch: ListenerBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (N, V) and tokens (N,)."""
        model, device = self.listener, self.listener.layer_norm.weight.device
        tokens_BN, mask_BN = pad_right([torch.tensor(row, device=device) for row in batch.tokens])
        state = model.start(batch.states_BTW.to(device), batch.frames_B.to(device))
        hidden_BNW = model(tokens_BN[:, :-1], state)
        asked = mask_BN[:, 1:].clone()
        asked[:, : batch.given - 1] = False
        return model.logits(hidden_BNW[asked]), tokens_BN[:, 1:][asked]


def listener_loss(outputs: tuple[torch.Tensor, torch.Tensor], step: int = 0, smoothing: float = 0.0) -> Loss:
    """Return the loss of the text and its end given the speech, from logits (N, V) and tokens (N,)."""
    return token_loss(*outputs, smoothing)
