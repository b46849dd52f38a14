"""Echo: the LLM's hidden states pass a denoising adapter into a decoder of unit words (spec sections 4 and 6); the only file
that knows both the LLM's width and T2C.

    hidden states that predict x_1..x_n --denoising adapter--> "embeddings of x" --echo decoder (from T2C)--> unit words

A T2C that spells makes an echo decoder that spells: the letters are those of the tokens x that the LLM has just chosen. With
`tokens` the decoder reads the embeddings of x as well, and what the states add passes a gate that starts at zero: before any
training it says exactly what its teacher would say of x.

Legend: H LLM width, I adapter width, N text positions.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from echox.errors import ModelError
from echox.models.bounds import Flag, Share, Wide
from echox.models.io import Part, load_config, load_module, save_part
from echox.models.spelling import TextLayout
from echox.models.t2c import T2CBatch, TextToCodec
from echox.models.t2c_config import T2CConfig


class EchoConfig(T2CConfig):
    """An echo decoder: T2C's sizes and the denoising adapter's width."""

    model_type = "echox_echo"
    denoise_width: Wide = 1536  # spec section 4.3: the LLM's intermediate size
    denoise_dropout: Share = 0.1
    tokens: Flag = False  # embeddings of the chosen tokens plus gated states; else states alone, spec section 4.3
    states: Flag = True  # False: no states at all, a control; without tokens too, letters alone are left
    shares_decoder: Flag = False  # True: the decoder is the T2C part beside it, and is not stored again


class EchoDecoder(Part[EchoConfig]):
    """Denoising adapter, where states are read, and echo decoder."""

    def __init__(self, config: EchoConfig, decoder: TextToCodec | None = None) -> None:
        """Build the part around `decoder`, or around one of its own."""
        super().__init__(config)
        H, I = config.llm_width, config.denoise_width
        if config.states:
            self.denoise = nn.Sequential(  # spec section 4.3, without its constant initialisation
                nn.Linear(H, I), nn.ReLU(), nn.Dropout(config.denoise_dropout), nn.Linear(I, H)
            )
            if config.tokens:
                self.gate = nn.Parameter(torch.zeros(()))
        self.t2c = decoder or TextToCodec(config)

    @classmethod
    def from_t2c(cls, teacher: TextToCodec, **settings: Any) -> "EchoDecoder":
        """Return an echo decoder whose decoder starts as a copy of `teacher` (spec section 1, stage III), or is `teacher`.

        `settings` are those of EchoConfig: with `shares_decoder` it is `teacher`; with `spelling` false the copy has no letters.
        """
        values = {k: v for k, v in teacher.config.to_diff_dict().items() if k not in ("model_type", "architectures")}
        config = EchoConfig(**values | settings)
        if config.shares_decoder:
            return cls(config, teacher)
        echo = cls(config)
        known = {name for name, _ in echo.t2c.named_parameters()}
        echo.t2c.load_state_dict({name: value for name, value in teacher.state_dict().items() if name in known})
        return echo

    @classmethod
    def load(cls, folder: str | Path, teacher: TextToCodec | None = None) -> "EchoDecoder":
        """Load a part saved by `save`; `teacher` is the T2C part whose decoder it may share. ModelError names what does not fit."""
        config = load_config(folder, EchoConfig)
        if config.shares_decoder and teacher is None:
            raise ModelError(f"{folder} shares the decoder of a T2C part: load it with that part.")
        shared = teacher if config.shares_decoder else None
        unused = () if config.states else ("denoise.",)  # older folders hold it all the same
        return load_module(folder, lambda: cls(config, shared), absent=("t2c.",) if shared else (), skip=unused)

    def save(self, folder: str | Path) -> None:
        """Write adapter and decoder to `folder`; a shared decoder stays where it is."""
        save_part(folder, self, absent=("t2c.",) if self.config.shares_decoder else ())

    @property
    def reads_tokens_alone(self) -> bool:
        """Whether nothing of the states comes through: the gate stands where it began."""
        return self.config.tokens and not (self.config.states and self.gate.item())

    def layout(self, pieces: list[str]) -> TextLayout:
        """Return where text tokens stand in the decoder, from their own texts, and what stands around their states."""
        return self.t2c.layout(pieces, self.config)

    def positions(self, states_NH: torch.Tensor, embeddings_NH: torch.Tensor) -> torch.Tensor:
        """Return what the decoder reads, (N, H): from the states that predict tokens, and those tokens' embeddings."""
        if not self.config.states:
            return embeddings_NH if self.config.tokens else torch.zeros_like(embeddings_NH)
        weight = next(self.denoise.parameters())
        denoised_NH = self.denoise(states_NH.to(weight.device, weight.dtype))
        return embeddings_NH + self.gate * denoised_NH if self.config.tokens else denoised_NH

    def forward(
        self, batch: T2CBatch, embeddings: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Return T2C's logits, targets and mask for hidden states in `batch.text`, and the positions (N, H) it reads."""
        device = self.t2c.head.weight.device
        read = [self.positions(h.to(device), e.to(device)) for h, e in zip(batch.text, embeddings, strict=True)]
        logits, targets, mask = self.t2c(replace(batch, text=read))
        return logits, targets, mask, read
