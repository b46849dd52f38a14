"""Cutting the text stream: every token lands in one segment, in order; the trigger rule is spec section 6.2's."""

import numpy as np
import pytest

from echox.text.segmenter import PhraseSegmenter, TriggerSegmenter, cut_text, ends_sentence, split_sentences


def test_sentences_and_clauses():
    pieces = "One| two| three|.| Four| five| six| seven| eight| nine|,| ten|.".split("|")
    assert cut_text(pieces) == [(0, 4), (4, 11), (11, 13)]
    assert cut_text("Yes| it| is|.| Well|,| I| think| so|.".split("|")) == [(0, 4), (4, 10)]  # a short clause
    assert ends_sentence("It is. ") and not ends_sentence("It is ")


def test_sentences_of_a_letter():
    letter = """On Monday Dr. Smith and Mrs. Brown met J. Jones at 5 p.m. in St. Petersburg. "Wait... what?" he
asked; 3.5 km are enough! Then they left

Yours, Ann"""
    assert list(split_sentences(letter)) == [
        "On Monday Dr. Smith and Mrs. Brown met J. Jones at 5 p.m. in St. Petersburg.",
        '"Wait... what?" he asked; 3.5 km are enough!',
        "Then they left",
        "Yours, Ann",
    ]
    assert list(split_sentences("all small. so what? yes")) == ["all small.", "so what?", "yes"]
    assert list(
        split_sentences("Go (now!) She did. 'Is it?' he said. On Sept. 5th... [So?] Yes\u2026 \u201cNo.\u201d It is.")
    ) == [
        "Go (now!)",
        "She did.",
        "'Is it?' he said.",
        "On Sept. 5th...",
        "[So?]",
        "Yes\u2026",
        "\u201cNo.\u201d",
        "It is.",
    ]
    assert list(split_sentences(" \n ")) == []


def test_no_cut_inside_a_word_or_number():
    assert cut_text(" It| was| on| Nov.| 9.".split("|")) == [(0, 5)]  # an abbreviation ends no sentence
    assert cut_text(" Twelve| times| twelve| plus| 12| and| 3| =| 15".split("|"), PhraseSegmenter(first_longest=8)) == [
        (0, 9)
    ]
    assert cut_text(["It", " costs", " 3", ".", "14", " dollars", "."]) == [(0, 7)]


@pytest.mark.parametrize("piece", [" m", " °C", " +", " km", " (feet)"])
def test_no_cut_between_a_number_and_its_unit_or_sign(piece):
    rule = PhraseSegmenter(longest=3, first_longest=3, first_phrase=2)
    assert cut_text([" It", " is", " 12", piece, " tall", " here"], rule) != cut_text(
        [" It", " is", " 12", " feet", " tall", " here"], rule
    )
    assert cut_text([" It", " is", " 12", " feet"], rule)[0] == (0, 3) and cut_text(
        [" It", " is", " 12", piece], rule
    ) == [(0, 4)]
    assert (
        cut_text([" It", " is", " 12", " of"], rule)
        == cut_text([" It", " is", " big", " ox"], rule)
        == [(0, 3), (3, 4)]
    )
    assert cut_text([" 1", " 2", " 3", " 4", " 5", " 6"], rule) == [(0, 3), (3, 6)]  # numbers in a row are cut


def test_long_text_is_cut_at_words_and_nothing_is_lost():
    pieces = [" word"] * 50
    assert cut_text(pieces, PhraseSegmenter(longest=20)) == [(0, 10), (10, 30), (30, 50)]
    assert cut_text(pieces, PhraseSegmenter(longest=20, first_phrase=0)) == [(0, 20), (20, 40), (40, 50)]


def test_the_first_segment_ends_with_its_phrase_and_the_others_do_not():
    pieces = "The| largest| city| in| northern| Spain| is| Bilbao| near| the| coast| of| the| sea|.".split("|")
    assert cut_text(pieces) == [(0, 6), (6, 15)]
    words = ["He", " wrote", " a", " book", " in", " and", " of", " the", " old", " days"]
    assert cut_text(words) == [(0, 10)]  # never between two function words


def test_early_segments_of_three_to_five_tokens_grow():
    early = {"first_phrase": 3, "first_longest": 5}
    words = [" word"] * 60
    assert cut_text(words, PhraseSegmenter(**early)) == [(0, 5), (5, 25), (25, 45), (45, 60)]
    assert cut_text(words, PhraseSegmenter(**early, early=3)) == [(0, 5), (5, 15), (15, 30), (30, 50), (50, 60)]
    pieces = "The| capital| city| of| France| and| the| largest| one| of| them| all| is| Paris|.".split("|")
    assert cut_text(pieces, PhraseSegmenter(**early, early=2)) == [(0, 3), (3, 9), (9, 15)]
    word = ["S", "im", "fer", "o", "pol", "itan", " is", " here"]
    assert cut_text(word, PhraseSegmenter(**early)) == [(0, 6), (6, 8)]  # a word is never cut


def reference(scores, threshold, window, shortest, longest):
    """The rule written a second time, over the whole list at once."""
    cuts, start = [], 0
    for c in range(len(scores)):
        k = c - window
        if k >= 0 and scores[k] == max(scores[max(0, k - window) : k + window + 1]):
            if k - start >= longest or (scores[k] > threshold and k - start >= shortest):
                cuts.append(k + 1)
                start = k + 1
    return cuts


def test_trigger_rule_and_its_twin():
    rng = np.random.default_rng(0)
    for number in range(20):
        scores = (
            rng.normal((number % 2 - 1) / 2, 0.2, 200).round(1).tolist()
        )  # every other is below the threshold for long
        segmenter = TriggerSegmenter()
        cuts = [cut for score in scores if (cut := segmenter.push("", score)) is not None]
        assert cuts == reference(scores, 0.1, 5, 20, 50)
    flat = TriggerSegmenter()
    first = next(i for i in range(100) if flat.push("", 0.15 if i == 20 else 0.0) is not None)
    assert first == 25  # the 26th token, as spec section 6.2 says
