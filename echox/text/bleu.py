"""BLEU of unit sequences, for selecting models that never write text; sacrebleu's, on units as words (spec A3.5).

Text and speech are scored in eval/scorers/translation.py.
"""

from collections.abc import Sequence

from echox.errors import require


def unit_bleu(hypotheses: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> float:
    """Return corpus BLEU, 0 to 100, of unit sequences against one reference each, nothing tokenised."""
    scorer = require("sacrebleu", "eval").BLEU(tokenize="none", force=True)
    said, wanted = ([" ".join(map(str, row)) for row in rows] for rows in (hypotheses, references))
    return float(scorer.corpus_score(said, [wanted]).score)
