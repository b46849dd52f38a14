"""The text normalisers that scores are named after; each follows one published rule and none is tuned to a model.

`simple_tokens` is the tokeniser of UltraEval-Audio's `qa-exist-match` (it goes back to the DPR and EMDR2 validators),
`squad_normalize` the answer normaliser of SQuAD, `whisper_english` and `whisper_basic` the two of the Whisper paper
(arXiv 2212.04356, appendix C) as shipped with transformers. Knows nothing about audio or scores.
"""

import string
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

import regex

_TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")
_ARTICLES = regex.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)


def simple_tokens(text: str) -> list[str]:
    """Return NFD-normalised, lower-cased tokens: runs of letters, marks and digits, or one other visible character.

    Source: `SimpleTokenizer` behind UltraEval-Audio's evaluator `qa-exist-match`.
    """
    return [token.lower() for token in _TOKEN.findall(unicodedata.normalize("NFD", text))]


def holds_answer(text: str, answers: Sequence[str]) -> bool:
    """Say whether an answer's tokens stand in `text` as one contiguous run; an answer without tokens does not."""
    words = simple_tokens(text)
    runs = [simple_tokens(answer) for answer in answers]
    return any(words[i : i + len(run)] == run for run in runs if run for i in range(len(words) - len(run) + 1))


def squad_normalize(text: str) -> str:
    """Return lower-cased text without ASCII punctuation, English articles and repeated blanks (the SQuAD rule)."""
    bare = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


@lru_cache(maxsize=1)
def whisper_english() -> Callable[[str], str]:
    """Return Whisper's English normaliser without its spelling table: numbers to digits, contractions out, fillers dropped."""
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


@lru_cache(maxsize=1)
def whisper_basic() -> Callable[[str], str]:
    """Return Whisper's normaliser for every other language: lower case, no punctuation, no brackets."""
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    return BasicTextNormalizer()
