"""Spoken pairs as features and token sequences of every task, in memory but for the sound; it knows no model's sizes.

    source corpora (several voices a pair) ──read on use──► filterbank, or states encoded before
    target frames ──dedup──► units ──► main tokens          source frames, target frames, texts ──► tokens of the guides

Legend: F features, T frames, U tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from echox.config.load import Settings
from echox.data.example import text_of
from echox.data.manifest import read_audio
from echox.data.pairs import matched
from echox.data.states import read_ragged, records_of
from echox.errors import ConfigError, InputError
from echox.features.filterbank import filterbank, spec_augment
from echox.features.logmel import SAMPLE_RATE
from echox.models.ragged import pad_right
from echox.models.speech_to_units import PairBatch
from echox.units.sequence import deduplicate

Encode = Callable[[list["Pair"]], list[list[int]]]


class Sides(Settings):
    """Two sides of the same pairs: source corpora (ids `PAIR` or `PAIR@voice`) and one target corpus."""

    sources: list[Path]
    target: Path
    frames: Path  # frame-level units of the target
    source_frames: list[Path] = []  # of each source corpus, for tasks that write source units or words
    states: list[Path] = []  # of each source corpus: a frozen encoder's, instead of the filterbank


@dataclass
class Pair:
    """One source recording with the units of both sides; `states_TD` where a frozen encoder has read it."""

    id: str
    record: dict[str, Any]
    folder: Path
    target_units: np.ndarray
    source_units: np.ndarray | None = None
    states_TD: np.ndarray | None = None
    target_text: str | None = None

    @property
    def frames(self) -> int:
        """How long the features are: 100 a second, or as many as the encoder's states."""
        return (
            int(100 * self.record["samples"] / self.record["sample_rate"])
            if self.states_TD is None
            else len(self.states_TD)
        )

    def text(self, side: str) -> str:
        """Return what is said on one side; InputError where the corpus does not say."""
        if side == "source":
            return text_of(self.record, self.folder)
        if self.target_text is None:
            raise InputError(f"the target of {self.id} has no text: give its record a `text`, or train without it.")
        return self.target_text

    def features(self, mels: int) -> torch.Tensor:
        """Return (T, F)."""
        if self.states_TD is not None:
            return torch.from_numpy(self.states_TD.astype(np.float32))
        return filterbank(read_audio(self.record, self.folder, SAMPLE_RATE), mels)


def read_sides(sides: Sides) -> list[Pair]:
    """Return all pairs of two sides; InputError where one side is missing, ConfigError for unequal lists of folders."""
    for name in ("source_frames", "states"):
        found = getattr(sides, name)
        if found and len(found) != len(sides.sources):
            raise ConfigError(
                f"data.{name} names {len(found)} folders for {len(sides.sources)} corpora: give one to each."
            )
    units = {
        str(record["id"]): (deduplicate(row.astype(np.int64)).ids, record.get("text"))
        for record, row in read_ragged(sides.frames, sides.target)
    }
    pairs: list[Pair] = []
    for number, corpus in enumerate(sides.sources):
        frames = _by_id(sides.source_frames[number], corpus) if sides.source_frames else None
        states = _by_id(sides.states[number], corpus) if sides.states else None
        for record in records_of(corpus):
            pair = Pair(str(record["id"]), record, corpus, np.zeros(0, np.int64))
            if (frames is not None and pair.id not in frames) or (states is not None and pair.id not in states):
                continue  # left out when it was encoded, and named there
            pair.source_units = None if frames is None else deduplicate(frames[pair.id].astype(np.int64)).ids
            pair.states_TD = None if states is None else states[pair.id]  # a view of the shard on disk
            pairs.append(pair)
    for pair, (ids, text) in matched(pairs, units, str(sides.target), [pair.id for pair in pairs]):
        pair.target_units, pair.target_text = ids, text
    return pairs


def _by_id(folder: Path, corpus: Path) -> dict[str, np.ndarray]:
    return {str(record["id"]): row for record, row in read_ragged(folder, corpus)}


@dataclass
class Tasks:
    """The token sequences of every task, BOS and EOS included, beside the pairs they belong to."""

    pairs: list[Pair]
    tokens: Mapping[str, list[list[int]]]
    mels: int = 80
    augment: tuple[int, int] | None = (27, 100)  # widest band and span that SpecAugment masks; none: nothing is masked
    references: list[list[int]] = field(default_factory=list)

    @classmethod
    def of(cls, pairs: list[Pair], encoders: Mapping[str, Encode], bos: int, eos: int, **options: Any) -> "Tasks":
        """Return the tasks of `pairs` as `encoders` write them."""
        tokens = {name: [[bos, *row, eos] for row in encode(pairs)] for name, encode in encoders.items()}
        return cls(pairs, tokens, references=[pair.target_units.tolist() for pair in pairs], **options)

    @property
    def costs(self) -> list[int]:
        """What each pair counts in a batch: its frames."""
        return [pair.frames for pair in self.pairs]

    def within(self, frames: int, tokens: int) -> "Tasks":
        """Return those whose features and sequences are no longer than given."""
        rows = list(zip(*self.tokens.values(), strict=True))
        kept = [i for i, pair in enumerate(self.pairs) if pair.frames <= frames and max(map(len, rows[i])) <= tokens]
        return Tasks(
            [self.pairs[i] for i in kept],
            {name: [found[i] for i in kept] for name, found in self.tokens.items()},
            self.mels,
            self.augment,
            [self.references[i] for i in kept],
        )

    def batch(self, items: Sequence[int], rng: np.random.Generator | None) -> PairBatch:
        """Return the numbered pairs as a batch, masked by SpecAugment where a generator is given."""
        rows = [self.pairs[i].features(self.mels) for i in items]
        if rng is not None and self.augment is not None:
            rows = [spec_augment(row, rng, *self.augment) for row in rows]
        features_BTF, _ = pad_right(rows)
        tokens = {name: pad_right([torch.tensor(found[i]) for i in items]) for name, found in self.tokens.items()}
        return PairBatch(features_BTF, torch.tensor([len(row) for row in rows]), tokens)


def too_large(pairs: Sequence[Pair], units: int) -> str | None:
    """Return the id of a pair whose target has a unit outside the codebook of `units`, or None."""
    return next((pair.id for pair in pairs if len(pair.target_units) and pair.target_units.max() >= units), None)
