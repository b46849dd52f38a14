"""Beam search as pure functions: any model that scores the next token can be searched; it knows no model.

    step(tokens (B, K), parents (B, K)) ──► logits (B, K, V)      what hypothesis k said last, and whose words it goes on from

A sentence ends when as many hypotheses have ended as it has beams, or at `max_tokens`; the best mean log-probability by
length ** `length_penalty` wins. One beam is greedy decoding. Twin: tests/generate/slow_beam.py.

Legend: B sentences, K beams, N tokens so far, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Search:
    """How to search: beams, the power of the length that scores are divided by, the longest output, and what is never said.

    No run of `no_repeat_ngram` tokens is said twice by one hypothesis (0: any may be). A hypothesis whose log-probability
    falls below `floor` is given up.
    """

    bos: int
    eos: int
    beams: int = 10
    length_penalty: float = 1.0
    max_tokens: int = 1000
    no_repeat_ngram: int = 0
    never: tuple[int, ...] = ()
    floor: float = -math.inf


@dataclass(frozen=True)
class Hypothesis:
    """Tokens without BOS and EOS, the score that it won by, and whether it came to an end by itself."""

    tokens: list[int]
    score: float
    ended: bool = True


def beam_search(step: Step, rows: int, search: Search, limits: Sequence[int] | None = None) -> list[Hypothesis]:
    """Return the best hypothesis of each of `rows` sentences; `limits` are further bounds on the tokens of each."""
    return [found[0] if found else Hypothesis([], 0.0, False) for found in n_best(step, rows, search, limits)]


@torch.inference_mode()
def n_best(step: Step, rows: int, search: Search, limits: Sequence[int] | None = None) -> list[list[Hypothesis]]:
    """Return the hypotheses of each of `rows` sentences that came to an end, best first; else the best one that was cut.

    The list of a sentence is empty if all of its hypotheses were given up.
    """
    caps = [min(search.max_tokens, n) for n in limits] if limits is not None else [search.max_tokens] * rows
    ended: list[list[Hypothesis]] = [[] for _ in range(rows)]
    tokens_BK, parents_BK = torch.full((rows, 1), search.bos), torch.zeros(rows, 1, dtype=torch.long)
    scores_BK, said_BKN = torch.zeros(rows, 1), torch.zeros(rows, 1, 0, dtype=torch.long)
    open_rows = [row for row in range(rows) if caps[row] > 0]
    while open_rows:
        logits_BKV = step(tokens_BK, parents_BK)
        found_BKV = _log_probs(logits_BKV, said_BKN, search) + scores_BK[..., None].to(logits_BKV.device)
        vocabulary = found_BKV.shape[-1]
        best_BC, place_BC = found_BKV.flatten(1).topk(min(2 * search.beams, found_BKV[0].numel()))
        best_BC, place_BC = best_BC.cpu(), place_BC.cpu()
        best_BC.masked_fill_(best_BC < search.floor, -math.inf)
        parent_BC, token_BC = place_BC // vocabulary, place_BC % vocabulary
        length = said_BKN.shape[2] + 1
        for row in open_rows:
            for c in range(min(search.beams, best_BC.shape[1])):
                if token_BC[row, c] == search.eos and best_BC[row, c] > -math.inf:
                    words = said_BKN[row, parent_BC[row, c]].tolist()
                    ended[row].append(Hypothesis(words, float(best_BC[row, c]) / length**search.length_penalty))
        going_BK = _going_on(best_BC, token_BC, search)
        scores_BK, tokens_BK = best_BC.gather(1, going_BK), token_BC.gather(1, going_BK)
        parents_BK = parent_BC.gather(1, going_BK)
        said_BKN = torch.cat([_chosen(said_BKN, parents_BK), tokens_BK[..., None]], 2)
        for row in open_rows:
            alive = bool((scores_BK[row] > -math.inf).any())
            if length >= caps[row] and alive and not ended[row]:
                score = float(scores_BK[row, 0]) / length**search.length_penalty
                ended[row].append(Hypothesis(said_BKN[row, 0].tolist(), score, ended=False))
            if length >= caps[row] or not alive or len(ended[row]) >= search.beams:
                caps[row] = 0
        open_rows = [row for row in open_rows if caps[row]]
    return [sorted(found, key=lambda one: -one.score) for found in ended]


def _log_probs(logits_BKV: torch.Tensor, said_BKN: torch.Tensor, search: Search) -> torch.Tensor:
    """Return log-probabilities in float32, minus infinity where a token may not be said."""
    found_BKV = logits_BKV.float().log_softmax(-1)
    for token in (search.bos, *search.never):
        found_BKV[..., token] = -math.inf
    n, length = search.no_repeat_ngram, said_BKN.shape[2]
    if n and length >= n:
        runs_BKRn = said_BKN.unfold(2, n, 1)
        same_BKR = (runs_BKRn[..., :-1] == said_BKN[:, :, None, length - n + 1 :]).all(-1)
        for b, k, r in same_BKR.nonzero().tolist():
            found_BKV[b, k, runs_BKRn[b, k, r, -1]] = -math.inf
    return found_BKV


def _going_on(best_BC: torch.Tensor, token_BC: torch.Tensor, search: Search) -> torch.Tensor:
    """Return the places (B, K) of the candidates that go on, the best that did not end; the others are scored out, in place."""
    best_BC.masked_fill_(token_BC == search.eos, -math.inf)
    most = max(1, int((best_BC > -math.inf).sum(1).max()))
    return best_BC.topk(min(search.beams, most)).indices


def _chosen(said_BKN: torch.Tensor, parents_BK: torch.Tensor) -> torch.Tensor:
    return said_BKN.gather(1, parents_BK[..., None].expand(-1, -1, said_BKN.shape[2]))
