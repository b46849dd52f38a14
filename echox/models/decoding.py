"""The one decoding loop: rows that join and leave between two steps, one token of each from one forward pass a step.

    Batch:   lines, which are rows on their way, over the Slots of one model (slots.py)
    decode:  a batch of rows that begin together, until every one has ended; `alone` is a batch of one

A row says the same alone and in any company, and one whose numbers overflow ends alone.

Legend: B rows, V vocabulary, W decoder width.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch

from echox.errors import ModelError
from echox.models.kept import Begun, Kept, Opening, Read
from echox.models.sampling import GREEDY, Sampling, repeats, sample
from echox.models.slots import Row, Slots, prefill, resume, step

log = logging.getLogger(__name__)
OVERFLOW = -1  # stands for the token of a row whose scores are no numbers
OVERFLOWS = "the model's numbers overflow (NaN or infinity): fetch it again, or try --dtype float32."


class Decoder(Protocol):
    """What the loop asks of a model: a body, the inputs of tokens, and the scores of states."""

    @property
    def body(self) -> Any:
        """The Hugging Face decoder."""
        ...

    def embed_tokens(self, tokens_B: torch.Tensor, /) -> torch.Tensor:
        """Return the decoder's inputs (B, W) of tokens (B,)."""
        ...

    def token_logits(self, hidden_BW: torch.Tensor, /) -> torch.Tensor:
        """Return scores (B, V) of the next token; one that may never come has minus infinity."""
        ...


@dataclass(eq=False)
class Line:
    """A row on its way: where it ends (a stop token, which is not said, or `is_over` of what it said) and how it chooses."""

    row: Row
    stops: Collection[int]
    is_over: Callable[[list[int]], bool]
    sampling: Sampling = GREEDY
    number: int = 0  # its reader's own
    opening: Opening | None = None  # with which its row may begin, as others do
    recurs: bool = False  # others may begin as it did: what is read of it is worth keeping
    draft: bool = False  # the same row may come again and go on from what was said: nobody reads it yet
    ends_by_median: bool = False  # it ends where it has become likelier than not that it has ended (`choose`)
    said: list[int] = field(default_factory=list)
    states: list[torch.Tensor] = field(default_factory=list)  # of a draft: what predicts each token (W,)
    going: float = 1.0  # how likely it is that it has not ended, where it ends so
    ended: bool = False
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.generator = self.sampling.generator()

    @property
    def way(self) -> object:
        """How it chooses, to be compared."""
        return frozenset(self.stops), self.sampling

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self.ended, self.error = True, error


@dataclass
class Step:
    """One more token of every row that goes on: which rows, their tokens, and the states (B, W) that predict them."""

    lines: list[Line]
    tokens: list[int]
    states_BW: torch.Tensor

    @property
    def rows(self) -> list[int]:
        """The rows' numbers."""
        return [line.number for line in self.lines]


class Batch:
    """Lines of one model that decode together; whatever a line does or meets, the others go on as if they were alone."""

    def __init__(self, model: Decoder, kept: Kept | None = None) -> None:
        """Begin without lines; `kept` holds what has been read of those that recur."""
        self.model, self.kept = model, kept
        self.joining: list[Line] = []
        self.lines: list[Line] = []  # as the rows of `slots`
        self.slots: Slots | None = None
        self.hidden_BW = torch.zeros(0)

    def __len__(self) -> int:
        """Return how many lines go on."""
        return sum(not line.ended for line in (*self.joining, *self.lines))

    def join(self, line: Line) -> None:
        """Take a line in with the next step."""
        line.ended = line.is_over(line.said)
        if not line.ended:
            self.joining.append(line)

    @torch.inference_mode()
    def leave(self, line: Line) -> None:
        """End a line and free its row at once."""
        line.ended = True
        self._drop_ended()

    @torch.inference_mode()
    def begun(self, line: Line) -> list["Said"]:
        """Return what a draft has said to the very same row; a line that has not joined yet goes on from there."""
        greedy = not line.sampling.temperature  # who draws would have to draw again
        for token, state_W in self.kept.begun(line.row, line.way) if self.kept and line.recurs and greedy else ():
            if line.is_over(line.said):
                break
            line.said.append(token)
            line.states.append(state_W)
        return list(zip(line.said, line.states, strict=True))

    @torch.inference_mode()
    def step(self) -> Step:
        """Return one more token of every line that goes on; one that fails has its error and ends."""
        self._drop_ended()
        self._advance()
        self._admit()
        tokens, places = self._choose(), []
        for place, (line, token) in enumerate(zip(self.lines, tokens, strict=True)):
            if token == OVERFLOW:
                line.fail(ModelError(OVERFLOWS))
            elif token in line.stops:
                line.ended = True
            else:
                line.said.append(token)
                places.append(place)
                if line.draft:
                    line.states.append(self.hidden_BW[place].clone())  # no view of all that was read
        going = [self.lines[place] for place in places]
        made = Step(going, [tokens[place] for place in places], self.hidden_BW[places])
        for line in made.lines:
            line.ended = line.is_over(line.said)
        if not len(self):
            self._drop_ended()
        return made

    def _drop_ended(self) -> None:
        self.joining = [line for line in self.joining if not line.ended]
        on = [place for place, line in enumerate(self.lines) if not line.ended]
        if len(on) < len(self.lines):
            self._keep()
            self.slots = self.slots.keep(on) if on and self.slots else None
            self.lines = [self.lines[place] for place in on]

    def _keep(self) -> None:
        """Keep what has been read of lines that end and recur."""
        for place, line in enumerate(self.lines):
            if self.kept and self.slots and line.ended and line.recurs and line.row.plain and not line.error:
                slots = self.slots.keep([place])
                said = list(zip(line.said, line.states, strict=True)) if line.draft else []
                begun = Begun(len(line.row.inputs_NW), line.way, said) if line.draft else None
                self.kept.put(Read(self._row(line).inputs_NW[: slots.seen_BN.shape[1]], slots, begun))

    def _row(self, line: Line) -> Row:
        """Return what is read of a line: its row, and what it has said."""
        if not line.said:
            return line.row
        said = torch.tensor(line.said, device=line.row.inputs_NW.device)
        return replace(line.row, inputs_NW=torch.cat([line.row.inputs_NW, self.model.embed_tokens(said)]))

    def _advance(self) -> None:
        """Give every row the token that it said last."""
        if self.slots is None:
            return
        last_B = torch.tensor([line.said[-1] for line in self.lines], device=self.hidden_BW.device)
        try:
            self.slots, self.hidden_BW = step(self.model.body, self.slots, self.model.embed_tokens(last_B))
        except Exception as error:
            self._fail(error)
            log.debug("a step failed", exc_info=True)

    def _choose(self) -> list[int]:
        try:
            return choose(self.model.token_logits(self.hidden_BW), self.lines) if self.lines else []
        except Exception as error:
            self._fail(error)
            log.debug("a choice failed", exc_info=True)
            return []

    def _fail(self, error: Exception) -> None:
        """End every line: whose error it is cannot be known, and the slots are used up."""
        for line in self.lines:
            line.fail(error)
        self.lines, self.slots = [], None

    def _admit(self) -> None:
        """Read the rows of the lines that join: together, or one by one to find the one that cannot be read."""
        joining, self.joining = self.joining, []
        try:
            self._read(joining)
        except Exception:
            log.debug("rows could not be read together", exc_info=True)
            for line in [line for line in joining if line not in self.lines]:
                try:
                    self._read([line])
                except Exception as error:
                    line.fail(error)
                    log.debug("a row could not be read", exc_info=True)

    def _read(self, lines: list[Line]) -> None:
        new: list[Line] = []
        for line in lines:
            row = self._row(line)
            past = self.kept.find(row) if self.kept and line.recurs else None
            past = line.opening.find(row) if past is None and line.opening else past
            if past is None:
                new.append(line)
            else:
                self._take_in([line], *resume(self.model.body, past, row))
        if new:
            self._take_in(new, *prefill(self.model.body, [self._row(line) for line in new]))

    def _take_in(self, lines: list[Line], slots: Slots, hidden_BW: torch.Tensor) -> None:
        if self.slots is not None:
            slots, hidden_BW = self.slots.join(slots), torch.cat([self.hidden_BW, hidden_BW])
        self.slots, self.hidden_BW, self.lines = slots, hidden_BW, [*self.lines, *lines]


def decode(
    model: Decoder,
    rows: Sequence[Row],
    stops: Collection[int],
    is_over: Callable[[int, list[int]], bool],
    sampling: Sampling = GREEDY,
    ends_by_median: bool = False,
) -> Iterator[Step]:
    """Yield a step at a time until each row has chosen a stop token, which is not yielded, or `is_over(row, said)`.

    ModelError when the numbers overflow.
    """
    lines = [
        Line(row, stops, partial(is_over, number), sampling, number, ends_by_median=ends_by_median)
        for number, row in enumerate(rows)
    ]
    batch = Batch(model)
    for line in lines:
        batch.join(line)
    while len(batch):
        made = batch.step()
        if error := next((line.error for line in lines if line.error), None):
            raise error
        if made.lines:
            yield made


@dataclass
class Generated:
    """What one row says: token ids and, where they are asked for, the state (W,) that predicts each of them."""

    ids: list[int]
    states: list[torch.Tensor]


def gathered(steps: Iterator[Step], rows: int, states: bool) -> list[Generated]:
    """Return what each of so many rows says in all steps, with its `states` or without."""
    found = [Generated([], []) for _ in range(rows)]
    for made in steps:
        for row, token in zip(made.rows, made.tokens, strict=True):
            found[row].ids.append(token)
        for row, state_W in zip(made.rows, made.states_BW, strict=True) if states else ():
            found[row].states.append(state_W)
    return found


IsOver = Callable[[list[int]], bool]  # whether a row that has said these tokens ends here


def at_most(tokens: int) -> IsOver:
    """Return the rule that ends a row after so many tokens."""
    return lambda said: len(said) >= tokens


Said = tuple[int, torch.Tensor]  # a token, and the state (W,) that predicts it
Decoding = Callable[[Decoder, Line], Iterator[Said | None]]  # what a line says; None where that takes another step


def alone(model: Decoder, line: Line) -> Iterator[Said | None]:
    """Yield what a line says with nobody beside it; a Decoding."""
    batch = Batch(model)
    batch.join(line)
    while len(batch):
        made = batch.step()
        if line.error:
            raise line.error
        yield from zip(made.tokens, made.states_BW, strict=True)


def choose(logits_BV: torch.Tensor, lines: Sequence[Line]) -> list[int]:
    """Return each line's next token from its scores and what it has said; OVERFLOW where the scores do so.

    Where a model is unsure of the step at which a row ends, going on may be likelier at every single one of them, and the likeliest
    tokens never end it: a line that `ends_by_median` chooses a stop once it is likelier to have ended than not.
    """
    for row, line in enumerate(lines):
        if line.sampling.no_repeat_ngram and (never := repeats(line.said, line.sampling.no_repeat_ngram)):
            logits_BV[row, torch.tensor(sorted(never), device=logits_BV.device)] = -torch.inf
    best_B, token_B = logits_BV.max(-1)
    tokens = token_B.masked_fill(~torch.isfinite(best_B), OVERFLOW).tolist()
    for row, line in enumerate(lines):
        if line.sampling.temperature and tokens[row] != OVERFLOW:
            tokens[row] = sample(logits_BV[row], line.sampling, line.generator)
    for row in _ended_by_median(logits_BV, lines):
        tokens[row] = min(lines[row].stops)
    return tokens


def _ended_by_median(logits_BV: torch.Tensor, lines: Sequence[Line]) -> list[int]:
    """Return which rows have become likelier to have ended than not: none whose scores are no numbers."""
    rows = [row for row, line in enumerate(lines) if line.ends_by_median]
    if not rows:
        return []
    shares_BV = logits_BV[rows].float().softmax(-1)
    stopping = [shares_BV[n, sorted(lines[row].stops)].sum() for n, row in enumerate(rows)]
    for row, share in zip(rows, torch.stack(stopping).tolist(), strict=True):
        lines[row].going *= 1 - share
    return [row for row in rows if lines[row].going < 0.5]
