"""Units to a teacher's own voice: a network writes what the teacher's decoder is given, the frozen decoder speaks.

    units U --duration network--> frames T, 50 a second --ConvNeXt blocks--> --stretched 5 : 8--> J, 80 a second --blocks-->
        latents, voicing, pitch, energy --decoder (spectral.py)--> spectra --Sound--> samples

Every layer sees a stated number of frames ahead (`look_ahead`) and is fed piece by piece, nothing is computed twice. `speak` is
the stream with everything in one piece. Who cannot wait for what is ahead lets the stream `settle`.

Units do not hold all that is said: beside each it may read the state in which a codec decoder wrote it (`state_width`), or zeros.

Legend: B batch, C width, D durations, J decoder frames, L latents, O outputs (L and three more), S samples, T frames, U units,
W the codec decoder's width.
"""

from bisect import bisect_left
from collections.abc import Sequence
from copy import deepcopy
from typing import Annotated, Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig

from echox.errors import ConfigError, InputError
from echox.models.bounds import Classes, Factor, Few, Odd, Positive, Rate, Samples, SideWidth, Small, Width
from echox.models.convnext import AheadStack, start_small
from echox.models.io import Part
from echox.models.ragged import units_tensor
from echox.models.spectral import Sound, SpectralConfig, SpectralDecoder, as_inputs, sound_ahead

FADE_SECONDS = 0.005  # at both ends of an utterance, so that utterances can be joined anywhere
PULL = 0.15  # how far the quantile that a duration is moves from the median for every frame that is owed
MOST_OWED = 2.0  # frames: at the most the quantile is 0.2 or 0.8, so that no duration is an unlikely one

Aheads = Annotated[list[Small] | tuple[Small, ...], Few]
Dilations = Annotated[list[Positive] | tuple[Positive, ...], Few]


class LatentVocoderConfig(PreTrainedConfig):
    """Sizes of the network and of the teacher's decoder; `aheads` are frames that each block sees of the future."""

    model_type = "echox_latent_vocoder"

    num_units: Classes = 256
    state_width: SideWidth = 0  # W: of the codec decoder whose states it reads beside units; 0: units alone
    width: Width = 256
    kernel: Odd = 7
    expansion: Positive = 3
    frame_aheads: Aheads = (3, 2, 2, 2, 0, 2, 2, 1)
    frame_dilations: Dilations = (1, 1, 2, 1, 4, 1, 2, 1)
    latent_aheads: Aheads = (1, 1, 1)
    duration_width: Width = 192
    duration_aheads: Aheads = (2, 1, 1)
    max_duration: Positive = 32  # frames
    duration_stretch: Factor = 1.0  # of the predicted durations: above 1 is slower speech
    hop: Samples = 480  # samples per frame
    sample_rate: Rate = 24_000
    decoder: dict[str, int] | None = None  # the settings of SpectralConfig that are not its defaults


def check_config(config: LatentVocoderConfig, decoder: SpectralConfig) -> None:
    """Raise ConfigError when the sizes of the network and its decoder do not fit together."""
    if decoder.sample_rate != config.sample_rate:
        raise ConfigError(f"sample_rate {config.sample_rate} is not the decoder's, {decoder.sample_rate}.")
    if len(config.frame_aheads) != len(config.frame_dilations):
        raise ConfigError("frame_aheads and frame_dilations must name the same number of blocks.")
    plain = [(ahead, 1) for ahead in (*config.latent_aheads, *config.duration_aheads)]
    for ahead, dilation in (*zip(config.frame_aheads, config.frame_dilations, strict=True), *plain):
        if ahead > (config.kernel - 1) * dilation:
            raise ConfigError(f"a block cannot see {ahead} frames ahead with a kernel of {config.kernel} x {dilation}.")


class UnitEmbedding(nn.Embedding):
    """Embeddings of units, and of the states in which they were written where it reads any."""

    def __init__(self, units: int, width: int, state_width: int) -> None:
        super().__init__(units, width)
        self.states = nn.Linear(state_width, width, bias=False) if state_width else None

    def forward(self, units_BU: torch.Tensor, states_BUW: torch.Tensor | None = None) -> torch.Tensor:
        """Return (B, U, C) of units; without states they count as zeros."""
        found_BUC = super().forward(units_BU)
        return found_BUC if self.states is None or states_BUW is None else found_BUC + self.states(states_BUW)


class DurationNetwork(nn.Module):
    """Units to logits of their durations, 1 to `max_duration` frames."""

    def __init__(self, config: LatentVocoderConfig) -> None:
        super().__init__()
        width, count = config.duration_width, len(config.duration_aheads)
        self.embedding = UnitEmbedding(config.num_units, width, config.state_width)
        self.blocks = AheadStack(width, config.duration_aheads, [1] * count, config.kernel, config.expansion)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.max_duration)

    def forward(
        self,
        units_BU: torch.Tensor,
        states_BUW: torch.Tensor | None = None,
        tails: list | None = None,
        last: bool = True,
        mask_BU: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the logits that are ready, (B, U, D); units outside the mask count as zeros."""
        mask_BU1 = None if mask_BU is None else mask_BU[..., None]
        return self.head(self.norm(self.blocks.run(self.embedding(units_BU, states_BUW), tails, last, mask_BU1)))


def mean_durations(shares_UD: torch.Tensor) -> torch.Tensor:
    """Return the mean frames (U,) of distributions of durations, whose first share is that of one frame."""
    return shares_UD @ torch.arange(1.0, shares_UD.shape[1] + 1, device=shares_UD.device)


class Pace:
    """Whole durations out of predicted distributions, so that neither each of them nor their sum goes far astray.

    A median rounds every short unit down. So what is owed to the sum of the predicted means pulls the next quantile up or down.
    """

    def __init__(self, stretch: float) -> None:
        self.stretch, self.owed = stretch, 0.0  # frames

    def pick(self, logits_UD: torch.Tensor) -> list[int]:
        """Return the frames of the next units, each at least 1."""
        shares_UD = logits_UD.float().softmax(-1).cpu()
        means, picked = mean_durations(shares_UD) * self.stretch, []
        for mean, below in zip(means.tolist(), shares_UD.cumsum(-1).tolist(), strict=True):
            picked.append(min(bisect_left(below, 0.5 + PULL * self.owed) + 1, len(below)))
            self.owed = min(MOST_OWED, max(-MOST_OWED, self.owed + mean - picked[-1]))
        return picked


class Stretch:
    """Linear interpolation from frames to decoder frames, piece by piece; the outermost frames repeat themselves."""

    def __init__(self, hop: int, decoder_hop: int) -> None:
        self.hop, self.decoder_hop = hop, decoder_hop
        self.rows_BTC: torch.Tensor | None = None
        self.first = self.made = 0  # absolute numbers of the first frame kept, and of the next output

    def push(self, new_BTC: torch.Tensor, last: bool = True) -> torch.Tensor:
        """Return the decoder frames (B, J, C) whose neighbours are known."""
        rows = new_BTC if self.rows_BTC is None else torch.cat([self.rows_BTC, new_BTC], dim=1)
        end, whole = self.first + rows.shape[1], 2 * self.hop
        number = torch.arange(self.made, -(-end * self.hop // self.decoder_hop), device=rows.device)
        place = (2 * number + 1) * self.decoder_hop - self.hop  # of the middle of a decoder frame, in half samples
        low = torch.div(place, whole, rounding_mode="floor")
        if not last:
            low = low[low + 1 < end]
        share = ((place[: len(low)] - low * whole) / whole)[:, None].to(rows.dtype)
        left, right = (rows[:, at.clamp(0, max(0, end - 1)) - self.first] for at in (low, low + 1))
        self.made += len(low)
        following = ((2 * self.made + 1) * self.decoder_hop - self.hop) // whole
        kept = min(max(following, self.first), end)
        self.rows_BTC, self.first = rows[:, kept - self.first :], kept
        return left + (right - left) * share


class LatentVocoder(Part[LatentVocoderConfig]):
    """Units to latents to the teacher's decoder, with its own durations; the surface is `UnitVocoder`'s."""

    writer_W: torch.Tensor | None  # the mark of the codec decoder whose states it learnt to read
    mean_O: torch.Tensor
    spread_O: torch.Tensor

    def __init__(self, config: LatentVocoderConfig) -> None:
        super().__init__(config)
        given: dict[str, Any] = dict(config.decoder or {})
        sizes = SpectralConfig(**given)
        check_config(config, sizes)
        count = len(config.latent_aheads)
        blocks = (config.kernel, config.expansion)
        self.embedding = UnitEmbedding(config.num_units, config.width, config.state_width)
        self.frame_blocks = AheadStack(config.width, config.frame_aheads, config.frame_dilations, *blocks)
        self.latent_blocks = AheadStack(config.width, config.latent_aheads, [1] * count, *blocks)
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, sizes.latents + 3)  # latents, log pitch, energy, voicing
        self.durations = DurationNetwork(config)
        self.decoder = SpectralDecoder(sizes)
        self.register_buffer("writer_W", torch.zeros(config.state_width) if config.state_width else None)
        self.register_buffer("mean_O", torch.zeros(sizes.latents + 2))  # of latents, log pitch and energy
        self.register_buffer("spread_O", torch.ones(sizes.latents + 2))
        self.apply(start_small)

    @property
    def state_width(self) -> int:
        """How wide the states are that it reads beside units; 0: it reads none."""
        return int(self.config.state_width)

    def reads(self, mark_W: torch.Tensor) -> bool:
        """Say whether it learnt with the codec decoder of this mark, or reads no states."""
        return self.writer_W is None or torch.equal(self.writer_W.half(), mark_W.to(self.device).half())

    @property
    def look_ahead(self) -> tuple[int, int]:
        """Units after a unit that its duration depends on, and frames after a frame that its samples depend on."""
        later = self.latent_blocks.ahead + self.decoder.ahead + sound_ahead(self.decoder.config)
        frames = -(-later * self.decoder.config.hop // self.config.hop)
        return self.durations.blocks.ahead, self.frame_blocks.ahead + 1 + frames

    def predict(
        self, frames_BT: torch.Tensor, mask_BT: torch.Tensor | None = None, states_BTW: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return standardised outputs (B, J, L + 3) for a unit id, and perhaps a state, per frame; rows end with the mask."""
        hop, decoder_hop = self.config.hop, self.decoder.config.hop
        mask = None if mask_BT is None else mask_BT[..., None]
        states = self.frame_blocks.run(self.embedding(frames_BT, states_BTW), mask_BT1=mask)
        if mask is not None:  # the last frame of every row repeats itself, not only that of the longest
            ends_B11 = mask.sum(1, keepdim=True) - 1
            states = torch.where(mask, states, states.gather(1, ends_B11.expand(-1, 1, states.shape[2])))
        states = Stretch(hop, decoder_hop).push(states)
        if mask is not None:
            mask = mask[:, torch.arange(states.shape[1], device=mask.device) * decoder_hop // hop]
        return self.head(self.norm(self.latent_blocks.run(states, mask_BT1=mask)))

    def decoder_inputs(self, outputs_BJO: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs (B, J, L + 2) of the decoder and pitch (B, J) in Hz, 0 where unvoiced, from `predict`."""
        plain_BJO = outputs_BJO[..., :-1] * self.spread_O + self.mean_O
        f0_BJ = plain_BJO[..., -2].exp() * (outputs_BJO[..., -1] > 0)
        return as_inputs(plain_BJO[..., :-2], f0_BJ, plain_BJO[..., -1]), f0_BJ

    def predict_durations(self, units_BU: torch.Tensor, states_BUW: torch.Tensor | None = None) -> torch.Tensor:
        """Return whole frames per unit, long (B, U)."""
        rows = [Pace(self.config.duration_stretch).pick(row) for row in self.durations(units_BU, states_BUW)]
        return torch.tensor(rows, dtype=torch.long, device=units_BU.device)

    def speak(
        self,
        unit_ids: Sequence[int],
        durations: Sequence[int] | None = None,
        states_UW: torch.Tensor | None = None,
    ) -> np.ndarray:
        """Return the speech of one unit sequence, float32 [S] at `config.sample_rate`; InputError for an unknown unit."""
        speech = self.stream(durations)
        return np.concatenate([speech.push(unit_ids, states_UW), speech.flush()])

    def stream(self, durations: Sequence[int] | None = None) -> "LatentStream":
        """Return a fresh stream; with `durations`, one is taken for each unit pushed."""
        return LatentStream(self, durations)

    def as_units(self, unit_ids: Sequence[int]) -> torch.Tensor:
        """Return ids as a (1, U) tensor on the model's device; InputError when one is outside the vocabulary."""
        return units_tensor(unit_ids, self.config.num_units, self.device)

    def as_states(self, states_UW: torch.Tensor | None, units: int) -> torch.Tensor:
        """Return what is read beside so many units, (1, U, W): zeros for None; InputError when the states do not fit."""
        W = self.state_width
        if states_UW is None or not W:
            return self.mean_O.new_zeros(1, units, W)
        if tuple(states_UW.shape) != (units, W):
            raise InputError(
                f"states {tuple(states_UW.shape)} came with {units} units: this vocoder reads ({units}, {W})."
            )
        return states_UW.to(self.mean_O)[None]


class LatentStream:
    """Speech of a growing unit sequence; together the pieces equal `LatentVocoder.speak`, up to rounding."""

    def __init__(self, vocoder: LatentVocoder, durations: Sequence[int] | None = None) -> None:
        self.vocoder = vocoder
        self.given = None if durations is None else [int(duration) for duration in durations]
        if self.given and min(self.given) < 1:
            raise InputError("a duration is below 1: give every unit at least one frame.")
        fade = int(FADE_SECONDS * vocoder.config.sample_rate)
        self.fade_S = torch.linspace(0, 1, fade + 2, device=vocoder.device)[1:-1]
        self._begin()

    def _begin(self) -> None:
        model = self.vocoder
        self.waiting: list[int] = []  # units without a duration
        self.waiting_UW = model.as_states(None, 0)[0]  # and their states
        self.unit_tails, self.decoder_tails = model.durations.blocks.tails(), model.decoder.tails()
        self.frame_tails, self.latent_tails = model.frame_blocks.tails(), model.latent_blocks.tails()
        self.stretch = Stretch(model.config.hop, model.decoder.config.hop)
        self.sound, self.pace = Sound(model.decoder.config, model.device), Pace(model.config.duration_stretch)
        self.frames = self.spoken = self.faded = 0  # frames pushed, samples made, samples faded in
        self.held_S = torch.zeros(0, device=model.device)  # perhaps the last samples, which fade out
        self.settled = 0  # units whose durations were given before their future was known
        self.away = 0  # samples that were
        self.fading_S = torch.zeros(0, device=model.device)  # the end of those samples, which fades into what follows

    def push(self, unit_ids: Sequence[int], states_UW: torch.Tensor | None = None) -> np.ndarray:
        """Add units, with the states in which they were written, and return the samples that no later unit can change.

        Samples are float32, perhaps none.
        """
        states_BUW = self.vocoder.as_states(states_UW, len(unit_ids))
        return self._push(self.vocoder.as_units(unit_ids), states_BUW, last=False).cpu().numpy()

    @torch.inference_mode()
    def settle(self) -> np.ndarray:
        """Return the speech of all units so far as if nothing followed, and go on: it passes into what follows by a short fade."""
        units_BU, states_BUW = self.vocoder.as_units([]), self.vocoder.as_states(None, 0)
        if not (self.waiting or self.frames):
            return np.zeros(0, np.float32)
        if self.waiting and self.given is None:
            logits = self.vocoder.durations(units_BU, states_BUW, deepcopy(self.unit_tails), last=True)[0]
            durations = self.pace.pick(logits[self.settled :])
            self.settled = len(logits)
            wave_S = self._speak(*self._frames(durations), last=False)
        else:
            wave_S = self.held_S[:0]
        shared = {id(one): one for one in (self.vocoder, self.fade_S, self.sound.hann_S, self.sound.noise_TF)}
        as_last, fade = deepcopy(self, shared), len(self.fade_S)
        ended_S = as_last._push(units_BU, states_BUW, last=True)
        count = max(0, len(ended_S) - fade)
        self.away += count - len(self.held_S)
        self.fading_S, self.held_S, self.faded = ended_S[count:], self.held_S[:0], fade
        return torch.cat([wave_S, ended_S[:count]]).cpu().numpy()

    def flush(self) -> np.ndarray:
        """Return the rest of the speech and begin a new sequence; InputError when given durations do not fit."""
        wave_S = self._push(self.vocoder.as_units([]), self.vocoder.as_states(None, 0), last=True).cpu().numpy()
        if self.given:
            raise InputError(f"{len(self.given)} durations are left over: give one to each unit.")
        self._begin()
        return wave_S

    @torch.inference_mode()
    def _push(self, units_BU: torch.Tensor, states_BUW: torch.Tensor, last: bool) -> torch.Tensor:
        self.waiting += units_BU[0].tolist()
        self.waiting_UW = torch.cat([self.waiting_UW, states_BUW[0]])
        return self._speak(*self._frames(self._durations(units_BU, states_BUW, last)), last)

    def _durations(self, units_BU: torch.Tensor, states_BUW: torch.Tensor, last: bool) -> list[int]:
        """Return the durations of the first waiting units, as many as are known."""
        if self.given is not None:
            count = len(self.waiting)
            if count > len(self.given):
                raise InputError(f"{count} units came with {len(self.given)} durations: give one to each unit.")
            durations, self.given = self.given[:count], self.given[count:]
            return durations
        logits = self.vocoder.durations(units_BU, states_BUW, self.unit_tails, last)[0]
        known = min(self.settled, len(logits))
        self.settled -= known
        return self.pace.pick(logits[known:])

    def _frames(self, durations: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the frames (1, T) of the first waiting units, and the states (1, T, W) beside them."""
        count, device = len(durations), self.vocoder.device
        repeats = torch.tensor(durations, dtype=torch.long, device=device)
        frames_T = torch.tensor(self.waiting[:count], dtype=torch.long, device=device).repeat_interleave(repeats)
        states_TW = self.waiting_UW[:count].repeat_interleave(repeats, dim=0)
        self.waiting, self.waiting_UW = self.waiting[count:], self.waiting_UW[count:]
        return frames_T[None], states_TW[None]

    def _speak(self, frames_BT: torch.Tensor, states_BTW: torch.Tensor, last: bool) -> torch.Tensor:
        """Return the samples that are ready, and at the end all."""
        self.frames += frames_BT.shape[1]
        if not self.frames or not (frames_BT.numel() or last):
            return self.held_S[:0]
        model = self.vocoder
        states = model.frame_blocks.run(model.embedding(frames_BT, states_BTW), self.frame_tails, last)
        states = model.latent_blocks.run(self.stretch.push(states, last), self.latent_tails, last)
        inputs_BJI, f0_BJ = model.decoder_inputs(model.head(model.norm(states)).float())
        spectra_BJX = model.decoder(inputs_BJI, self.decoder_tails, last)
        return self._smooth(self.sound.push(spectra_BJX[0].float(), f0_BJ[0], last), last)

    def _smooth(self, wave_S: torch.Tensor, last: bool) -> torch.Tensor:
        """Fade the utterance in and out, and cut it to a whole number of frames."""
        if last:  # the last decoder frame may reach past the last frame
            wave_S = wave_S[: self.frames * self.vocoder.config.hop - self.spoken]
        self.spoken += len(wave_S)
        known = min(self.away, len(wave_S))
        self.away, wave_S = self.away - known, wave_S[known:]
        both = min(len(self.fading_S), len(wave_S))
        rising_S = self.fade_S[len(self.fade_S) - len(self.fading_S) :][:both]
        wave_S = torch.cat([wave_S[:both] * rising_S + self.fading_S[:both], wave_S[both:]])
        self.fading_S = self.fading_S[both:]
        fresh = self.fade_S[self.faded : self.faded + len(wave_S)]
        wave_S = torch.cat([wave_S[: len(fresh)] * fresh, wave_S[len(fresh) :]])
        self.faded += len(fresh)
        wave_S = torch.cat([self.held_S, wave_S])
        if not last:
            cut = max(0, len(wave_S) - len(self.fade_S))
            self.held_S = wave_S[cut:]
            return wave_S[:cut]
        length = min(len(self.fade_S), len(wave_S))
        return torch.cat(
            [wave_S[: len(wave_S) - length], wave_S[len(wave_S) - length :] * self.fade_S[:length].flip(0)]
        )
