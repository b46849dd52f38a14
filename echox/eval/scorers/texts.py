"""What was said or heard against the words that were wanted: word and character errors by jiwer, BLEU and chrF by sacrebleu.

Errors are of both sides normalised; corpus scores come with their signatures, and with sacrebleu's paired tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from echox.errors import InputError, require
from echox.text.normalize import whisper_basic, whisper_english

RESAMPLES = 1_000  # sacrebleu's own default; each draw rescores the corpus
NORMALISER = "Whisper's English normaliser without its spelling table, jiwer"
BASIC = "whisper-basic, jiwer"
"""The names that tables print, the second of what other languages are normalised by."""


def normaliser_of(*languages: str) -> str:
    """Return the name of what texts in some languages are normalised by: English alone has a normaliser of its own."""
    return NORMALISER if set(languages) == {"en"} else BASIC


def errors_between(reference: str, heard: str, normaliser: str = NORMALISER) -> dict[str, int]:
    """Return words, word_edits, characters and character_edits of `heard` against `reference`, both normalised, to be pooled.

    Where nothing was heard all words are deleted; of a reference without words every word heard is an edit. Needs jiwer.
    """
    jiwer = require("jiwer", "eval")
    normalise = whisper_basic() if normaliser == BASIC else whisper_english()
    wanted, got = normalise(reference).strip(), normalise(heard).strip()
    if not wanted:
        return {"words": 0, "word_edits": len(got.split()), "characters": 0, "character_edits": len(got)}
    found = jiwer.process_words(wanted, got), jiwer.process_characters(wanted, got)
    words, characters = (one.substitutions + one.deletions + one.insertions for one in found)
    lengths = {"words": len(wanted.split()), "characters": len(wanted)}
    return lengths | {"word_edits": words, "character_edits": characters}


@dataclass(frozen=True)
class CorpusScore:
    """A corpus score with what is needed to repeat it."""

    score: float
    signature: str


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> CorpusScore:
    """Return corpus BLEU against one reference a sentence; InputError on unequal lengths."""
    return _corpus("BLEU", hypotheses, references)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> CorpusScore:
    """Return corpus chrF against one reference a sentence; InputError on unequal lengths."""
    return _corpus("CHRF", hypotheses, references)


def bleu_interval(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[float, float]:
    """Return the 95 % interval of BLEU: corpus scores of sentences drawn with replacement, seeded."""
    found = require("sacrebleu", "eval").BLEU().corpus_score(hypotheses, [references], n_bootstrap=RESAMPLES)
    mean, half = getattr(found, "_mean", found.score), getattr(found, "_ci", 0.0)
    return mean - half, mean + half


def compare(baseline: Sequence[str], system: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return both BLEU scores, their 95 % half-widths and the p-value of their difference by sacrebleu's paired bootstrap.

    Raises InputError on unequal lengths.
    """
    significance, metric = require("sacrebleu.significance", "eval"), require("sacrebleu", "eval").BLEU
    _check(baseline, references)
    _check(system, references)
    systems = [("baseline", list(baseline)), ("system", list(system))]
    test = significance.PairedTest(systems, {"BLEU": metric(references=[list(references)])}, None, "bs", RESAMPLES)
    first, second = test()[1]["BLEU"]
    scores = {"baseline": first.score, "system": second.score, "p": second.p_value}
    scores |= {"baseline_half_width": first.ci, "system_half_width": second.ci}
    return {name: float(value) for name, value in scores.items()}


def _corpus(metric: str, hypotheses: Sequence[str], references: Sequence[str]) -> CorpusScore:
    _check(hypotheses, references)
    scorer = getattr(require("sacrebleu", "eval"), metric)()
    return CorpusScore(scorer.corpus_score(hypotheses, [references]).score, str(scorer.get_signature()))


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if not hypotheses or len(hypotheses) != len(references):
        raise InputError(f"{len(hypotheses)} translations for {len(references)} references: give one for each.")
