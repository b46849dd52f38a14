"""Spoken pairs as features and token sequences of every task, in memory but for the sound; it knows no model's sizes.

    source corpora (several voices a pair) ──read on use──► filterbank, or states encoded before
    target frames ──dedup──► units ──► main tokens          source frames, target frames, texts ──► tokens of the guides

Legend: B batch, D width of an encoder's states, F features, T frames.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from echox.config.load import Settings
from echox.data.manifest import read_audio, text_of
from echox.data.pairs import matched
from echox.data.states import paired, read_ragged, records_of
from echox.errors import InputError
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
        if self.states_TD is not None:
            return len(self.states_TD)
        return int(100 * self.record["samples"] / self.record["sample_rate"])

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
    units = {
        str(record["id"]): (deduplicate(row.astype(np.int64)).ids, record.get("text"))
        for record, row in read_ragged(sides.frames, sides.target)
    }
    frames = _by_id(sides, sides.source_frames, "data.source_frames")
    states = _by_id(sides, sides.states, "data.states")
    pairs: list[Pair] = []
    for corpus, frames_of, states_of in zip(sides.sources, frames, states, strict=True):
        for record in records_of(corpus):
            pair = Pair(str(record["id"]), record, corpus, np.zeros(0, np.int64))
            if any(found is not None and pair.id not in found for found in (frames_of, states_of)):
                continue  # left out when it was encoded, and named there
            pair.source_units = None if frames_of is None else deduplicate(frames_of[pair.id].astype(np.int64)).ids
            pair.states_TD = None if states_of is None else states_of[pair.id]  # a view of the shard on disk
            pairs.append(pair)
    for pair, (ids, text) in matched(pairs, units, str(sides.target), [pair.id for pair in pairs]):
        pair.target_units, pair.target_text = ids, text
    return pairs


def _by_id(sides: Sides, folders: list[Path], name: str) -> list[dict[str, np.ndarray] | None]:
    """Return the arrays of every source corpus by id, or none of each where there are no folders."""
    if not folders:
        return [None] * len(sides.sources)
    places = paired(sides.sources, folders, name)
    return [{str(record["id"]): row for record, row in read_ragged(folder, corpus)} for corpus, folder in places]


@dataclass
class Tasks:
    """The token sequences of every task, BOS and EOS included, beside the pairs they belong to."""

    pairs: list[Pair]
    tokens: Mapping[str, list[list[int]]]
    mels: int = 80
    augment: tuple[int, int] | None = (27, 100)  # widest band and span that SpecAugment masks; none: nothing is masked

    @classmethod
    def of(
        cls,
        pairs: list[Pair],
        encoders: Mapping[str, Encode],
        ends: tuple[int, int],
        longest: tuple[int, int],
        **options: Any,
    ) -> "Tasks":
        """Return the tasks as `encoders` write them between `ends`, of pairs within the `longest` features and sequences."""
        bos, eos = ends
        frames, most = longest
        tokens = {name: [[bos, *row, eos] for row in encode(pairs)] for name, encode in encoders.items()}
        long = [max(map(len, rows)) > most for rows in zip(*tokens.values(), strict=True)]
        kept = [i for i, pair in enumerate(pairs) if pair.frames <= frames and not long[i]]
        return cls(
            [pairs[i] for i in kept], {name: [rows[i] for i in kept] for name, rows in tokens.items()}, **options
        )

    @property
    def costs(self) -> list[int]:
        """What each pair counts in a batch: its frames."""
        return [pair.frames for pair in self.pairs]

    def batch(self, items: Sequence[int], rng: np.random.Generator | None) -> PairBatch:
        """Return the numbered pairs as a batch, masked by SpecAugment where a generator is given."""
        rows = [self.pairs[i].features(self.mels) for i in items]
        if rng is not None and self.augment is not None:
            rows = [spec_augment(row, rng, *self.augment) for row in rows]
        features_BTF, _ = pad_right(rows)
        tokens = {name: pad_right([torch.tensor(found[i]) for i in items]) for name, found in self.tokens.items()}
        return PairBatch(features_BTF, torch.tensor([len(row) for row in rows]), tokens)
