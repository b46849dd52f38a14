"""The decoders against brute force, and every fast one against its slow twin."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.slow_units import segment_unigram_reference
from echox.errors import ConfigError, InputError, ModelError
from echox.units import segment
from echox.units.estimate import build_lexicon, with_bigrams
from echox.units.lexicon import Bigrams, Lexicon, Word
from echox.units.segment import Segmenter, segment_bigram_reference

UNITS = 3


def segment_unigram(ids, lexicon: Lexicon) -> list[Word]:
    return [lexicon.words[n] for n in Segmenter(lexicon).segment([np.asarray(ids, np.int64)], order=1)[0]]


def segment_bigram(ids, lexicon: Lexicon) -> list[Word]:
    return [lexicon.words[n] for n in Segmenter(lexicon).segment([np.asarray(ids, np.int64)], order=2)[0]]


def random_lexicon(seed: int, units: int = UNITS, words: int = 25, longest: int = 5, ties: bool = False) -> Lexicon:
    """A lexicon with random counts and random neighbours; `ties` makes all words equally probable."""
    rng = np.random.default_rng(seed)
    drawn = [tuple(rng.integers(units, size=rng.integers(1, longest + 1)).tolist()) for _ in range(words)]
    counts = {word: 10 if ties else int(rng.integers(1, 200)) for word in drawn}
    lexicon = build_lexicon(counts | {(unit,): 10 for unit in range(units)}, units)
    segmented = [rng.integers(len(lexicon), size=30) for _ in range(20)]
    return with_bigrams(lexicon, segmented, strength=5.0)


def every_segmentation(ids: tuple[int, ...], lexicon: Lexicon) -> list[list[Word]]:
    cuts = itertools.product([False, True], repeat=len(ids) - 1)
    found = []
    for cut in cuts:
        edges = [0, *(i + 1 for i, here in enumerate(cut) if here), len(ids)]
        words = [ids[a:b] for a, b in itertools.pairwise(edges)]
        if all(word in lexicon.number for word in words):
            found.append(words)
    return found


def score(words: list[Word], lexicon: Lexicon, order: int) -> float:
    return lexicon.score([lexicon.number[word] for word in words], order)


sequences = st.lists(st.integers(0, UNITS - 1), min_size=1, max_size=10)


@settings(max_examples=40, deadline=None)
@given(ids=sequences, seed=st.integers(0, 5))
@pytest.mark.parametrize(("decode", "order"), [(segment_unigram_reference, 1), (segment_bigram_reference, 2)])
def test_viterbi_finds_what_brute_force_finds(decode, order: int, ids: list[int], seed: int) -> None:
    lexicon = random_lexicon(seed)
    best = max(score(words, lexicon, order) for words in every_segmentation(tuple(ids), lexicon))
    assert score(decode(ids, lexicon), lexicon, order) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("ties", [False, True])
def test_fast_unigram_equals_its_twin_word_for_word(ties: bool) -> None:
    rng = np.random.default_rng(0)
    for seed in range(6):
        lexicon = random_lexicon(seed, units=5, words=120, ties=ties)
        for length in (1, 2, 7, 60, 300):
            ids = rng.integers(5, size=length)
            assert segment_unigram(ids, lexicon) == segment_unigram_reference(ids, lexicon)


def test_fast_bigram_equals_its_twin() -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(1)
    for seed in range(6):
        lexicon = random_lexicon(seed, units=5, words=120)
        for length in (1, 2, 7, 60, 200):
            ids = rng.integers(5, size=length)
            fast, slow = segment_bigram(ids, lexicon), segment_bigram_reference(ids, lexicon)
            assert score(fast, lexicon, 2) == pytest.approx(score(slow, lexicon, 2), abs=1e-9)
            assert fast == slow


def test_bigram_keeps_a_state_for_every_last_word() -> None:
    """A greedy recursion keeps 0_1 at position 2, the better half, and misses that 1 is what 2 follows."""
    words = ((0,), (1,), (2,), (0, 1))
    log_probs = np.log([0.1, 0.1, 0.1, 0.05])
    likely = np.array([1, 2])  # 1 is always followed by 2
    lexicon = Lexicon(3, words, log_probs, Bigrams.count([likely] * 1000, 4))
    for decode in (segment_bigram, segment_bigram_reference):
        assert decode([0, 1], lexicon) == [(0, 1)]
        assert decode([0, 1, 2], lexicon) == [(0,), (1,), (2,)]


@settings(max_examples=30, deadline=None)
@given(ids=st.lists(st.integers(0, UNITS - 1), max_size=40), seed=st.integers(0, 3))
@pytest.mark.parametrize("decode", [segment_unigram, segment_bigram])
def test_words_joined_are_the_input(decode, ids: list[int], seed: int) -> None:
    words = decode(ids, random_lexicon(seed))
    assert [unit for word in words for unit in word] == ids


def test_many_sequences_at_once_equal_one_at_a_time_with_empty_ones_between() -> None:
    lexicon = random_lexicon(0)
    rows = [np.array(ids, np.int64) for ids in ([], [0, 1, 2, 0], [], [2], [1, 1, 0, 2, 0, 1], [])]
    for order in (1, 2):
        together = Segmenter(lexicon).segment(rows, order)
        alone = [Segmenter(lexicon).segment([row], order)[0] for row in rows]
        assert [row.tolist() for row in together] == [row.tolist() for row in alone]
    assert Segmenter(lexicon).segment([], 1) == []


def test_without_numba_its_twin_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    lexicon = random_lexicon(2)
    rows = [np.array([0, 1, 2, 1, 0, 0]), np.array([2])]
    expected = Segmenter(lexicon).segment(rows, 2)
    monkeypatch.setattr(segment.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(Segmenter, "_bigram", None)
    found = Segmenter(lexicon).segment(rows, 2)
    assert [row.tolist() for row in found] == [row.tolist() for row in expected]


def test_an_unknown_unit_and_order_are_refused() -> None:
    for decode in (segment_unigram, segment_bigram):
        with pytest.raises(InputError, match="unit 7 is outside"):
            decode([0, 7], random_lexicon(0))
    with pytest.raises(ConfigError, match="order 3"):
        Segmenter(random_lexicon(0)).segment([np.array([0])], 3)


def test_follower_probabilities_sum_to_one_and_the_table_equals_the_formula() -> None:
    lexicon = random_lexicon(3)
    p1 = np.exp(lexicon.log_probs).sum()
    for previous in range(len(lexicon)):
        row = np.array([lexicon.follow_log_prob(previous, word) for word in range(len(lexicon))])
        share = lexicon.context_counts[previous] / (lexicon.context_counts[previous] + 5.0)
        assert np.exp(row).sum() == pytest.approx(share + (1 - share) * p1)
        pairs = [lexicon.score([previous, word], 2) - lexicon.log_probs[previous] for word in range(len(lexicon))]
        np.testing.assert_allclose(pairs, row, atol=1e-12)


def test_bigrams_are_those_of_the_text() -> None:
    text = [np.array([0, 1, 0, 1]), np.array([1]), np.array([0, 1, 2])]
    bigrams = Bigrams.count(text, words=4)
    pairs = np.repeat(np.arange(4), np.diff(bigrams.offsets)).tolist()
    assert list(zip(pairs, bigrams.followers.tolist(), bigrams.counts.tolist(), strict=True)) == [
        (0, 1, 3),
        (1, 0, 1),
        (1, 2, 1),
    ]


@pytest.mark.parametrize(
    ("words", "log_probs", "says"),
    [
        (((0,), (2,)), [-1, -1], "single units 0 to 1"),
        (((0,), (1,), (0, 1), (0, 1)), [-1] * 4, "twice"),
        (((0,), (1,), (0, 2)), [-1] * 3, "outside 0 to 1"),
        (((0,), (1,), ()), [-1] * 3, "empty"),
        (((0,), (1,), (0,) * 65), [-1] * 3, "65 units, more than the 64"),
        (((0,), (1,)), [-1], "2 finite"),
        (((0,), (1,)), [-1, np.nan], "2 finite"),
        (((0,), (1,)), [-1, 1], "none above 0"),
    ],
)
def test_an_impossible_lexicon_is_refused(words: tuple, log_probs: list, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        Lexicon(2, words, np.array(log_probs, np.float64), Bigrams.empty(len(words)))


@pytest.mark.parametrize(
    ("offsets", "followers", "counts"),
    [
        ([0, 0], [], []),  # too short
        ([0, 2, 1], [0], [1]),  # falls
        ([0, 1, 2], [0], [1]),  # points beyond
        ([0, 1, 1], [2], [1]),  # unknown word
        ([0, 1, 1], [0], [0]),  # nothing counted
        ([0, 2, 2], [1, 1], [1, 1]),  # twice
    ],
)
def test_an_impossible_bigram_table_is_refused(offsets: list, followers: list, counts: list) -> None:
    table = Bigrams(np.array(offsets, np.int64), np.array(followers, np.int32), np.array(counts, np.int64))
    with pytest.raises(ModelError, match="bigram table"):
        table.check(2)
