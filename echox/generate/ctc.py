"""What CTC writes down: the best class of every frame, or a beam over texts; it knows no tokenizer.

Legend: B batch, T frames, V classes.
"""

import math

import torch

from echox.errors import ConfigError
from echox.models.ragged import first_of_runs

MINUS = -math.inf


def greedy(logits_BTV: torch.Tensor, frames_B: torch.Tensor, blank: int) -> list[list[int]]:
    """Return each row's tokens: the best class of every frame, repeats joined, blanks left out."""
    best_BT = logits_BTV.argmax(-1)
    kept_BT = first_of_runs(best_BT, frames_B) & (best_BT != blank)
    return [row[kept].tolist() for row, kept in zip(best_BT, kept_BT, strict=True)]


def prefix_beam(
    logits_BTV: torch.Tensor, frames_B: torch.Tensor, blank: int, beam: int = 8, classes: int = 16
) -> list[list[int]]:
    """Return each row's likeliest tokens, summed over the ways to say them (Hannun et al., arXiv 1408.2873, algorithm 1).

    A frame extends texts by its `classes` best tokens only. ConfigError for a beam of none.
    """
    if beam < 1:
        raise ConfigError(f"beam is {beam}: give a number from 1 on.")
    top = logits_BTV.float().log_softmax(-1).topk(min(classes, logits_BTV.shape[-1]), dim=-1)
    blanks_BT = logits_BTV.float().log_softmax(-1)[..., blank]
    rows = zip(top.values.tolist(), top.indices.tolist(), blanks_BT.tolist(), frames_B.tolist(), strict=True)
    return [_beam_one(values, tokens, blanks, frames, blank, beam) for values, tokens, blanks, frames in rows]


def _beam_one(
    values: list[list[float]], tokens: list[list[int]], blanks: list[float], frames: int, blank: int, beam: int
) -> list[int]:
    """Return the likeliest tokens of one row of top classes."""
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, MINUS)}  # ended by a blank, or not
    for t in range(frames):
        found: dict[tuple[int, ...], tuple[float, float]] = {}
        for text, (with_blank, without) in beams.items():
            both = _add(with_blank, without)
            _put(found, text, both + blanks[t], MINUS)
            for value, token in zip(values[t], tokens[t], strict=True):
                if token == blank:
                    continue
                repeats = bool(text) and text[-1] == token
                if repeats:
                    _put(found, text, MINUS, without + value)
                _put(found, (*text, token), MINUS, (with_blank if repeats else both) + value)
        beams = dict(sorted(found.items(), key=lambda one: -_add(*one[1]))[:beam])
    return list(next(iter(beams)))


def _put(found: dict[tuple[int, ...], tuple[float, float]], text: tuple[int, ...], blank: float, other: float) -> None:
    """Add log-probabilities of one more way to arrive at `text`."""
    before = found.get(text, (MINUS, MINUS))
    found[text] = _add(before[0], blank), _add(before[1], other)


def _add(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    return a if b == MINUS else a + math.log1p(math.exp(b - a))
