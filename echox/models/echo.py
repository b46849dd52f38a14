"""Echo: the LLM's hidden states pass a denoising adapter into a decoder of unit words (spec sections 4 and 6); the only file
that knows both the LLM's width and T2C.

    hidden states that predict x_1..x_n --denoising adapter--> "embeddings of x" --echo decoder (from T2C)--> unit words

A T2C that spells makes an echo decoder that spells: the letters are those of the tokens x that the LLM has just chosen.

Legend: H LLM width, I adapter width, N text positions.
"""

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from echox.models.io import load_config, load_part, save_part
from echox.models.t2c import T2CBatch, T2CConfig, TextToCodec


class EchoConfig(T2CConfig):
    """An echo decoder: T2C's sizes and the denoising adapter's width."""

    model_type = "echox_echo"
    denoise_width: int = 1536  # spec section 4.3: the LLM's intermediate size
    denoise_dropout: float = 0.1


class EchoDecoder(PreTrainedModel):
    """Denoising adapter and echo decoder."""

    config_class = EchoConfig

    def __init__(self, config: EchoConfig) -> None:
        super().__init__(config)
        H, I = config.llm_width, config.denoise_width
        self.denoise = nn.Sequential(  # spec section 4.3, without its constant initialisation
            nn.Linear(H, I), nn.ReLU(), nn.Dropout(config.denoise_dropout), nn.Linear(I, H)
        )
        self.t2c = TextToCodec(config)

    @classmethod
    def from_t2c(cls, teacher: TextToCodec, denoise_width: int = 1536) -> "EchoDecoder":
        """Return an echo decoder whose decoder starts as a copy of `teacher` (spec section 1, stage III)."""
        values = {k: v for k, v in teacher.config.to_diff_dict().items() if k not in ("model_type", "architectures")}
        echo = cls(EchoConfig(**values | {"denoise_width": denoise_width}))
        echo.t2c.load_state_dict(teacher.state_dict())
        return echo

    @classmethod
    def load(cls, folder: str | Path) -> "EchoDecoder":
        """Load a part saved by `save`; ModelError names what does not fit."""
        model = cls(load_config(folder, EchoConfig))
        load_part(folder, model)
        return model

    def save(self, folder: str | Path) -> None:
        """Write adapter and decoder to `folder`."""
        save_part(folder, self)

    def forward(self, batch: T2CBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Return T2C's logits, targets and mask for hidden states in `batch.text`, and the denoised states (N, H)."""
        device = self.t2c.head.weight.device
        denoised = [self.denoise(hidden_NH.to(device)) for hidden_NH in batch.text]
        logits, targets, mask = self.t2c(T2CBatch(denoised, batch.layouts, batch.words))
        return logits, targets, mask, denoised
