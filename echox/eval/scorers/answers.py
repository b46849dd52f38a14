"""Scorers with names: one prediction and its reference answers in, one number out; nothing here loads a model.

The same system scores 50 to 71 on the same questions under different scorers, so a number without its scorer's name
says nothing. The rules follow these public sources, each read before it was written here:

    qa-exist-match   UltraEval-Audio, audio_evals/evaluator/qa_exact_match.py (EchoX's own numbers use it)
    qa-exact-match   the same file: SQuAD exact match
    exist-match      UltraEval-Audio, audio_evals/evaluator/base.py: lower-cased substring
    voicebench-qa    VoiceBench (arXiv 2410.17196), src/evaluator/qa.py: three yes/no votes of an LLM, majority
    voicebench-open  the same, src/evaluator/open.py: mean of three ratings 1 to 5
    voicebench-mcq   the same, src/evaluator/mcq.py: the option letter that the answer names
    openaudiobench   OpenAudioBench (arXiv 2502.17239): an LLM's verdict [Correct] or [Incorrect]

The prompts of the three LLM-judged rules are worded by us; pass the publisher's own file for numbers
that go beside a published board, and quote the prompt's hash, which is part of the scorer's printed name, as is the model asked.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from echox.errors import ConfigError, EndpointError
from echox.eval.endpoint import chat_function
from echox.eval.questions import names_in
from echox.files import JSON_BYTES, read_text
from echox.text.normalize import holds_answer, squad_normalize

Score = Callable[[str, Sequence[str], str], float]
Chat = Callable[[str, int], str]  # a language model's reply to a prompt, drawn with a seed

VOTES = 3
_VERDICT = re.compile(r"\[\s*(correct|incorrect)\s*\]", re.IGNORECASE)
_RATING = re.compile(r"^\s*(?:\[\[)?\s*([1-5](?:\.\d+)?)\s*(?:\]\])?\s*\.?\s*$")
_LETTER = r"[\s\"'(\[*\\{]*(?:text\{|boxed\{)?([a-d])(?!'?[a-z])"
_LETTER_PATTERNS = (
    rf"answer (?:to [^.:]{{0,60}})?(?:is|would be|should be)(?: most)?(?: likely)?:?\s*(?:the )?(?:option)?{_LETTER}",
    rf"(?:select|choose|pick|go with)(?: the)?(?: option)?{_LETTER}[\s.,:;)*\"']",
    rf"\boption{_LETTER}",
    r"\b([a-d])\)? (?:is|would be) (?:the )?(?:best|correct|right)",
    rf"\b(?:is|be|as|with)(?: likely| most likely| typically)?:?\s+{_LETTER}[.,:)*\"']",
    r"[\s\"(*]([a-d])[.,:)\"]",
    r"^\W*([a-d])\W*$",
    r"^([a-d])[.,:)]",
)

PROMPTS = {
    "voicebench-qa": """Here is a question, its reference answers and what an assistant replied.

Question: {question}
Reference answers: {answers}
Reply: {response}

Does the reply give a correct answer, judged by the question and the references? Answer with the one word Yes or No.
""",
    "voicebench-open": """A voice assistant was asked something; below is a transcript of both sides.

Question: {question}
Reply: {response}

Rate the reply from 1 to 5: 1 wrong or off the point, 2 partly relevant, 3 mostly right but wordy or thin, 4 right and
clear, 5 exactly what was wanted and no more. Answer with the number alone.
""",
    "openaudiobench": """Judge whether a reply is correct, given the accepted answers. Wording may differ, numbers may
be words or digits, and small spelling slips do not matter; the core meaning does.

Question: {question}
Accepted answers: {answers}
Reply: {response}

Give a short reason and end with [Correct] or [Incorrect].
""",
}
"""For the rules that ask a language model; a board's own file replaces one (`--scorer-prompt`)."""


@dataclass(frozen=True)
class Scorer:
    """A named rule: `score(prediction, answers, question)` gives 0 to `best`; `name` is what every table prints."""

    name: str
    score: Score
    normaliser: str
    best: float = 1.0


def exist_match(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """Return 1.0 when the tokens of any answer stand side by side in the prediction's, else 0.0 (qa-exist-match).

    An answer without tokens matches nothing; the original counts it as right, which no data set here relies on.
    """
    return float(holds_answer(prediction, answers))


def exact_match(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """Return 1.0 when the prediction equals an answer after SQuAD normalisation, else 0.0."""
    heard = squad_normalize(prediction)
    return float(any(heard == squad_normalize(answer) for answer in answers))


def substring_match(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """Return 1.0 when a stripped, lower-cased answer is a substring of the prediction, else 0.0 (exist-match)."""
    text = prediction.strip().lower()
    return float(any(answer.strip() and answer.strip().lower() in text for answer in answers))


def option_letter(prediction: str) -> str | None:
    """Return the option A to D that an answer names, or None; the clearest wording is looked for first."""
    text = prediction.strip().lower()
    found = (re.search(pattern, text) for pattern in _LETTER_PATTERNS)
    return next((letter.group(1).upper() for letter in found if letter), None)


def option_match(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """Return 1.0 when the option named is one of `answers`; no letter gives 0.0, where VoiceBench draws one."""
    letter = option_letter(prediction)
    return float(letter is not None and letter in {answer.strip().upper() for answer in answers})


def majority_yes(votes: Sequence[str]) -> float:
    """Return 1.0 when most votes are the word yes (case and outer punctuation aside), else 0.0."""
    yes = sum(vote.strip().strip(".!\"'").lower() == "yes" for vote in votes)
    return float(2 * yes > len(votes))


def mean_rating(votes: Sequence[str]) -> float:
    """Return the mean of ratings 1 to 5, bare or as `[[4]]`; raise EndpointError when a vote holds none."""
    found = [_RATING.match(vote) for vote in votes]
    if None in found:
        wrong = votes[found.index(None)][:80]
        raise EndpointError(f"the judge answered {wrong!r} where a rating from 1 to 5 was asked for; try again.")
    return sum(float(rating.group(1)) for rating in found if rating) / len(found)


def verdict(reply: str) -> float:
    """Return 1.0 for the last [Correct] in a reply and 0.0 for [Incorrect]; raise EndpointError without either."""
    found = _VERDICT.findall(reply)
    if not found:
        raise EndpointError(f"the judge gave no [Correct] or [Incorrect] in {reply[:80]!r}; try again.")
    return float(found[-1].lower() == "correct")


PLAIN: dict[str, Scorer] = {
    scorer.name: scorer
    for scorer in (
        Scorer("qa-exist-match", exist_match, "NFD, letter-digit runs, lower case"),
        Scorer("qa-exact-match", exact_match, "SQuAD"),
        Scorer("exist-match", substring_match, "strip, lower case"),
        Scorer("voicebench-mcq", option_match, "lower case"),
    )
}
_JUDGED: dict[str, tuple[int, Callable[[Sequence[str]], float], float]] = {
    "voicebench-qa": (VOTES, majority_yes, 1.0),
    "voicebench-open": (VOTES, mean_rating, 5.0),
    "openaudiobench": (1, lambda votes: verdict(votes[0]), 1.0),
}
NAMES = (*PLAIN, *_JUDGED)


def find_scorer(name: str, chat: Chat | None = None, prompt: str | None = None, asked: str = "a model") -> Scorer:
    """Return the scorer called `name`; `asked` names the language model that `chat` asks.

    The LLM-judged ones need `chat(prompt, seed) -> reply`, which every vote asks with a seed of its own, and take another
    `prompt` with {question}, {answers}, {response}.
    Raises ConfigError for an unknown name, or for a judged one without `chat` or with a prompt that lacks a field.
    """
    if name in PLAIN:
        return PLAIN[name]
    if name not in _JUDGED:
        raise ConfigError(f"there is no scorer {name!r}: choose from {', '.join(NAMES)}.")
    if chat is None:
        needs = "give --scorer-endpoint and --scorer-model, or choose another"
        raise ConfigError(f"the scorer {name} asks a language model: {needs}.")
    text = PROMPTS[name] if prompt is None else prompt
    if "{question}" not in text or "{response}" not in text:
        raise ConfigError(f"the prompt for {name} must hold {{question}} and {{response}}.")
    votes, combine, best = _JUDGED[name]

    def score(prediction: str, answers: Sequence[str], question: str = "") -> float:
        filled = text.replace("{question}", question).replace("{answers}", " | ".join(answers))
        filled = filled.replace("{response}", prediction)
        return combine([chat(filled, seed) for seed in range(votes)])

    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Scorer(f"{name} ({asked}, prompt {mark})", score, "none (language model)", best)


def choose_scorers(names: str, endpoint: str, model: str, prompt: Path | None) -> list[Scorer]:
    """Return the scorers of a comma-separated list, the first being the one that tables use.

    Raises ConfigError for unknown names or none, InputError for a missing prompt file, EndpointError when the server is away.
    """
    wanted = names_in(names)
    if not wanted:
        raise ConfigError(f"--scorer is empty: give at least one of {', '.join(NAMES)}.")
    text = read_text(prompt, JSON_BYTES) if prompt else None
    chat = chat_function(endpoint, model) if endpoint else None
    return [find_scorer(name, chat, text, f"{model} at {endpoint}") for name in wanted]
