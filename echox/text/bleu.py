"""Corpus BLEU by sacrebleu for selecting weights while they train: of texts, and of units as words (spec A3.5).

What is reported is scored in eval/scorers/texts.py.
"""

from collections.abc import Sequence

from echox.errors import require


def text_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Return corpus BLEU, 0 to 100, of texts against one reference each, tokenised as sacrebleu does by default."""
    return float(require("sacrebleu", "eval").BLEU().corpus_score(list(hypotheses), [list(references)]).score)


def unit_bleu(hypotheses: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> float:
    """Return corpus BLEU, 0 to 100, of unit sequences against one reference each, nothing tokenised."""
    scorer = require("sacrebleu", "eval").BLEU(tokenize="none", force=True)
    said, wanted = ([" ".join(map(str, row)) for row in rows] for rows in (hypotheses, references))
    return float(scorer.corpus_score(said, [wanted]).score)
