"""Triples of speech, transcript and translation as examples; any part may be missing, and a loss takes the rows that it can.

    speech + transcript + translation    speech translation, recognition, text translation, alignment
    speech + transcript                  recognition, alignment
    transcript + translation             text translation

Encoder states stay on disk, as written by prepare/encode.py in float16, and are read when they are used; where an encoder is
part of the model (`states` none), rows hold where their sound is, and that is read instead. It knows no model.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, PositiveInt

from echox.audio import SAMPLE_RATE
from echox.config.load import Settings
from echox.data.batching import BucketedBatches
from echox.data.manifest import read_audio, read_jsonl, tell_dropped
from echox.data.states import paired, read_ragged, records_of
from echox.errors import InputError
from echox.text.cleaning import SOURCE, Cleaning, clean
from echox.text.pieces import Pieces

FRAMES_A_SECOND = 50
FRAMES_A_TOKEN = 12  # of encoder frames: what a row without speech counts in a batch


class TripleData(Settings):
    """Spoken corpora with their encoder states, pairs of text alone, and how both are written."""

    corpora: list[Path] = []
    states: list[Path] = []  # one folder a corpus
    held_out: list[Path] = []  # corpora that are only measured
    held_out_states: list[Path] = []
    pairs: list[Path] = []  # JSONL with `text` and `translation`
    held_out_pairs: list[Path] = []
    source: Cleaning = SOURCE
    target: Cleaning = Cleaning()
    max_cost: PositiveInt = 12_000  # encoder frames in a batch, padding included
    max_frames: int = Field(default=1500, ge=2)  # longer utterances are left out: 30 s
    max_tokens: PositiveInt = 120  # longer sentences are left out


@dataclass
class Triple:
    """Tokens of both sides without their end, and encoder states (T, D) or a recording; what is not known is empty, or none."""

    id: str
    transcript: list[int]
    translation: list[int]
    states_TD: np.ndarray | None = None
    record: dict[str, Any] | None = None  # of a manifest
    corpus: Path | None = None

    @property
    def spoken(self) -> bool:
        """Whether there is speech."""
        return self.states_TD is not None or self.record is not None

    @property
    def frames(self) -> int:
        """How long the speech is, in frames; 50 a second where no encoder has heard it yet."""
        if self.record is not None:
            return FRAMES_A_SECOND * int(self.record["samples"]) // int(self.record["sample_rate"])
        return 0 if self.states_TD is None else len(self.states_TD)

    @property
    def cost(self) -> int:
        """What the row counts in a batch, in frames."""
        tokens = max(len(self.transcript), len(self.translation)) + 1
        return self.frames if self.spoken else FRAMES_A_TOKEN * tokens

    def wave(self) -> np.ndarray:
        """Return the recording, float32 [samples] at 16 kHz; InputError where it cannot be read."""
        assert self.record is not None and self.corpus is not None  # noqa: S101  rows with states have no sound here
        return read_audio(self.record, self.corpus, SAMPLE_RATE)


class TripleBatches:
    """Batches that each hold a batch of every kind of rows: of those with speech, and of those without when there are any."""

    def __init__(self, kinds: Sequence[Sequence[Triple]], max_cost: int, seed: int) -> None:
        self.kinds = [
            BucketedBatches(
                [row.cost for row in rows], max_cost, lambda numbers, rng, rows=rows: [rows[n] for n in numbers], seed
            )
            for rows in kinds
            if rows
        ]
        if not self.kinds:
            raise InputError("there is nothing to train on: the data holds no usable row.")

    def __getitem__(self, number: int) -> list[Triple]:
        return [row for kind in self.kinds for row in kind[number]]


def read_triples(
    corpora: Sequence[Path], states: Sequence[Path] | None, data: TripleData, pieces: Pieces
) -> list[Triple]:
    """Return the usable utterances of corpora; InputError for one without transcript.

    Where `states` is none they are heard by an encoder of the model.
    """
    rows = []
    for corpus, folder in paired(corpora, corpora if states is None else states, "data.states or held_out_states"):
        found = ((record, None) for record in records_of(corpus)) if states is None else read_ragged(folder, corpus)
        for record, states_TD in found:
            row = triple_of(record, str(corpus), data, pieces)
            if states_TD is None:
                row.record, row.corpus = record, corpus
            else:
                row.states_TD = states_TD  # a view of the shard on disk
            rows.append(row)
    return _usable(rows, data, "utterances") if corpora else []


def read_pairs(paths: Sequence[Path], data: TripleData, pieces: Pieces) -> list[Triple]:
    """Return the usable text pairs of JSONL files; InputError for a line without one of its sides, or where none is left."""
    records = ((str(path), record) for path in paths for record in read_jsonl(path))
    rows = [triple_of(record, path, data, pieces, translated=True) for path, record in records]
    return _usable(rows, data, "text pairs") if paths else []


def triple_of(
    record: dict[str, Any], source: str, data: TripleData, pieces: Pieces, translated: bool = False
) -> Triple:
    """Return a record's tokens; InputError for an empty side that is needed."""
    found = []
    for name, rule, needed in (("text", data.source, True), ("translation", data.target, translated)):
        value = record.get(name) or ""
        ids = pieces.encode(clean(value, rule)) if isinstance(value, str) else []
        if needed and not ids:
            raise InputError(f"{source}: {record.get('id', 'a line')} has no usable `{name}`: give it one.")
        found.append(ids)
    return Triple(str(record.get("id", "")), *found)


def _usable(rows: list[Triple], data: TripleData, what: str) -> list[Triple]:
    """Return the rows that are not too long; others are counted and said, InputError when none is left."""
    kept, dropped = [], Counter[str]()
    for row in rows:
        if row.frames > data.max_frames:
            dropped[f"longer than {data.max_frames} frames"] += 1
        elif max(len(row.transcript), len(row.translation)) > data.max_tokens:
            dropped[f"longer than {data.max_tokens} tokens"] += 1
        else:
            kept.append(row)
    tell_dropped(dropped, len(kept), what)
    return kept
