"""Scorers on hand-worked cases: each line was decided on paper by the published rule before it was run."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echox.errors import ConfigError, EndpointError
from echox.eval.scorers import answers as scorers
from echox.eval.scorers.answers import (
    choose_scorers,
    exact_match,
    exist_match,
    find_scorer,
    option_letter,
    substring_match,
)
from echox.text.normalize import simple_tokens, squad_normalize, whisper_basic, whisper_english


def simple_tokens_reference(text: str) -> list[str]:
    """Return what `simple_tokens` does, one character at a time; the twin that the tests compare it with."""
    tokens: list[str] = []
    open_word = False
    for character in unicodedata.normalize("NFD", text):
        kind = unicodedata.category(character)[0]
        if kind in "LNM":
            if open_word:
                tokens[-1] += character
            else:
                tokens.append(character)
            open_word = True
            continue
        open_word = False
        if kind not in "ZC":
            tokens.append(character)
    return [token.lower() for token in tokens]


EXIST = [
    # prediction, answers, right?   why
    ("The capital is Paris.", ["Paris"], 1),  # a token in the middle
    ("the capital is PARIS!", ["paris"], 1),  # case
    ("Parisian cafes are lovely", ["Paris"], 0),  # part of a token is no token (a substring scorer says yes)
    ("There are four seasons.", ["4"], 0),  # a number as a word is not the digit: this rule has no number folding
    ("There are 4 seasons.", ["4"], 1),
    ("There are 14 seasons.", ["4"], 0),  # digits run together with digits
    ("In 1969, of course", ["1969"], 1),
    ("The Beatles sang it", ["Beatles"], 1),  # an article in the prediction does no harm
    ("Beatles sang it", ["The Beatles"], 0),  # an article in the answer must be said (SQuAD would drop it)
    ("Emile Zola wrote it", ["Émile Zola"], 0),  # NFD splits the accent off but marks stay in the run: not equal
    ("E\u0301mile Zola wrote it", ["Émile Zola"], 1),  # composed and decomposed are the same
    ("She lives in Nice, France", ["Nice"], 1),  # the city
    ("That is a nice question", ["Nice"], 1),  # the trap: lower-casing makes the adjective a city
    ("Jay-Z and Beyoncé", ["Jay Z"], 0),  # the hyphen is a token of its own
    ("Jay-Z and Beyoncé", ["Jay-Z"], 1),
    ("He won with 3.14 points", ["3.14"], 1),  # 3 . 14 side by side
    ("He won with 3,14 points", ["3.14"], 0),
    ("U.S. of A.", ["US"], 0),  # U . S . against us
    ("George W. Bush", ["George Bush"], 0),  # not contiguous
    ("Bush, George", ["George Bush"], 0),  # order matters
    ("It was not Paris but London", ["Paris"], 1),  # the rule does not read negations
    ("Either works", ["no", "works"], 1),  # any answer suffices
    ("New York", ["New York City"], 0),  # longer than the prediction
    ("", ["Paris"], 0),
    ("anything", [""], 0),  # no tokens match nothing here
    ("anything", ["  "], 0),
    ("Don't know", ["don't"], 1),  # don ' t
    ("北京是首都", ["北京"], 0),  # unsegmented script is one run
    ("ends with Paris", ["with Paris"], 1),  # the last span counts too
]


@pytest.mark.parametrize(("prediction", "answers", "right"), EXIST)
def test_qa_exist_match_by_hand(prediction, answers, right):
    assert exist_match(prediction, answers) == right


def test_tokens_by_hand():
    assert simple_tokens("Don't stop, Zoë—3 times!") == [
        "don",
        "'",
        "t",
        "stop",
        ",",
        "zoe\u0308",
        "—",
        "3",
        "times",
        "!",
    ]
    assert simple_tokens(" \t\n ") == []
    assert simple_tokens("a_b") == ["a", "_", "b"]  # an underscore is punctuation, not a letter


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cn"], max_codepoint=0x2FFF), max_size=40))
def test_the_tokeniser_agrees_with_its_slow_twin(text):
    assert simple_tokens(text) == simple_tokens_reference(text)


@pytest.mark.parametrize(
    ("prediction", "answers", "right"),
    [
        ("The Beatles.", ["beatles"], 1),  # article and full stop dropped
        ("a cat", ["the cat"], 1),
        ("theatre", ["atre"], 0),  # an article inside a word stays
        ("The answer is Paris", ["Paris"], 0),  # exact means the whole prediction
        ("jay z", ["Jay-Z"], 0),  # the hyphen vanishes: jayz
    ],
)
def test_exact_match_by_hand(prediction, answers, right):
    assert exact_match(prediction, answers) == right


def test_scorers_disagree_where_they_should():
    assert substring_match("Parisian", ["Paris"]) == 1 and exist_match("Parisian", ["Paris"]) == 0
    assert substring_match("x", [""]) == 0
    assert squad_normalize("The, cat!") == "cat"


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("The answer is B.", "B"),
        ("The correct answer is: **C) granite**", "C"),
        ("I would choose option d.", "D"),
        ("A", "A"),
        ("b) the sun", "B"),
        ("Option A, because", "A"),
        ("(C)", "C"),
        ("The answer is a difficult one", "A"),  # the known weakness of letter rules, VoiceBench's too
        ("It is photosynthesis", None),
        ("", None),
        ("I don't know", None),
        ("The answer to the question is 'B'", "B"),
        ("C is the best answer", "C"),
    ],
)
def test_option_letters_by_hand(reply, letter):
    assert option_letter(reply) == letter


def test_option_match_counts_no_letter_as_wrong():
    assert scorers.option_match("The answer is B.", ["B"]) == 1
    assert scorers.option_match("The answer is B.", ["C"]) == 0
    assert scorers.option_match("no idea", ["A"]) == 0


@pytest.mark.parametrize(
    ("votes", "value"),
    [(["Yes", "yes.", "No"], 1), (["No", "no", "Yes"], 0), (["Yes", "No"], 0), (["yes it is"] * 3, 0)],
)
def test_votes_by_hand(votes, value):
    assert scorers.majority_yes(votes) == value


def test_ratings_and_verdicts():
    assert scorers.mean_rating(["4", "[[5]]", " 3 "]) == 4
    with pytest.raises(EndpointError, match="rating"):
        scorers.mean_rating(["4", "good", "3"])
    with pytest.raises(EndpointError):
        scorers.mean_rating(["6"])
    assert scorers.verdict("It says Rome, so [Incorrect]") == 0
    assert scorers.verdict("Not [Incorrect] but [correct]") == 1  # the last counts
    with pytest.raises(EndpointError, match="Correct"):
        scorers.verdict("fine by me")


def test_judged_scorers_ask_three_times_and_carry_their_prompts_mark():
    asked, seeds = [], []

    def chat(prompt: str, seed: int) -> str:
        asked.append(prompt)
        seeds.append(seed)
        return "Yes" if len(asked) != 2 else "No"

    scorer = find_scorer("voicebench-qa", chat)
    assert scorer.score("Paris", ("Paris", "Lutetia"), "Capital?") == 1 and len(asked) == 3
    assert len(set(seeds)) == 3  # the same seed three times would be one vote
    assert "Paris | Lutetia" in asked[0] and "Capital?" in asked[0] and "{" not in asked[0]
    other = find_scorer("voicebench-qa", chat, "Q {question} R {response}")
    assert scorer.name != other.name and scorer.name.startswith("voicebench-qa (a model, prompt ")


def test_the_language_model_that_scores_is_part_of_the_name(monkeypatch):
    monkeypatch.setattr(scorers, "chat_function", lambda endpoint, model: lambda prompt, seed: "Yes")
    (scorer,) = choose_scorers("voicebench-qa", "http://host/v1", "big", None)
    (other,) = choose_scorers("voicebench-qa", "http://host/v1", "small", None)
    assert scorer.name.startswith("voicebench-qa (big at http://host/v1, prompt ") and other.name != scorer.name


def test_scorers_that_cannot_work_are_refused_before_a_run():
    with pytest.raises(ConfigError, match="choose from qa-exist-match"):
        find_scorer("bleurt")
    for empty in ("", " , "):
        with pytest.raises(ConfigError, match="--scorer is empty: give at least one of qa-exist-match"):
            choose_scorers(empty, "", "", None)
    with pytest.raises(ConfigError, match="--scorer-endpoint"):
        find_scorer("openaudiobench")
    with pytest.raises(ConfigError, match="response"):
        find_scorer("openaudiobench", lambda prompt, seed: "", "Q {question}")


def test_whisper_normalisers_fold_what_wer_must_not_count():
    english = whisper_english()
    assert english("Twenty-five dollars, um, won't do") == english("$25 will not do")
    assert whisper_basic()("Ça va?").strip() == "ça va"
