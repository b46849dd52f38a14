"""Utterances of stage `teacher` cut into training segments: units beside the decoder inputs that belong to them; it knows no model.

    units      |  5 frames  |  5 frames  | ...        50 a second
    latents    | 8 decoder  | 8 decoder  | ...        80 a second: segments start on a multiple of both

A batch is a function of (seed, step), so a killed run resumes exactly. Near a cut inside an utterance the network lacks the
context that it has in use: those rows are not `judged`.

Beside the frames lie the states in which a codec decoder writes their unit words, where the utterances have any (stage_teacher.py).

Legend: B batch, J decoder frames, L latents, T frames, U units, W the codec decoder's width.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from echox.data.vocoder_segments import unit_table
from echox.errors import InputError

VOICED_ABOVE = 40.0  # Hz; what is lower is no pitch
MEASURED = 2000  # utterances, at most so many, that mean and spread are taken of


@dataclass
class LatentBatch:
    """Equal lengths of speech; rows outside the masks hold zeros."""

    frames_BT: torch.Tensor  # long, one unit id per frame
    mask_BT: torch.Tensor  # bool, real frames
    states_BTW: torch.Tensor  # float32, zeros where a frame has none; W is 0 where no utterance has any
    latents_BJL: torch.Tensor  # float32
    f0_BJ: torch.Tensor  # Hz, 0 where unvoiced
    energy_BJ: torch.Tensor
    judged_BJ: torch.Tensor  # bool
    units_BU: torch.Tensor  # long
    lengths_BU: torch.Tensor  # long, frames
    whole_BU: torch.Tensor  # bool, units whose length is known

    def to(self, device: torch.device) -> "LatentBatch":
        """Return the batch on `device`."""
        return LatentBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


class Utterances:
    """All shards of a folder in memory; latents stay int8."""

    def __init__(self, folder: Path) -> None:
        shards = sorted(folder.glob("shard-*.npz"))
        if not shards:
            raise InputError(f"{folder} holds no shard-*.npz: run stage teacher first.")
        self.latents, self.scales, self.prosody, self.units = [], [], [], []
        self.states, self.state_of, writers = [], [], []
        self.places: list[tuple[int, int, int, int, int]] = []  # shard, latents from and to, units from and to
        for number, path in enumerate(shards):
            with np.load(path) as data:
                self.latents.append(data["latents"])
                self.scales.append(data["scale"])
                self.prosody.append(data["prosody"])
                self.units.append(data["units"])
                none = np.zeros((0, 0), np.float16), np.full(len(data["units"]), -1), np.zeros(0, np.float16)
                found = [data[name] for name in ("states", "state_of", "writer")] if "writer" in data else none
                for kept, part in zip((self.states, self.state_of, writers), found, strict=True):
                    kept.append(part)
                spans = [np.stack([o[:-1], o[1:]], axis=1) for o in (data["latent_offsets"], data["unit_offsets"])]
            self.places += [(number, int(a), int(b), int(c), int(d)) for (a, b), (c, d) in zip(*spans, strict=True)]
        self.writer_W = writers[0]  # the mark of the codec decoder, of no length where the utterances have no states
        if not all(np.array_equal(writer, self.writer_W) for writer in writers):
            raise InputError(
                f"{folder} holds states of several T2Cs, or of some shards alone: make it anew in one run."
            )

    @property
    def state_width(self) -> int:
        """W, 0 where the utterances have no states."""
        return len(self.writer_W)

    def __len__(self) -> int:
        return len(self.places)

    def frames(self, index: int) -> int:
        """Return the length of an utterance in unit frames."""
        _, _, _, start, end = self.places[index]
        return end - start

    def rows(self, index: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return latents (J, L) and prosody (J, 2) of an utterance from decoder frame `first`, at most `count`."""
        shard, start, end, _, _ = self.places[index]
        at = slice(start + first, min(end, start + first + count))
        prosody_J2 = self.prosody[shard][at].astype(np.float32)
        prosody_J2[prosody_J2[:, 0] <= VOICED_ABOVE, 0] = 0.0
        return self.latents[shard][at] * self.scales[shard], prosody_J2

    def unit_rows(self, index: int) -> np.ndarray:
        """Return the units (T,) of an utterance."""
        shard, _, _, start, end = self.places[index]
        return self.units[shard][start:end].astype(np.int64)

    def state_rows(self, index: int, first: int = 0, count: int | None = None) -> np.ndarray:
        """Return the state (T, W) beside frames of an utterance from `first` on, float32; zeros where there is none."""
        shard, _, _, start, end = self.places[index]
        of_T = self.state_of[shard][start:end][first:][:count]
        states_TW = np.zeros((len(of_T), self.state_width), np.float32)
        states_TW[of_T >= 0] = self.states[shard][of_T[of_T >= 0]]
        return states_TW

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and spread (L + 2,) of latents, log pitch where voiced, and energy, over some utterances."""
        chosen = range(0, len(self), -(-len(self) // MEASURED))
        latents, prosody = (
            np.concatenate(part) for part in zip(*(self.rows(i, 0, 1 << 30) for i in chosen), strict=True)
        )
        voiced = prosody[prosody[:, 0] > 0, 0]
        pitch = np.log(voiced) if len(voiced) > 1 else np.zeros(2, np.float32)
        columns = [
            (latents.mean(0), latents.std(0)),
            (pitch.mean(), pitch.std()),
            (prosody[:, 1].mean(), prosody[:, 1].std()),
        ]
        mean, spread = (np.concatenate([np.atleast_1d(pair[i]) for pair in columns]) for i in (0, 1))
        return mean.astype(np.float32), np.maximum(spread, 1e-3).astype(np.float32)


class LatentSegments:
    """Seeded random segments of utterances `first` on, short ones padded; `hops` are samples of a frame and of a row."""

    def __init__(
        self,
        utterances: Utterances,
        segment_frames: int,
        batch_size: int,
        hops: tuple[int, int],
        first: int = 0,
        seed: int = 0,
        margin: int = 8,
        stateless: float = 0.0,
    ) -> None:
        step = hops[1] // math.gcd(*hops)
        if segment_frames % step:
            raise InputError(f"segment_frames {segment_frames} is no multiple of {step}: change it.")
        self.utterances, self.length, self.size = utterances, segment_frames, batch_size
        self.seed, self.margin, self.stateless = seed, margin, stateless
        self.step, self.rows_per_step = step, hops[0] // math.gcd(*hops)
        self.chosen = np.arange(first, len(utterances))
        if not len(self.chosen):
            raise InputError("voice.held_out leaves nothing to train on: lower it.")
        weights = np.array([max(utterances.frames(int(i)), segment_frames // 2) for i in self.chosen], dtype=np.float64)
        self.weights = weights / weights.sum()

    def __getitem__(self, step: int) -> LatentBatch:
        """Return the batch of `step`."""
        random = np.random.default_rng((self.seed, step))
        places = []
        for index in random.choice(self.chosen, self.size, p=self.weights):
            spare = max(0, self.utterances.frames(index) - self.length)
            # a third of the segments begin or end with the utterance, where the network meets silence and zeros
            edge = random.random()
            if 1 / 6 <= edge <= 5 / 6:
                at = int(random.integers(spare // self.step + 1))
            else:
                at = 0 if edge < 1 / 6 else math.ceil(spare / self.step)
            places.append((int(index), self.step * at))
        batch = self.collate(places)
        if self.stateless:
            batch.states_BTW[torch.from_numpy(random.random(self.size) < self.stateless)] = 0.0
        return batch

    def collate(self, places: list[tuple[int, int]]) -> LatentBatch:
        """Return the segments (utterance, first frame); a first frame is a multiple of the step."""
        J = self.length // self.step * self.rows_per_step
        found = [self._segment(index, start, J) for index, start in places]
        opens, closes = ([one[i] for one in found] for i in (5, 6))
        table = unit_table([row[:count] for row, count, *_ in found], opens, closes)
        mask_BT = torch.arange(self.length) < torch.tensor([count for _, count, *_ in found])[:, None]
        frames_BT, latents, prosody, judged, states = (
            torch.from_numpy(np.stack([one[i] for one in found])) for i in (0, 2, 3, 4, 7)
        )
        return LatentBatch(frames_BT, mask_BT, states, latents, prosody[..., 0], prosody[..., 1], judged, *table)

    def _segment(self, index: int, start: int, J: int) -> tuple:
        """Return frames, how many are real, latents, prosody, judged rows, whether the utterance begins and ends here, states."""
        units = self.utterances.unit_rows(index)
        cut = units[start : start + self.length]
        opens, closes = start == 0, start + self.length >= len(units)
        latents_JL, prosody_J2 = self.utterances.rows(index, start // self.step * self.rows_per_step, J)
        judged = np.zeros(J, bool)
        margin = self.margin * self.rows_per_step // self.step
        judged[0 if opens else margin : len(latents_JL) if closes else len(latents_JL) - margin] = True
        row = np.pad(cut, (0, self.length - len(cut)))
        latents, prosody = (np.pad(part, ((0, J - len(part)), (0, 0))) for part in (latents_JL, prosody_J2))
        states_TW = self.utterances.state_rows(index, start, self.length)
        states = np.pad(states_TW, ((0, self.length - len(cut)), (0, 0)))
        return row, len(cut), latents, prosody, judged, opens, closes, states
