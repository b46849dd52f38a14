"""Translation scores with their signatures: BLEU and chrF by sacrebleu, and its paired tests; knows nothing about models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from echox.errors import InputError, require

RESAMPLES = 1_000  # sacrebleu's own default; each draw rescores the corpus
SEED = 12345


@dataclass(frozen=True)
class Translation:
    """A corpus score with what is needed to repeat it."""

    score: float
    signature: str


def bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Translation:
    """Return corpus BLEU against one or more `references` a sentence; raise InputError on unequal lengths."""
    return _corpus("BLEU", hypotheses, references)


def chrf(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Translation:
    """Return corpus chrF against one or more `references` a sentence; raise InputError on unequal lengths."""
    return _corpus("chrF", hypotheses, references)


def compare(
    baseline: Sequence[str], system: Sequence[str], references: Sequence[Sequence[str]], metric: str = "BLEU"
) -> dict[str, float]:
    """Return both scores, their 95 % half-widths and the p-value of their difference by sacrebleu's paired bootstrap.

    Raises InputError on unequal lengths.
    """
    sacrebleu = require("sacrebleu", "eval")
    significance = require("sacrebleu.significance", "eval")
    _check(baseline, references)
    _check(system, references)
    scorer = getattr(sacrebleu, metric.upper())(references=_columns(references))
    systems = [("baseline", list(baseline)), ("system", list(system))]
    test = significance.PairedTest(systems, {metric: scorer}, None, "bs", RESAMPLES)
    first, second = test()[1][metric]
    return {
        "baseline": float(first.score), "system": float(second.score), "baseline_half_width": float(first.ci),
        "system_half_width": float(second.ci), "p": float(second.p_value),
    }  # fmt: skip


def _corpus(metric: str, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Translation:
    sacrebleu = require("sacrebleu", "eval")
    _check(hypotheses, references)
    scorer: Any = getattr(sacrebleu, metric.upper())()
    found = scorer.corpus_score(list(hypotheses), _columns(references))
    return Translation(float(found.score), str(scorer.get_signature()))


def _columns(references: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return references turned from one list a sentence to one list a column, as sacrebleu takes them."""
    width = max(len(options) for options in references)
    return [[options[i] if i < len(options) else options[0] for options in references] for i in range(width)]


def _check(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not hypotheses or len(hypotheses) != len(references):
        raise InputError(f"{len(hypotheses)} translations for {len(references)} references: give one for each.")
    if not all(references):
        raise InputError("a sentence has no reference: give at least one.")
