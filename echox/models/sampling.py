"""How a next token is chosen from its scores: pure functions, and their settings as a value; they know no model.

Legend: V vocabulary.
"""

from dataclasses import dataclass

import torch

from echox.errors import ConfigError

NUCLEUS = 1024  # candidates that are sorted first; the whole vocabulary only where they do not cover top_p


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen: greedy (temperature 0) or by nucleus sampling, and without repeated runs if asked for."""

    temperature: float = 0.0
    top_p: float = 1.0
    no_repeat_ngram: int = 0  # no run of so many tokens is said twice in a row's answer; 0: no such rule
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.no_repeat_ngram < 0:
            raise ConfigError(
                f"temperature {self.temperature:g}, top_p {self.top_p:g} and no_repeat_ngram {self.no_repeat_ngram} do not fit: "
                "give temperature >= 0, 0 < top_p <= 1, no_repeat_ngram >= 0."
            )

    def generator(self) -> torch.Generator | None:
        """Return a row's own generator, so that a seed gives the same answer in any company; None where greedy."""
        return torch.Generator().manual_seed(self.seed) if self.temperature else None


GREEDY = Sampling()


def repeats(said: list[int], size: int) -> set[int]:
    """Return the tokens that would end a run of `size` tokens that has been said before."""
    if len(said) < size:
        return set()
    run = said[len(said) - size + 1 :]
    starts = range(len(said) - size + 1)
    return {said[start + size - 1] for start in starts if said[start : start + size - 1] == run}


def sample(logits_V: torch.Tensor, sampling: Sampling, generator: torch.Generator | None) -> int:
    """Return a token drawn from the nucleus of one row's scores: the likeliest until they cover top_p (spec section 9)."""
    scaled = logits_V.float().cpu() / sampling.temperature
    total = scaled.logsumexp(-1)
    for count in (min(NUCLEUS, len(scaled)), len(scaled)):
        values, tokens = scaled.topk(count)
        probabilities = (values - total).exp()
        before = probabilities.cumsum(-1) - probabilities
        if count == len(scaled) or float(before[-1] + probabilities[-1]) > sampling.top_p:
            break
    kept = max(int((before <= sampling.top_p).sum()), 1)
    return int(tokens[torch.multinomial(probabilities[:kept], 1, generator=generator)])
