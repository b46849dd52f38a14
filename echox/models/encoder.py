"""Whisper's encoder, block by block, on windows of any length up to 30 s, frozen unless a model lets it learn.

    mel --conv1, conv2--> + positions --[ norm, attention, + ; norm, MLP, + ] x layers--> norm --> states

Names of tensors and sizes are those of Hugging Face's WhisperEncoder, which is the slow twin: a test holds that both give the same
numbers. It stands here for the reason given in llama.py; listener.py shares its attention.

Hugging Face's encoder takes 30-second windows only, at ten times the cost of the few seconds that a question lasts. Here
positions are sliced, and padded frames are masked in both convolutions and in attention, so that an utterance gets the same
states alone and in any batch. Shorter windows move the states of deep layers: train and serve with the same rule. It knows nothing
about units or language models.

    samples  |----320----|----320----|----320----|
    mel      |  0  |  1  |  2  |  3  |  4  |  5  |      100 a second
    frame    |     0     |     1     |     2     |       50 a second

Legend: B batch, D encoder width or, in attention, head width, F mel bins, H heads, N positions, T frames, W width.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import gelu, relu, scaled_dot_product_attention, silu
from transformers import PreTrainedConfig

from echox.errors import ModelError
from echox.features.logmel import HOP, log_mel
from echox.models.bounds import Classes, Heads, Layers, Positions, Wide, Width, check_heads, check_values
from echox.models.io import CONFIG, Part, Unfilled, check_tensors, read_config, save_part
from echox.models.ragged import within
from echox.models.weights import WeightFiles

FRAME_SAMPLES = 2 * HOP  # samples: 20 ms per encoder frame
MIN_SAMPLES = 2 * FRAME_SAMPLES
PREFIXES = ("model.encoder.", "encoder.")  # of the encoder's tensors in a whole Whisper
NOT_HEARING = ("decoder.", "model.decoder.", "proj_out.")  # tensors of a whole Whisper that are left in the file


Keys = tuple[torch.Tensor, torch.Tensor]  # keys and values, (B, H, N, D)
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": gelu,
    "relu": relu,
    "silu": silu,
    "gelu_new": partial(gelu, approximate="tanh"),
}


class WhisperConfig(PreTrainedConfig):
    """What is read of a Whisper folder's config.json; the defaults are tiny's."""

    model_type = "whisper"
    d_model: Width = 384
    encoder_layers: Layers = 4
    encoder_attention_heads: Heads = 6
    encoder_ffn_dim: Wide = 1536
    num_mel_bins: Annotated[int, Field(strict=True, ge=1, le=512)] = 80
    max_source_positions: Positions = 1500
    activation_function: Literal["gelu", "relu", "silu", "gelu_new"] = "gelu"
    vocab_size: Classes = 51865
    decoder_layers: Layers = 4
    decoder_attention_heads: Heads = 6
    decoder_ffn_dim: Wide = 1536
    max_target_positions: Positions = 448


class Attention(nn.Module):
    """Multi-head attention with Whisper's names; keys and values are handed in, so that they can be kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def split(self, x_BNW: torch.Tensor) -> torch.Tensor:
        """Return (B, H, N, D) of (B, N, W)."""
        return x_BNW.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, x_BNW: torch.Tensor) -> Keys:
        """Return keys and values (B, H, N, D) of what may be attended to."""
        return self.split(self.k_proj(x_BNW)), self.split(self.v_proj(x_BNW))

    def forward(
        self, x_BNW: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return what each position gathers, shape (B, N, W); `mask` is True where it may look."""
        found = scaled_dot_product_attention(self.split(self.q_proj(x_BNW)), keys, values, attn_mask=mask)
        return self.out_proj(found.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """One block of Whisper's encoder."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        W = config.d_model
        self.self_attn = Attention(W, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(W)
        self.activation = ACTIVATIONS[config.activation_function]
        self.fc1, self.fc2 = nn.Linear(W, config.encoder_ffn_dim), nn.Linear(config.encoder_ffn_dim, W)
        self.final_layer_norm = nn.LayerNorm(W)

    def forward(self, x_BTW: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return new states (B, T, W); `mask` as in `Attention`."""
        normed = self.self_attn_layer_norm(x_BTW)
        x_BTW = x_BTW + self.self_attn(normed, *self.self_attn.keys_values(normed), mask)
        x_BTW = x_BTW + self.fc2(self.activation(self.fc1(self.final_layer_norm(x_BTW))))
        if x_BTW.dtype == torch.float16:  # as in Hugging Face's: large models overflow otherwise
            limit = torch.finfo(x_BTW.dtype).max - 1000
            x_BTW = x_BTW.clamp(-limit, limit)
        return x_BTW


class WhisperEncoder(Part[WhisperConfig]):
    """The encoder's parts, which `SpeechEncoder` runs."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        W = config.d_model
        self.conv1 = nn.Conv1d(config.num_mel_bins, W, 3, padding=1)
        self.conv2 = nn.Conv1d(W, W, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, W)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(W)


class SpeechEncoder(nn.Module):
    """Whisper's encoder without the 30-second padding (spec section 2.1, step 1, on short windows)."""

    def __init__(self, whisper: WhisperEncoder, full_windows: bool = False) -> None:
        super().__init__()
        self.full_windows = full_windows  # each as long as the longest: Whisper's own way, and the released models'
        self.whisper = whisper.eval().requires_grad_(False)
        self.config: WhisperConfig = whisper.config
        self.width: int = self.config.d_model
        self.num_layers: int = self.config.encoder_layers
        self.max_frames: int = self.config.max_source_positions
        self.window_samples = self.max_frames * FRAME_SAMPLES

    @classmethod
    def from_pretrained(cls, folder: str | Path, full_windows: bool = False) -> "SpeechEncoder":
        """Load a Whisper folder, whole or encoder-only; ModelError names a folder that holds neither."""
        path = Path(folder)
        values = read_config(path) if (path / CONFIG).exists() else {}
        if values.get("model_type") != "whisper":
            raise ModelError(
                f"{path} is not a Whisper encoder folder: give one with config.json and model.safetensors."
            )
        return cls.from_files(values, WeightFiles(path), full_windows)

    @classmethod
    def from_files(
        cls, values: Mapping[str, Any], files: WeightFiles, full_windows: bool = False, prefix: str | None = None
    ) -> "SpeechEncoder":
        """Build an encoder from a Whisper's settings and tensors, of which only those under `prefix` count if it is given."""
        sizes = {name: values[name] for name in WhisperConfig.__annotations__ if name in values}
        check_values(WhisperConfig, sizes, files.folder / CONFIG)
        config = WhisperConfig(**sizes)
        check_heads(config.d_model, config.encoder_attention_heads, 1, str(files.folder / CONFIG))
        with torch.device("meta"), Unfilled():
            whisper = WhisperEncoder(config)
        held = {name: described for name, described in files.headers.items() if name.startswith(prefix or "")}
        if prefix is None:
            prefix = next((head for head in PREFIXES if f"{head}conv1.weight" in held), "")
        own = {prefix + name: value for name, value in whisper.state_dict().items()}
        check_tensors(files.place, held, own, skip=NOT_HEARING)
        state = {name.removeprefix(prefix): value.float() for name, value in files.read(own)}
        whisper.load_state_dict(state, assign=True)
        return cls(whisper, full_windows)

    def check_layer(self, layer: int, source: object) -> None:
        """Raise ModelError, which names `source`, unless there is such a layer; 1 is the first block's output."""
        if not 1 <= layer <= self.num_layers:
            raise ModelError(f"layer {layer} does not exist: {source} has layers 1 to {self.num_layers}.")

    def save(self, folder: str | Path) -> None:
        """Write the encoder alone to `folder`."""
        save_part(folder, self.whisper)

    def forward(
        self, mel_BFT: torch.Tensor, lengths_B: torch.Tensor, layers: tuple[int, ...]
    ) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
        """Return {layer: states (B, T, D)} and frame counts (B,) from mel frames, both zero beyond each length.

        Layer n is the output of the n-th block; the last one is followed by the encoder's final norm.
        """
        mel_BFT, lengths_B = mel_BFT[..., : 2 * (mel_BFT.shape[2] // 2)], lengths_B // 2
        T = mel_BFT.shape[2] // 2
        if self.max_frames < T:
            raise ModelError(f"{T} frames are more than the encoder's {self.max_frames}: split the audio first.")
        valid_BT = within(lengths_B.to(mel_BFT.device), T)
        valid_mel = valid_BT.repeat_interleave(2, dim=1)[:, None]
        hidden = gelu(self.whisper.conv1(mel_BFT * valid_mel)) * valid_mel
        hidden_BTD = gelu(self.whisper.conv2(hidden)).transpose(1, 2)
        hidden_BTD = hidden_BTD + self.whisper.embed_positions.weight[:T]
        mask = torch.zeros(valid_BT.shape, dtype=hidden_BTD.dtype, device=mel_BFT.device)
        mask = mask.masked_fill(~valid_BT, torch.finfo(hidden_BTD.dtype).min)[:, None, None]
        states = {}
        for number, block in enumerate(self.whisper.layers[: max(layers)], start=1):
            hidden_BTD = block(hidden_BTD, mask)
            if number in layers:
                last = number == self.num_layers
                states[number] = (self.whisper.layer_norm(hidden_BTD) if last else hidden_BTD) * valid_BT[..., None]
        return states, lengths_B

    def encode(self, waves: list[np.ndarray], layers: tuple[int, ...]) -> list[dict[int, torch.Tensor]]:
        """Return, for every 16 kHz wave, {layer: states (T, D)} with T = samples // 320; over 30 s in windows."""
        limit = self.window_samples
        pieces, owners = [], []
        for owner, wave in enumerate(waves):
            if self.full_windows:
                wave = np.pad(wave, (0, -len(wave) % limit))
            if len(wave) < MIN_SAMPLES:
                raise ModelError(f"{len(wave)} samples are too few to encode: give at least {MIN_SAMPLES}.")
            wave = wave[: len(wave) // FRAME_SAMPLES * FRAME_SAMPLES]
            count = -(-len(wave) // limit)
            step = -(-len(wave) // (count * FRAME_SAMPLES)) * FRAME_SAMPLES  # windows of equal length, none tiny
            pieces += [wave[i * step : (i + 1) * step] for i in range(count)]
            owners += [owner] * count
        weight = self.whisper.conv1.weight
        mel_BFT, lengths_B = log_mel(pieces, self.config.num_mel_bins)
        states, frames_B = self(mel_BFT.to(weight.device, weight.dtype), lengths_B, layers)
        results: list[dict[int, torch.Tensor]] = []
        for index in range(len(waves)):
            rows = [row for row, owner in enumerate(owners) if owner == index]
            results.append({n: torch.cat([s[row, : frames_B[row]] for row in rows]) for n, s in states.items()})
        return results
