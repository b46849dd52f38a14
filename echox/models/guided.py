"""A textless translator with the decoders that guide it while it trains, each reading one layer of its encoder (spec A3.2).

    encoder ──tap 6──► source units       ──tap 8──► source unit language (CM)      ──tap 12──► target unit language (CL)

The guides are no part of the translator: nothing of them is saved with it, and it never runs them.

Legend: B batch, F features, T frames, U tokens, V vocabulary.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from echox.errors import ModelError
from echox.models.speech_to_units import SpeechToUnits
from echox.models.transformer import TransformerDecoder

MAIN = "main"


@dataclass(frozen=True)
class Guide:
    """One auxiliary decoder: the encoder layer it reads, the tokens it tells apart, its layers and dropout."""

    layer: int
    vocabulary: int
    layers: int = 2
    dropout: float = 0.3


@dataclass
class PairBatch:
    """Features padded to the right with their lengths, and the tokens of every task from BOS to EOS, one a row."""

    features_BTF: torch.Tensor
    lengths_B: torch.Tensor
    tokens: dict[str, tuple[torch.Tensor, torch.Tensor]]  # task: (tokens (B, U), mask (B, U))


@dataclass
class Predicted:
    """What one task predicts: logits (B, U, V), the tokens meant (B, U) and which of them are real."""

    logits_BUV: torch.Tensor
    targets_BU: torch.Tensor
    mask_BU: torch.Tensor


class Guided(nn.Module):
    """The translator and its guides; the forward pass of every task over one encoding."""

    def __init__(self, translator: SpeechToUnits, guides: dict[str, Guide]) -> None:
        super().__init__()
        self.translator, config = translator, translator.config
        for name, guide in guides.items():
            if not 1 <= guide.layer <= config.encoder_layers:
                raise ModelError(
                    f"task {name} reads layer {guide.layer}, the encoder has 1 to {config.encoder_layers}."
                )
        self.reads = {name: guide.layer for name, guide in guides.items()}
        pad = int(config.pad_token_id or 0)
        self.guides = nn.ModuleDict(
            {
                name: TransformerDecoder(
                    guide.vocabulary, guide.layers, replace(config.block, dropout=guide.dropout), pad
                )
                for name, guide in guides.items()
            }
        )

    def forward(self, batch: PairBatch) -> dict[str, Predicted]:
        """Return what the main decoder and every guide predict, by the task's name."""
        device = self.translator.norm.weight.device
        encoded = self.translator.encode(
            batch.features_BTF.to(device), batch.lengths_B.to(device), tuple(set(self.reads.values()))
        )
        found = {}
        for name, (tokens_BU, mask_BU) in batch.tokens.items():
            tokens_BU, mask_BU = tokens_BU.to(device), mask_BU.to(device)
            if name == MAIN:
                decoder, states_BTD, seen_BT = self.translator.decoder, encoded.memory_BTD, encoded.mask_BT
            else:
                decoder, (states_BTD, seen_BT) = self.guides[name], encoded.taps[self.reads[name]]
            logits_BUV = decoder(tokens_BU[:, :-1], states_BTD, seen_BT)
            found[name] = Predicted(logits_BUV, tokens_BU[:, 1:], mask_BU[:, 1:])
        return found
