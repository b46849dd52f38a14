"""A speech encoder up to one of its layers as a part of a model: waves in, states out, frozen or learning; it knows no task.

Whisper hears windows as long as the sound (models/encoder.py), any other encoder of Hugging Face hears by its own rule
(ssl.py): the same states as stage `encode` caches. Its dropout and masks stay off, also while it learns.

Legend: D encoder width, T frames.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from echox.models.encoder import FRAME_SAMPLES, SpeechEncoder
from echox.models.io import CONFIG, read_config
from echox.models.ssl import HiddenStates


class Hearing(nn.Module):
    """A loaded encoder and the layer that is read."""

    def __init__(self, encoder: SpeechEncoder | HiddenStates, layer: int) -> None:
        super().__init__()
        self.layer, self._encoder = layer, (encoder,)  # a tuple, so that its weights have one name: those of `network`
        self.network: nn.Module = encoder.whisper if isinstance(encoder, SpeechEncoder) else encoder.model
        self.eval()

    @classmethod
    def from_pretrained(cls, folder: str | Path, layer: int) -> "Hearing":
        """Load a folder at `layer`, 1 the first block's output; ModelError for what cannot hear, or has no such layer."""
        path = Path(folder)
        kind = read_config(path).get("model_type") if (path / CONFIG).exists() else "whisper"
        if kind != "whisper":
            return cls(HiddenStates.from_pretrained(path, layer), layer)
        whisper = SpeechEncoder.from_pretrained(path)
        whisper.check_layer(layer, path)
        return cls(whisper, layer)

    @property
    def encoder(self) -> SpeechEncoder | HiddenStates:
        """The encoder with its rule of hearing."""
        return self._encoder[0]

    @property
    def width(self) -> int:
        """Width of the states."""
        return self.encoder.width

    @property
    def frame_samples(self) -> int:
        """Samples of 16 kHz sound a frame."""
        return self.encoder.hop if isinstance(self.encoder, HiddenStates) else FRAME_SAMPLES

    def train(self, mode: bool = True) -> "Hearing":
        """Stay as when it only hears."""
        return super().train(False)

    def forward(self, waves: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Return states (T, D) of each 16 kHz wave; gradients reach the weights where these learn."""
        if isinstance(self.encoder, HiddenStates):
            return self.encoder.states(list(waves))
        return [found[self.layer] for found in self.encoder.encode(list(waves), (self.layer,))]

    def save(self, folder: str | Path) -> None:
        """Write the encoder in float16 to `folder`, whence `from_pretrained` loads it."""
        self.encoder.save(folder)
