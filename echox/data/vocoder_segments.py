"""Speech and its frame units cut into training segments at unit boundaries; it knows samples and units, neither files nor models.

    units      | 7  | 2 |   9    | 4 | 31 |
    frames     | 7 7| 2 | 9 9 9 9| 4 | 31 31
                    |--- segment ---|            starts with a unit; its last unit may be cut, then it has no duration
    samples         |-- 320 a frame-|

A batch is a function of (seed, step): any step can be made without the ones before it, so a killed run resumes exactly.

Legend: B batch, S samples, T frames, U units.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from echox.audio import PCM16_SCALE, as_int16
from echox.errors import InputError
from echox.models.ragged import pad_right
from echox.units.sequence import deduplicate, run_starts


@dataclass
class SegmentBatch:
    """Equal lengths of speech; `whole_BU` marks the units whose duration is known, `durations_BU` is 0 at padding."""

    frames_BT: torch.Tensor  # long, one unit id per frame
    wave_BS: torch.Tensor  # float32, S = T * hop
    units_BU: torch.Tensor  # long
    durations_BU: torch.Tensor  # long
    whole_BU: torch.Tensor  # bool

    def to(self, device: torch.device) -> "SegmentBatch":
        """Return the batch on `device`."""
        return SegmentBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


class SpeechUnits:
    """All utterances end to end: int16 samples and one unit per frame, with the utterance borders."""

    def __init__(self, waves: Iterable[np.ndarray], frames: Iterable[np.ndarray], hop: int = 320) -> None:
        self.hop = hop
        kept_waves, kept_frames = [], []
        for wave, units in zip(waves, frames, strict=True):
            count = min(len(units), len(wave) // hop)
            cut = wave[: count * hop]
            kept_waves.append(cut if cut.dtype == np.int16 else as_int16(cut))
            kept_frames.append(np.asarray(units[:count], dtype=np.int32))
        if not kept_frames:
            raise InputError("there is no speech with units to train on: prepare the units first.")
        self.samples_S = np.concatenate(kept_waves)
        self.frames_T = np.concatenate(kept_frames)
        ends = np.cumsum([len(units) for units in kept_frames])
        self.spans = [(int(a), int(b)) for a, b in zip(np.r_[0, ends[:-1]], ends, strict=True)]

    def __len__(self) -> int:
        return len(self.spans)

    def utterance(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the wave, float32 [T * hop], and frame units [T] of one utterance."""
        a, b = self.spans[index]
        return self.samples_S[a * self.hop : b * self.hop].astype(np.float32) / PCM16_SCALE, self.frames_T[a:b]


def unit_table(
    rows: Sequence[np.ndarray], opens: Sequence[bool], closes: Sequence[bool]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return units, their lengths in frames (B, U), 0 where padded, and which lengths are whole (B, U) of rows of frames.

    The first unit of a row is whole where the row `opens` with it, the last one where the row `closes` with it.
    """
    runs = [deduplicate(row) for row in rows]
    whole = [torch.ones(len(run), dtype=torch.bool) for run in runs]
    for row, begins, ends in zip(whole, opens, closes, strict=True):
        row[:1] &= begins
        row[-1:] &= ends
    units, lengths = ([torch.from_numpy(getattr(run, name)) for run in runs] for name in ("ids", "durations"))
    return pad_right(units)[0], pad_right(lengths)[0], pad_right(whole)[0]


class Segments:
    """Seeded random segments of `segment_frames` frames, `batch_size` to a batch; shorter utterances are left out."""

    def __init__(self, speech: SpeechUnits, segment_frames: int, batch_size: int, seed: int = 0) -> None:
        self.speech, self.segment_frames, self.batch_size, self.seed = speech, segment_frames, batch_size, seed
        boundaries = [(a + run_starts(speech.frames_T[a:b]), b) for a, b in speech.spans]
        self.starts = np.concatenate([starts[starts + segment_frames <= end] for starts, end in boundaries])
        if not len(self.starts):
            raise InputError(f"no utterance is {segment_frames} frames long: lower segment_frames.")

    def __getitem__(self, step: int) -> SegmentBatch:
        """Return the batch of `step`."""
        random = np.random.default_rng((self.seed, step))
        return self.collate([int(a) for a in random.choice(self.starts, self.batch_size)])

    def collate(self, starts: list[int]) -> SegmentBatch:
        """Return the segments that begin at these frames."""
        hop, length = self.speech.hop, self.segment_frames
        frames_BT = np.stack([self.speech.frames_T[a : a + length] for a in starts]).astype(np.int64)
        wave_BS = np.stack([self.speech.samples_S[a * hop : (a + length) * hop] for a in starts])
        table = unit_table(list(frames_BT), [True] * len(starts), [False] * len(starts))  # the last unit may go on
        return SegmentBatch(
            torch.from_numpy(frames_BT), torch.from_numpy(wave_BS.astype(np.float32) / PCM16_SCALE), *table
        )
