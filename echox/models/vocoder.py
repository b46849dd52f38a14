"""Units to waveform, one speaker: embedding, duration predictor and a generator (spec section 5); it knows no unit language.

    unit_ids U --embedding--> duration predictor --> durations U
        '------ repeated `durations` times ------> frames T --embedding--> generator --> samples T * hop

Two generators share the interface: `hifigan` is the released layout, `istft` the small one that a CPU trains and runs. All
layers are convolutions, so each sample depends on a stated number of frames and units around it. That makes streaming exact:
`stream` recomputes that context with every piece and returns the very samples of `speak`.

Legend: B batch, D embedding width, S samples, T frames (50 a second), U units.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from echox.errors import InputError, ModelError
from echox.models.convnext import ConvNeXtBlock
from echox.models.generators import (
    HifiganGenerator,
    IstftGenerator,
    VocoderConfig,
    add_weight_norm,
    check_config,
    from_released_names,
    remove_weight_norm,
)
from echox.models.io import Part
from echox.models.ragged import units_tensor

LONGEST_UNIT = 500  # frames, ten seconds: no voice holds a sound so long, broken weights do


class DurationPredictor(nn.Module):
    """Two blocks of convolution, ReLU, layer norm and dropout, then a line to log(duration + 1) (spec section 5)."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        width, kernel = config.duration_width, config.duration_kernel
        first = nn.Conv1d(config.embedding_dim, width, kernel, padding=kernel // 2)
        self.conv1 = nn.Sequential(first, nn.ReLU())
        self.ln1 = nn.LayerNorm(width)
        self.conv2 = nn.Sequential(nn.Conv1d(width, width, kernel, padding=kernel // 2), nn.ReLU())
        self.ln2 = nn.LayerNorm(width)
        self.proj = nn.Linear(width, 1)
        self.dropout = nn.Dropout(config.duration_dropout)
        self.context_units = 2 * (kernel // 2)

    def forward(self, embedded_BUD: torch.Tensor, mask_BU: torch.Tensor | None = None) -> torch.Tensor:
        """Return log(duration + 1) in frames, shape (B, U), from embedded units; masked units count as zero padding."""
        mask = None if mask_BU is None else mask_BU[:, :, None].to(embedded_BUD.dtype)
        hidden = embedded_BUD
        for conv, norm in ((self.conv1, self.ln1), (self.conv2, self.ln2)):
            hidden = hidden if mask is None else hidden * mask
            hidden = self.dropout(norm(conv(hidden.transpose(1, 2)).transpose(1, 2)))
        return self.proj(hidden)[:, :, 0]


class UnitVocoder(Part[VocoderConfig]):
    """Unit HiFi-GAN or its inverse-STFT sibling, with a duration predictor (spec section 5)."""

    state_width = 0  # it reads units alone

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__(config)
        check_config(config)
        self.embedding = nn.Embedding(config.num_units, config.embedding_dim)
        self.dur_predictor = DurationPredictor(config)
        self.generator = HifiganGenerator(config) if config.generator == "hifigan" else IstftGenerator(config)
        self.apply(self._start)
        if config.weight_norm:
            add_weight_norm(self.generator)

    def _start(self, module: nn.Module) -> None:
        """Start convolutions near zero, as HiFi-GAN does, and linear layers as Vocos does."""
        small = 0.01 if self.config.generator == "hifigan" else 0.02
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d | nn.Linear):
            nn.init.normal_(module.weight, std=small)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
        elif isinstance(module, ConvNeXtBlock):
            depth = self.config.trunk_layers + self.config.head_layers
            nn.init.constant_(module.scale, 1.0 / depth)

    @property
    def look_ahead(self) -> tuple[int, int]:
        """Units after a unit that its duration depends on, and frames after a frame that its samples depend on."""
        return self.dur_predictor.context_units, self.generator.context_frames

    def predict_durations(self, units_BU: torch.Tensor) -> torch.Tensor:
        """Return whole frames per unit, long (B, U): clamp(round(exp(p) - 1), 1, LONGEST_UNIT)."""
        log_BU = self.dur_predictor(self.embedding(units_BU))
        return torch.round(log_BU.float().exp() - 1).clamp(min=1, max=LONGEST_UNIT).long()

    def synthesize(self, frames_BT: torch.Tensor, mask_BT: torch.Tensor | None = None) -> torch.Tensor:
        """Return samples (B, T * hop) for one unit id per frame; frames outside the mask are silent."""
        return self.generator(self.embedding(frames_BT).transpose(1, 2), mask_BT)

    def forward(self, units_BU: torch.Tensor, durations_BU: torch.Tensor) -> torch.Tensor:
        """Return samples (B, S), S = hop * the longest row's frames, zero after each row; duration 0 marks padding."""
        frames_BT, mask_BT = expand(units_BU, durations_BU)
        return self.synthesize(frames_BT, None if bool(mask_BT.all()) else mask_BT)

    @torch.inference_mode()
    def speak(
        self,
        unit_ids: Sequence[int],
        durations: Sequence[int] | None = None,
        states_UW: torch.Tensor | None = None,
    ) -> np.ndarray:
        """Return the speech of one unit sequence, float32 [S] at `config.sample_rate`; it reads no states.

        InputError for an unknown unit.
        """
        if not len(unit_ids):
            return np.zeros(0, np.float32)
        units_BU = self.as_units(unit_ids)
        given = None if durations is None else torch.as_tensor(list(durations), device=self.device)[None]
        if given is not None and (given.shape != units_BU.shape or int(given.min()) < 1):
            raise InputError(
                f"{given.shape[1]} durations for {units_BU.shape[1]} units: give one of at least 1 to each."
            )
        wave_BS = self(units_BU, self.predict_durations(units_BU) if given is None else given)
        return wave_BS[0].float().cpu().numpy()

    def stream(self) -> "VocoderStream":
        """Return a fresh stream; any number may share one model."""
        return VocoderStream(self)

    def as_units(self, unit_ids: Sequence[int]) -> torch.Tensor:
        """Return ids as a (1, U) tensor on the model's device; InputError when one is outside the vocabulary."""
        return units_tensor(unit_ids, self.config.num_units, self.device)

    def remove_weight_norm(self) -> None:
        """Fold weight norm into plain weights, for use and for saving."""
        remove_weight_norm(self.generator)
        self.config.weight_norm = False

    def load_released(self, state: dict[str, torch.Tensor]) -> None:
        """Take every tensor of a released `generator` checkpoint; ModelError names missing and extra tensors."""
        add_weight_norm(self.generator)
        try:
            self.load_state_dict(from_released_names(state), strict=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ModelError(
                f"the checkpoint is not the vocoder that its configuration describes: {reason}."
            ) from error
        self.remove_weight_norm()


def expand(units_BU: torch.Tensor, durations_BU: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Repeat every unit `duration` times: frames (B, T), 0 where short, and the mask of real frames (B, T)."""
    ends_BU = durations_BU.cumsum(dim=1)
    time_BT = torch.arange(int(ends_BU[:, -1].max()), device=units_BU.device).expand(len(units_BU), -1).contiguous()
    index_BT = torch.searchsorted(ends_BU, time_BT, right=True)
    mask_BT = time_BT < ends_BU[:, -1:]
    frames_BT = units_BU.gather(1, index_BT.clamp(max=units_BU.shape[1] - 1))
    return frames_BT * mask_BT, mask_BT


class VocoderStream:
    """Speech of a growing unit sequence, piece by piece; together the pieces equal `UnitVocoder.speak`.

    units   ...known durations...|--units of look-ahead--|
    frames  ..spoken..|-- window: context + new + context --|
    """

    def __init__(self, vocoder: UnitVocoder) -> None:
        self.vocoder = vocoder
        self.units: list[int] = []
        self.frames: list[int] = []  # unit id of every frame whose duration is settled
        self.timed = 0  # units whose frames are in `frames`
        self.spoken = 0  # frames already returned
        self.rising_S = np.linspace(0, 1, vocoder.config.hop + 2, dtype=np.float32)[1:-1]
        self.fading_S = np.zeros(0, np.float32)  # the last frame that was settled, which fades into what follows

    def push(self, unit_ids: Sequence[int], states_UW: torch.Tensor | None = None) -> np.ndarray:
        """Add units and return the samples that no later unit can change, float32, perhaps none; it reads no states."""
        self.vocoder.as_units(unit_ids)
        self.units += [int(unit) for unit in unit_ids]
        units, frames = self.vocoder.look_ahead
        self._time(len(self.units) - units)
        return self._speak(len(self.frames) - frames)

    def settle(self) -> np.ndarray:
        """Return the speech of all units so far as if nothing followed, and go on: its last frame fades into what follows."""
        self._time(len(self.units))
        wave_S, hop = self._speak(len(self.frames)), self.vocoder.config.hop
        if len(wave_S):
            self.spoken -= 1
            self.fading_S = wave_S[-hop:] * self.rising_S[::-1]
        return wave_S[:-hop]

    def flush(self) -> np.ndarray:
        """Return the rest of the speech and begin a new sequence."""
        self._time(len(self.units))
        wave_S = self._speak(len(self.frames))
        self.units, self.frames, self.timed, self.spoken = [], [], 0, 0
        return wave_S

    @torch.inference_mode()
    def _time(self, end: int) -> None:
        """Settle the durations of units before `end`."""
        if end <= self.timed:
            return
        start = max(0, self.timed - self.vocoder.look_ahead[0])
        durations = self.vocoder.predict_durations(self.vocoder.as_units(self.units[start:]))[0].tolist()
        for index in range(self.timed, end):
            self.frames += [self.units[index]] * durations[index - start]
        self.timed = end

    @torch.inference_mode()
    def _speak(self, end: int) -> np.ndarray:
        """Return the samples of the frames from `spoken` to `end`, from a window with context on both sides."""
        if end <= self.spoken:
            return np.zeros(0, np.float32)
        context, hop = self.vocoder.look_ahead[1], self.vocoder.config.hop
        start = max(0, self.spoken - context)
        window_BT = self.vocoder.as_units(self.frames[start : end + context])
        wave_BS = self.vocoder.synthesize(window_BT)[:, (self.spoken - start) * hop : (end - start) * hop]
        self.spoken = end
        wave_S = wave_BS[0].float().cpu().numpy()
        if len(self.fading_S):
            wave_S[:hop] = wave_S[:hop] * self.rising_S + self.fading_S
            self.fading_S = self.fading_S[:0]
        return wave_S
