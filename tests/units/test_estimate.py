"""What the estimators find in a corpus whose words are known, and what naive readings of the paper find (spec A2.6)."""

import re
import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from benchmarks.slow_units import count_ngrams_reference
from benchmarks.toy_units import ToyCorpus, boundary_f1, toy_corpus
from echox.errors import ConfigError, InputError
from echox.units import estimate
from echox.units.bpe import train_bpe
from echox.units.estimate import (
    LexiconConfig,
    bits_per_unit,
    build_lexicon,
    prune,
    single_units,
    split,
    train_with_report,
)
from echox.units.lexicon import Bigrams, Lexicon
from echox.units.ngrams import count_ngrams
from echox.units.segment import Segmenter

CONFIG = LexiconConfig(max_length=9, vocabulary_size=200, units=60)


def train_lexicon(*given) -> Lexicon:
    return train_with_report(*given).lexicon


@pytest.fixture(scope="module")
def toy() -> ToyCorpus:
    return toy_corpus(words=100, units=60, sequences=600, length=12, seed=1)


def f1(lexicon: Lexicon, toy: ToyCorpus, order: int) -> float:
    found = Segmenter(lexicon).segment(toy.sequences, order)
    return boundary_f1([[lexicon.words[n] for n in numbers] for numbers in found], toy.words)


def test_ours_finds_the_hidden_words(toy: ToyCorpus) -> None:
    lexicon = train_lexicon(toy.sequences, CONFIG)
    assert f1(lexicon, toy, order=1) > 0.9
    assert f1(lexicon, toy, order=2) > 0.9


def test_maximum_likelihood_without_a_threshold_does_not(toy: ToyCorpus) -> None:
    naive = build_lexicon(count_ngrams(toy.sequences, 9, min_count=1), units=60)
    assert f1(naive, toy, order=1) < 0.7


def test_bigrams_over_raw_substrings_do_not(toy: ToyCorpus) -> None:
    """P(w|v) = c(vw) / c(v) over substrings is blind to the boundary (lesson 2)."""
    few = ToyCorpus(toy.words[:60], toy.sequences[:60])
    counts = count_ngrams(few.sequences, 9, min_count=1)
    naive = build_lexicon(counts, units=60)
    pairs = [
        np.tile([naive.number[gram[:cut]], naive.number[gram[cut:]]], count)[: 2 * count].reshape(-1, 2)
        for gram, count in counts.items()
        for cut in range(1, len(gram))
    ]
    table = Bigrams.count([row for rows in pairs for row in rows], len(naive))
    raw = Lexicon(60, naive.words, naive.log_probs, table, strength=1e-6)
    assert f1(raw, few, order=2) < 0.5


def test_more_words_than_the_vocabulary_are_never_kept_and_single_units_always(toy: ToyCorpus) -> None:
    lexicon = train_lexicon(toy.sequences, LexiconConfig(units=65, vocabulary_size=90))
    assert len(lexicon) <= 90
    assert lexicon.words[:65] == tuple((unit,) for unit in range(65))
    assert max(map(len, lexicon.words)) <= 8


def test_training_is_deterministic_and_reads_no_held_out_sequence(toy: ToyCorpus) -> None:
    config = LexiconConfig(units=61, vocabulary_size=100, rounds=1)
    first = train_lexicon(toy.sequences, config)
    second = train_lexicon(toy.sequences, config)
    assert first.words == second.words
    assert first.log_probs.tobytes() == second.log_probs.tobytes()
    assert first.bigrams.counts.tobytes() == second.bigrams.counts.tobytes()
    _, held_out = split(toy.sequences, config)
    marked = [np.full(50, 60) if any(ids is out for out in held_out) else ids for ids in toy.sequences]
    assert not any(60 in word for word in train_lexicon(marked, config).words if len(word) > 1)


def test_a_terminal_sees_rounds_go_by_and_nobody_else_does(
    toy: ToyCorpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = toy.sequences[:100]
    train_lexicon(few, CONFIG)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(estimate, "tqdm", partial(tqdm, mininterval=0))
    train_lexicon(few, CONFIG)
    rounds = [int(number) for number in re.findall(r"words: (\d+) rounds", capsys.readouterr().err)]
    assert rounds == sorted(rounds) and rounds[-1] >= CONFIG.rounds + CONFIG.bigram_rounds


def test_the_chosen_round_is_the_best_on_held_out_text(toy: ToyCorpus) -> None:
    report = train_with_report(toy.sequences, CONFIG)
    _, held_out = split(toy.sequences, CONFIG)
    assert report.unigram_bits == min(attempt.bits_per_unit for attempt in report.rounds)
    assert len({attempt.min_count for attempt in report.rounds}) > 1
    assert bits_per_unit(report.lexicon, held_out, 1)[0] == pytest.approx(report.unigram_bits)
    assert bits_per_unit(report.lexicon, held_out, 2)[0] == pytest.approx(report.bigram_bits)
    assert report.bigram_bits < report.unigram_bits  # the toy has favourite followers


def test_bits_are_the_code_length_by_hand() -> None:
    lexicon = build_lexicon({(0,): 1, (1,): 1, (0, 1): 2}, 2)
    bits, length = bits_per_unit(lexicon, [np.array([0, 1, 0, 1])], order=1)
    assert bits == pytest.approx(2 * 1 / 4, abs=1e-2)  # two words of probability 1/2 over four units
    assert length == 2
    with pytest.raises(InputError, match="no units to measure"):
        bits_per_unit(lexicon, [np.array([], np.int64)], order=1)


def test_pruning_keeps_the_words_that_are_hard_to_spell_otherwise() -> None:
    counts = {(0,): 50, (1,): 50, (0, 1): 40, (0, 1, 0): 60, (0, 1, 0, 1): 1}
    kept = prune(counts, units=2, size=3)
    assert set(kept) == {(0,), (1,), (0, 1, 0)}


@pytest.mark.parametrize(("longest", "words"), [(1, 65), (2, 120), (4, 120), (6, 150)])
def test_bpe_keeps_its_bounds_and_scores_its_own_words(toy: ToyCorpus, longest: int, words: int) -> None:
    config = LexiconConfig(units=65, vocabulary_size=max(words, 120), max_length=longest)
    lexicon, merges = train_bpe(toy.sequences, config)
    assert len(lexicon) == words == 65 + len(merges)
    assert max(map(len, lexicon.words)) == longest
    assert np.exp(lexicon.log_probs).sum() == pytest.approx(1, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 4), max_size=20), min_size=1, max_size=6),
    longest=st.integers(1, 6),
    least=st.integers(1, 4),
)
def test_counts_equal_the_plain_counter(rows: list[list[int]], longest: int, least: int) -> None:
    corpus = [np.array(row, np.int64) for row in rows]
    assert count_ngrams(corpus, longest, least) == count_ngrams_reference(corpus, longest, least)


def test_tiny_corpora_still_train() -> None:
    for corpus in ([np.array([3])], [np.array([0, 1, 0, 1]), np.array([], np.int64)], [np.array([0]), np.array([1])]):
        lexicon = train_lexicon(corpus, LexiconConfig(vocabulary_size=10))
        assert len(lexicon) >= lexicon.units
    train, held_out = split([np.array([0])] * 3, LexiconConfig(held_out=0.9))
    assert (len(train), len(held_out)) == (1, 2)


def test_impossible_corpora_and_settings_are_refused() -> None:
    with pytest.raises(InputError, match="holds no units"):
        train_lexicon([])
    with pytest.raises(InputError, match="holds no units"):
        train_bpe([np.array([], np.int64)])
    with pytest.raises(InputError, match="holds unit 5, but the settings say there are 3"):
        train_lexicon([np.array([5])], LexiconConfig(units=3))
    with pytest.raises(ConfigError, match="vocabulary_size = 4 is below the 6"):
        train_lexicon([np.array([5])], LexiconConfig(vocabulary_size=4))
    with pytest.raises(ConfigError, match="more than the 20000"):
        single_units([np.array([20_000])], LexiconConfig(vocabulary_size=30_000))  # before any word is made
    with pytest.raises(ConfigError, match="unknown key 'roundz'"):
        LexiconConfig.parse({"roundz": 3}, "recipe.yaml")
