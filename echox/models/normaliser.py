"""A speech normaliser: any voice's speech to the reduced units that one reference voice would have said (arXiv 2112.08352).

    frozen encoder's states ──convolution, transformer layers──► CTC over units and a blank ──collapse──► reduced units

The units of two voices saying the same words differ; these differ less. CTC never repeats a unit without a blank between, and what
it says is de-duplicated, as the unit language reads it (spec A2.1).

Legend: B batch, C units and the blank (last), D encoder width or that of the network, T frames.
"""

from itertools import groupby

import torch
from torch import nn
from transformers import PreTrainedConfig

from echox.errors import ModelError
from echox.models.bounds import Classes, Heads, Layers, Share, Wide, Width
from echox.models.io import WholePart
from echox.models.ragged import within
from echox.models.transformer import Block, EncoderLayer, sinusoids

KERNEL = 5


class NormaliserConfig(PreTrainedConfig):
    """Sizes of a normaliser."""

    model_type = "echox_normaliser"
    encoder_width: Width = 384
    encoder_layer: Layers = 1  # whose states it reads
    units: Classes = 256
    width: Width = 256
    layers: Layers = 2
    heads: Heads = 4
    ffn: Wide = 1024
    dropout: Share = 0.1


class Normaliser(WholePart[NormaliserConfig]):
    """Encoder states to log-probabilities over units and the blank."""

    config_class = NormaliserConfig

    def __init__(self, config: NormaliserConfig) -> None:
        super().__init__(config)
        if not config.units:
            raise ModelError(f"{config.model_type}: it tells no units apart.")
        block = Block(config.width, config.heads, config.ffn, config.dropout, config.dropout, config.dropout)
        self.front = nn.Conv1d(config.encoder_width, config.width, KERNEL, padding=KERNEL // 2)
        self.layers = nn.ModuleList(EncoderLayer(block) for _ in range(config.layers))
        self.norm, self.head = nn.LayerNorm(config.width), nn.Linear(config.width, config.units + 1)

    def forward(self, states_BTD: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, T, C) of states padded to the right."""
        mask_BT = within(lengths_B, states_BTD.shape[1])
        states_BTD = nn.functional.rms_norm(states_BTD.float(), states_BTD.shape[-1:]) * mask_BT[..., None]
        x_BTD = self.front(states_BTD.transpose(1, 2)).transpose(1, 2).to(self.norm.weight.dtype)
        x_BTD = x_BTD + sinusoids(x_BTD.shape[1], x_BTD.shape[2]).to(x_BTD)
        for layer in self.layers:
            x_BTD = layer(x_BTD, mask_BT)
        return self.head(self.norm(x_BTD)).float().log_softmax(-1)

    def check_width(self, width: int) -> None:
        """Raise ModelError unless states are as wide as those it was trained on."""
        if width != self.config.encoder_width:
            raise ModelError(
                f"the normaliser reads states {self.config.encoder_width} wide, the encoder makes {width}."
            )

    @torch.inference_mode()
    def units(self, states_BTD: torch.Tensor, lengths_B: torch.Tensor) -> list[list[int]]:
        """Return the reduced units of every row: the best class of each frame, runs and blanks taken out (no lexicon)."""
        best_BT = self(states_BTD, lengths_B).argmax(-1)
        return [
            collapse(row[:length].tolist(), self.config.units)
            for row, length in zip(best_BT, lengths_B.tolist(), strict=True)
        ]


def collapse(classes: list[int], blank: int) -> list[int]:
    """Return CTC classes without blanks and without equal neighbours, which are one unit once blanks are gone."""
    return [unit for unit, _ in groupby(c for c in classes if c != blank)]
