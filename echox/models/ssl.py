"""Hidden states of any Hugging Face speech encoder at one layer: HuBERT, WavLM, wav2vec 2.0, Whisper, and their kin.

A wave gets the same frames alone and in any batch.  Encoders whose first norm runs over time (`feat_extract_norm` =
"group", the Base sizes) see padding even under a mask, so only waves of equal length share their batches; the others
take padding and an attention mask; Whisper takes 30-second windows, as it was trained (short windows without that
padding are `encoder.py`).  It knows nothing about units.

    samples  |--------- hop ---------|--------- hop ---------|     one frame per hop, hop = product of the strides
    frame    |           0           |           1           |

Legend: B batch, D encoder width, S samples, T frames.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import nn
from transformers import AutoFeatureExtractor, AutoModel, PreTrainedConfig, PreTrainedModel

from echox.audio import SAMPLE_RATE
from echox.errors import InputError, ModelError, reason_of
from echox.features.logmel import HOP, log_mel
from echox.hub import on_hub
from echox.models.bounds import Classes, Few, Heads, Layers, Positions, Positive, Small, Wide, Width, check_values
from echox.models.encoder import FRAME_SAMPLES


class EncoderSizes:
    """What is held to bounds in the config.json of a speech encoder, under the names of all kinds."""

    hidden_size: Width
    d_model: Width
    num_hidden_layers: Layers
    encoder_layers: Layers
    decoder_layers: Layers
    num_attention_heads: Heads
    encoder_attention_heads: Heads
    decoder_attention_heads: Heads
    intermediate_size: Wide
    encoder_ffn_dim: Wide
    decoder_ffn_dim: Wide
    conv_dim: Annotated[list[Width], Few]
    conv_kernel: Annotated[list[Positive], Few]
    conv_stride: Annotated[list[Positive], Few]
    num_feat_extract_layers: Small
    num_conv_pos_embeddings: Positions
    num_conv_pos_embedding_groups: Positions
    conv_pos_kernel_size: Positions
    conv_depthwise_kernel_size: Positions
    num_adapter_layers: Layers
    adapter_kernel_size: Positive
    output_hidden_size: Width
    num_buckets: Positions
    max_source_positions: Positions
    max_target_positions: Positions
    num_mel_bins: Annotated[int, Field(strict=True, ge=1, le=512)]
    vocab_size: Classes
    num_labels: Classes


class HiddenStates:
    """Callable that encodes 16 kHz waves to the output of block `layer` (1 is the first, 0 what enters it).

    Whisper's last layer is followed by its final norm; every other layer is raw. Raises ModelError for a layer that
    does not exist.
    """

    def __init__(self, model: PreTrainedModel, layer: int, normalize: bool = False, extractor: Any = None) -> None:
        encoder: Any = model.encoder
        self.is_whisper = model.config.model_type == "whisper"
        self.num_layers = len(encoder.layers)
        if not 0 <= layer <= self.num_layers:
            raise ModelError(f"layer {layer} does not exist: the encoder has {self.num_layers} layers, 0 is its input.")
        self.final_norm: Any = encoder.layer_norm if self.is_whisper and layer == self.num_layers else None
        self.model: Any = (encoder if self.is_whisper else model).eval().requires_grad_(False)
        encoder.layers = encoder.layers[: max(layer, 1)]  # later blocks would be wasted work
        self.blocks: Any = encoder.layers
        self.layer = layer
        self.normalize, self.extractor = normalize, extractor
        self.config = model.config
        self.width: int = model.config.hidden_size
        self.hop = FRAME_SAMPLES if self.is_whisper else int(np.prod(model.config.conv_stride))

    @classmethod
    def from_pretrained(cls, name: str | Path, layer: int) -> "HiddenStates":
        """Load a hub name or folder at `layer`, with its feature extractor's normalisation; raises ModelError."""
        try:
            values = PreTrainedConfig.get_config_dict(name)[0]
            sizes = {key: values[key] for key in EncoderSizes.__annotations__ if values.get(key) is not None}
            check_values(EncoderSizes, sizes, f"{name}: its config.json")
            model = AutoModel.from_pretrained(name, dtype=torch.float32, trust_remote_code=False)
            extractor = AutoFeatureExtractor.from_pretrained(name, trust_remote_code=False)
        except ModelError:
            raise
        except Exception as error:  # transformers builds what settings say, and raises whatever that comes to
            reason = reason_of(error) if Path(name).is_dir() or on_hub(str(name)) else "there is no such folder"
            raise ModelError(
                f"{name} is not a speech encoder that can be loaded ({reason}): give the folder or the hub name of one."
            ) from error
        if getattr(extractor, "sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
            raise ModelError(f"{name} expects {extractor.sampling_rate} Hz; give an encoder for {SAMPLE_RATE} Hz.")
        kind = model.config.model_type
        if not hasattr(getattr(model, "encoder", None), "layers"):
            raise ModelError(f"{name} is a {kind} model without an encoder of layers.")
        if kind != "whisper" and not hasattr(model.config, "conv_stride"):
            raise ModelError(
                f"{name} is a {kind} model, which does not read waves: give HuBERT, WavLM, wav2vec 2.0 or Whisper."
            )
        return cls(model, layer, bool(getattr(extractor, "do_normalize", False)), extractor)

    def save(self, folder: str | Path) -> None:
        """Write the blocks that are run, in float16, and the feature extractor, to `folder`."""
        self.config.num_hidden_layers = len(self.blocks)
        half = {name: value.detach().half() for name, value in self.model.state_dict().items()}
        self.model.save_pretrained(folder, state_dict=half)
        self.extractor.save_pretrained(folder)

    def to(self, device: str | torch.device) -> "HiddenStates":
        """Move the weights to `device` and return self."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, waves: list[np.ndarray]) -> list[np.ndarray]:
        """Return frames, float32 [T, D], of each mono wave [S]; raises InputError for one shorter than a frame."""
        return [frames_TD.cpu().numpy() for frames_TD in self.states(waves)]

    def states(self, waves: list[np.ndarray]) -> list[torch.Tensor]:
        """Return the same frames as tensors, with gradients where the weights learn."""
        for wave in waves:
            if wave.ndim != 1 or self._frame_count(len(wave)) < 1:
                raise InputError(f"a wave of shape {wave.shape} is too short to encode: give at least 400 samples.")
        if self.is_whisper:
            return [self._encode_whisper(wave) for wave in waves]
        if self.normalize:
            waves = [(wave - wave.mean()) / np.sqrt(wave.var() + 1e-7) for wave in waves]
        if self.config.feat_extract_norm != "group":
            return self._encode_raw(waves)
        frames: dict[int, torch.Tensor] = {}
        for length in sorted({len(wave) for wave in waves}):
            batch = [i for i, wave in enumerate(waves) if len(wave) == length]
            frames.update(zip(batch, self._encode_raw([waves[i] for i in batch]), strict=True))
        return [frames[i] for i in range(len(waves))]

    def _encode_raw(self, waves: list[np.ndarray]) -> list[torch.Tensor]:
        """Encode waves in one padded batch; the mask is left out where all lengths agree."""
        lengths_B = torch.tensor([len(wave) for wave in waves])
        tensors = [torch.from_numpy(np.ascontiguousarray(wave, np.float32)) for wave in waves]
        waves_BS = nn.utils.rnn.pad_sequence(tensors, batch_first=True)
        mask_BS = torch.arange(waves_BS.shape[1]) < lengths_B[:, None]
        device = self.model.device
        padded = not bool(mask_BS.all())
        hidden_BTD = self._run(waves_BS.to(device), attention_mask=mask_BS.long().to(device) if padded else None)
        return [hidden_BTD[b, : self._frame_count(len(wave))] for b, wave in enumerate(waves)]

    def _encode_whisper(self, wave: np.ndarray) -> torch.Tensor:
        """Encode one wave in windows of 30 s, each padded with silence, and cut the frames of the padding."""
        window = self.config.max_source_positions * FRAME_SAMPLES
        pieces = [wave[start : start + window] for start in range(0, len(wave), window)]
        frames = []
        for piece in pieces:
            silence = np.zeros(window - len(piece), np.float32)
            mel_BFT, _ = log_mel([np.concatenate([piece.astype(np.float32), silence])], self.config.num_mel_bins)
            hidden_BTD = self._run(mel_BFT[..., : window // HOP].to(self.model.device))
            frames.append(hidden_BTD[0, : len(piece) // FRAME_SAMPLES])
        return torch.cat(frames)

    def _run(self, inputs: torch.Tensor, **kwargs: torch.Tensor | None) -> torch.Tensor:
        """Run the encoder and return what enters the first block (layer 0) or leaves the last one kept, [B, T, D]."""
        caught: list[torch.Tensor] = []

        def catch(_module: nn.Module, args: tuple, result: torch.Tensor | tuple) -> None:
            value = args[0] if self.layer == 0 else result
            caught.append(value[0] if isinstance(value, tuple) else value)

        handle = self.blocks[-1].register_forward_hook(catch)
        try:
            self.model(inputs, **kwargs)
        finally:
            handle.remove()
        hidden_BTD = caught[-1]
        return self.final_norm(hidden_BTD) if self.final_norm is not None else hidden_BTD

    def _frame_count(self, samples: int) -> int:
        """Return the frames of a wave of `samples`: the convolutions' own arithmetic, samples // hop for Whisper."""
        if self.is_whisper:
            return samples // FRAME_SAMPLES
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return max(samples, 0)
