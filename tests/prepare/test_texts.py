"""Sources are read as they are, held-out questions stay out of training, and choices do not depend on order."""

import json
import random
from collections import Counter

import pytest

from echox.data.manifest import read_jsonl
from echox.errors import ConfigError, InputError
from echox.prepare.recipe import Texts
from echox.prepare.sources import Question, read_captions, read_replies, read_tatoeba, read_trivia, read_webquestions
from echox.prepare.texts import (
    answer_sentences,
    is_askable,
    lowest,
    near_repeats,
    number_sentences,
    plain_sentences,
    short_utterances,
    split_questions,
    stretches_of,
    words,
    write_texts,
)


def near_repeats_reference(questions, held_out, limit):
    """Return ids of questions whose word set has Jaccard similarity >= `limit` with a held-out one (all pairs)."""
    test_sets = [frozenset(words(entry.question)) for entry in held_out]
    found = set()
    for entry in questions:
        own = frozenset(words(entry.question))
        if any(len(own & other) >= limit * len(own | other) for other in test_sets):
            found.add(entry.id)
    return found


def ask(question: str, *answers: str) -> Question:
    return Question(question, question, answers or ("Paris",), "test")


def test_trivia_files_in_either_encoding(sources):
    found = {entry.question: entry.answers for entry in read_trivia(sources["opentriviaqa"])}
    assert len(found) == 13
    assert found["Who wrote the song Café Noir?"] == ("José Mel",)


@pytest.mark.parametrize(
    ("question", "answer", "good"),
    [
        ("What is the capital of France?", "Paris", True),
        ("In which year did he die?", "1956", True),
        ("Which of these is a fruit?", "Apple", False),
        ("Which one is not a bear?", "Sloth", False),
        ("What is the following animal?", "Sloth", False),
        ("All cats are colourblind.", "Cat", False),
        ("Is Paris a city?", "Paris", False),
        ("What is the capital of France?", "True", False),
        ("What is the capital of France?", "All of the above", False),
        ("What is the capital of France?", "a city that has far too many words", False),
        ("What " + "very " * 18 + "long?", "Paris", False),
        ("What is <b>this</b>?", "Paris", False),
        ("Who was Akira Kurosawa?", "黒澤明", False),
        ("Who was he?", "Erdős Pál", True),
    ],
)
def test_askable_questions(question, answer, good):
    assert is_askable(ask(question, answer)) is good


def test_near_repeats_equal_the_slow_twin():
    rng = random.Random(0)
    vocabulary = ["what", "who", "is", "the", "a", "of", "red", "blue", "sea", "king"]
    rows = [ask(" ".join(rng.choices(vocabulary, k=rng.randint(2, 7))) + f"?{n}") for n in range(80)]
    for limit in (0.5, 0.8, 1.0):
        expected = near_repeats_reference(rows[:50], rows[50:], limit)
        assert near_repeats(rows[:50], rows[50:], limit) == expected
        assert 0 < len(near_repeats_reference(rows[:50], rows[50:], 0.5)) < 50


def test_choice_does_not_depend_on_order():
    rows = [ask(f"what is {n}?") for n in range(30)]
    backwards = lowest(rows[::-1], 7, "salt")
    assert lowest(rows, 7, "salt") == backwards != lowest(rows, 7, "other salt")


def test_split_keeps_measured_questions_out_of_training(recipe, sources):
    near = "what now is the capital of {}?"
    rows = [{"qId": f"near{n}", "answers": ["X"], "qText": near.format(p)} for n, p in enumerate(("france", "spain"))]
    rows += [{"qId": "same", "answers": ["milk"], "qText": "Who sells milk on street 1?"}]
    (sources["webquestions"] / "trainmodel.json").write_text(json.dumps(rows), encoding="utf-8")
    train, measured, reserve = split_questions(recipe)
    assert [entry.source == "opentriviaqa" for entry in measured] == [False, True] * 3
    held_out = [*measured, *reserve]
    assert sum(entry.source != "opentriviaqa" for entry in held_out) == 8
    assert not near_repeats_reference(train, held_out, recipe.texts.near_repeat_jaccard)
    assert "same" not in {entry.id for entry in train}
    everything = {entry.id for entry in [*train, *held_out]}
    assert len(everything) == len(train) + len(held_out)


def test_sentences_hold_every_answer_and_no_repeats():
    rows = [ask("Who?", "Mr. Bean", "Rowan"), ask("What?", "rowan"), ask("Why?", "x y z a b c d e")]
    sentences = answer_sentences(rows, per_answer=2)
    assert len(sentences) == 4
    assert all("Mr. Bean" in text or "Rowan" in text for _, text in sentences)
    lines = ["I like tea.", "I like tea!", "Go.", "One two three four five.", "A <b> tag here."]
    assert sorted(text for _, text in plain_sentences(lines, "s", 9)) == ["I like tea.", "One two three four five."]


def test_short_utterances_are_few_words_once_and_every_reply_by_many_voices(tmp_path):
    lines = ["Go.", "go!", "I like tea.", "We are all at home, all of us."]
    (tmp_path / "replies.txt").write_text("Yes.\n\nNo.\n")
    texts = Texts(
        short_sentences=9, short_stretches=3, short_answers=1, replies=tmp_path / "replies.txt", reply_times=3
    )
    made = short_utterances(texts, lines, ["Paris", "a city that has far too many words", "Paris"])
    kinds = Counter(key.split("-")[0] for key, _ in made)
    assert kinds == {"short": 2, "stretch": 3, "answer": 1, "reply": 3 * (2 + 101)}
    assert len({key for key, _ in made}) == len(made) and made != sorted(made)
    said = Counter(text for key, text in made if key.startswith("reply"))
    assert said["Yes."] == said["Seventeen."] == said["One hundred."] == 3
    assert all(len(words(text)) <= 4 for key, text in made if not key.startswith("reply"))
    assert short_utterances(Texts(), lines, []) == []
    (tmp_path / "replies.txt").write_text("\n \n")
    with pytest.raises(InputError, match=r"replies\.txt holds no line"):
        read_replies(tmp_path / "replies.txt")


def test_stretches_stand_in_their_lines_and_do_not_depend_on_order():
    lines = ["Two dogs run on the grass, and bark.", "A man sleeps.", "(Not said)", "Who was it?"]
    made = stretches_of(lines, 9)
    assert made == stretches_of(lines[::-1], 9) and len(made) == len(set(made))
    assert all(any(text.rstrip(".") in line for line in lines) and 1 <= len(words(text)) <= 4 for text in made)
    assert stretches_of(lines, 1) == made[:1]


def test_written_files(recipe, tmp_path, sources):
    counts = write_texts(recipe, tmp_path / "texts")
    assert counts["qa_heldout"] == 6
    for name, count in counts.items():
        assert len(read_jsonl(tmp_path / "texts" / f"{name}.jsonl")) == count > 0
    first = (tmp_path / "texts" / "sentences.jsonl").read_bytes()
    write_texts(recipe, tmp_path / "texts")
    assert (tmp_path / "texts" / "sentences.jsonl").read_bytes() == first


def test_missing_and_broken_sources_are_named(tmp_path, recipe):
    empty = tmp_path / "empty"
    empty.mkdir()
    bad = tmp_path / "bad.json"
    bad.write_text('[{"qText": "no answers"}]')
    for reader, path, message in (
        (read_trivia, empty, "no `#Q`"),
        (read_trivia, tmp_path / "none", "does not exist"),
        (read_webquestions, bad, "is not a list"),
        (read_tatoeba, tmp_path / "none.zip", "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            list(reader(path))
    (tmp_path / "x.zip").write_bytes(b"no zip")
    (tmp_path / "x.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="zip"):
        list(read_tatoeba(tmp_path / "x.zip"))
    with pytest.raises(InputError, match="gzip"):
        list(read_captions(tmp_path / "x.gz"))


def test_source_without_a_place_says_where_to_get_it(recipe, tmp_path):
    source = recipe.sources.tatoeba.model_copy(update={"path": None})
    sources = recipe.sources.model_copy(update={"tatoeba": source})
    with pytest.raises(ConfigError, match="--source tatoeba="):
        write_texts(recipe.model_copy(update={"sources": sources}), tmp_path / "texts")


def test_number_sentences_follow_from_their_index_and_three_of_four_are_words():
    made = number_sentences(40)
    assert made[:10] == number_sentences(10) and len({key for key, _ in made}) == 40
    assert all(any(c.isdigit() for c in text) == (number % 4 == 0) for number, (_, text) in enumerate(made))
