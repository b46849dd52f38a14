"""Spoken questions as encoder states with their transcripts and answers; it knows no model.

States are read once, as written by prepare/encode.py, and stay in memory in float16.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from echox.config.load import Settings
from echox.data.manifest import read_jsonl
from echox.models.ragged import pad_right
from echox.prepare.encode import read_ragged
from echox.text.truecase import Truecaser


class QuestionData(Settings):
    """Corpora of spoken questions, their encoder states, and the answers to learn."""

    corpora: list[Path]
    states: list[Path]  # one folder a corpus
    cased: list[Path] = []  # JSONL with `text` or `question`: where usual capitals are learnt
    answers: Path | None = None  # JSONL with `id`, `answer`; none: transcripts alone
    max_cost: int = 8000  # encoder frames in a batch, padding included
    max_frames: int = 750  # longer utterances are left out: 15 s
    held_out: int = Field(default=300, ge=1)  # utterances of the last corpus that are only measured


class SpokenQuestions:
    """Every usable utterance: states, transcript ids, answer ids."""

    def __init__(self, data: QuestionData, encode: Callable[[str], list[int]], stop: int | None = None) -> None:
        truecase = Truecaser(text for path in data.cased for text in texts_of(path) if text != text.lower())
        answers = {r["id"]: r["answer"] for r in read_jsonl(data.answers)} if data.answers else None
        self.records: list[dict[str, Any]] = []
        self.states: list[np.ndarray] = []
        self.transcripts: list[list[int]] = []
        self.answers: list[list[int]] = []
        for corpus, folder in zip(data.corpora, data.states, strict=True):
            for record, states_TD in read_ragged(folder, corpus):
                answer = None if answers is None else answers.get(question_id(record))
                if len(states_TD) > data.max_frames or (answers is not None and answer is None):
                    continue
                self.records.append(record)
                self.states.append(states_TD.copy())
                self.transcripts.append(encode(truecase(record["text"])))
                self.answers.append([*encode(answer), stop] if answer is not None and stop is not None else [])
        self.truecase = truecase
        self.typed_only = 0  # rows at the end that are never spoken

    def frames(self, items: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return padded states (B, T, D) in float32 and their lengths (B,)."""
        return self.pad([self.states[i] for i in items])

    @staticmethod
    def pad(rows: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return float16 rows (T, D) padded to (B, T, D) in float32, and their lengths (B,)."""
        tensors = [torch.from_numpy(row).float() for row in rows]
        return pad_right(tensors)[0], torch.tensor([len(row) for row in tensors])


def question_id(record: dict[str, Any]) -> str:
    """Return the id of the question that a spoken record renders."""
    return record.get("question_id", record["id"].partition("@")[0])


def texts_of(path: Path) -> list[str]:
    """Return the `text`, or else the `question`, of every line of a JSONL file."""
    return [record.get("text") or record.get("question") or "" for record in read_jsonl(path)]
