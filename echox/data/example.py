"""Questions with their transcripts and answers as examples to learn from, spoken or only ever typed; it knows no model.

Encoder states stay on disk, as written by prepare/encode.py in float16, and are read when they are used.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pydantic import PositiveInt

from echox.config.load import Settings
from echox.data.manifest import question_id, read_fields, tell_dropped, text_of, texts_of
from echox.data.states import paired, read_ragged
from echox.errors import ConfigError
from echox.models.ragged import pad_right
from echox.text.truecase import Truecaser

Encode = Callable[[str], list[int]]


class QuestionData(Settings):
    """Corpora of spoken questions, their encoder states, and the answers to learn."""

    corpora: list[Path]
    states: list[Path]  # one folder a corpus
    cased: list[Path] = []  # JSONL with `text` or `question`: where usual capitals are learnt
    answers: Path | None = None  # JSONL with `id`, `answer`; none: transcripts alone
    max_cost: PositiveInt = 8000  # encoder frames and LLM tokens in a batch, padding included
    max_frames: PositiveInt = 750  # longer utterances are left out: 15 s
    held_out: PositiveInt = 300  # questions at the end, spoken where there are corpora, that are only measured


@dataclass
class Example:
    """A question as tokens and, when it was spoken, as encoder states (T, D); its answer ends with the stop token."""

    id: str
    transcript: list[int]
    answer: list[int]
    states_TD: np.ndarray | None = None  # none: it is only ever typed

    def cost(self, prompt: int = 0) -> int:
        """Return what the row counts in a batch: frames, or tokens where it is only typed, its answer, and those of the prompt."""
        return prompt + len(self.transcript if self.states_TD is None else self.states_TD) + len(self.answer)


@dataclass
class Examples:
    """What is trained on, and the spoken questions that are only measured."""

    train: list[Example]
    held_out: list[Example]

    def opened(self, tokens: tuple[int, ...]) -> "Examples":
        """Return the same with answers that start with `tokens`, as the dialect of a prompt may want it."""
        opened = [[replace(row, answer=[*tokens, *row.answer]) for row in rows] for rows in (self.train, self.held_out)]
        return Examples(*opened) if tokens else self

    @property
    def width(self) -> int:
        """The encoder's width; ConfigError where nobody speaks."""
        states_TD = self.held_out[0].states_TD
        if states_TD is None:
            raise ConfigError("data.corpora is empty: this stage learns to hear, give it spoken questions.")
        return states_TD.shape[1]


def read_examples(data: QuestionData, encode: Encode, stop: int | None = None, typed: Path | None = None) -> Examples:
    """Return all usable spoken questions, and behind those to train on the rows of `typed` that nobody speaks.

    Without corpora the last rows of `typed` are held out. What is left out is counted and said. InputError for a row without
    text, ConfigError when nothing is left to train on.
    """
    truecase = Truecaser(text for path in data.cased for text in texts_of(path) if text != text.lower())
    answers = answers_of(data.answers) if data.answers else None
    spoken, known, dropped = [], set(), Counter[str]()  # known: what somebody says
    for corpus, folder in paired(data.corpora, data.states, "data.states"):
        for record, states_TD in read_ragged(folder, corpus):
            name = question_id(record)
            if len(states_TD) > data.max_frames:
                dropped[f"longer than {data.max_frames} frames"] += 1
            elif answers is not None and name not in answers:
                dropped["without an answer"] += 1
            else:
                known.add(name)
                said = encode(truecase(text_of(record, corpus)))
                answer = [] if answers is None or stop is None else [*encode(answers[name]), stop]
                spoken.append(Example(str(record["id"]), said, answer, states_TD))
    read = typed_examples(typed, known, encode, stop) if typed is not None and stop is not None else []
    if not data.corpora:
        spoken, read = read, []
    tell_dropped(dropped, len(spoken), "spoken questions" if data.corpora else "typed questions")
    first = first_held_out(len(spoken), data.held_out, "data.held_out")
    return Examples(spoken[:first] + read, spoken[first:])


def typed_examples(path: Path, known: set[str], encode: Encode, stop: int) -> list[Example]:
    """Return the rows of a JSONL with `id`, `question` and `answer` whose id is not among the spoken ones."""
    return [
        Example(record["id"], encode(record["question"]), [*encode(record["answer"]), stop])
        for record in read_fields(path, "question", "answer")
        if record["id"] not in known
    ]


def first_held_out(count: int, held_out: int, name: str) -> int:
    """Return the number of the first of the last `held_out` rows; ConfigError when none is left to train on."""
    if held_out >= count:
        raise ConfigError(
            f"{name} is {held_out} and there are {count} rows: lower it, so that some are left to train on."
        )
    return count - held_out


def answers_of(path: Path) -> dict[str, str]:
    """Return id to answer of a JSONL; InputError names a line that lacks one."""
    return {record["id"]: record["answer"] for record in read_fields(path, "answer")}


def padded_states(examples: Iterable[Example], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return states padded to (B, T, D) in float32 and their lengths (B,); rows that are only typed have two frames of zeros."""
    none_TD = np.zeros((2, width), np.float16)
    rows = [none_TD if one.states_TD is None else one.states_TD for one in examples]
    tensors = [torch.from_numpy(row.astype(np.float32)) for row in rows]
    return pad_right(tensors)[0], torch.tensor([len(row) for row in tensors])
