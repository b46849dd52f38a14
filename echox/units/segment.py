"""Most probable words of a unit sequence: exact Viterbi under the unigram and the bigram model (spec A2.2, A2.3).

The unigram decoder is SentencePiece with our scores, that of the bigram numba's (`kernels.py`), and plain dictionaries and loops
where numba is absent.  All break ties alike: of equal paths the one whose last word is longest, then the same for the path before
it.  Nothing is estimated here.
"""

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from echox.errors import ConfigError, InputError
from echox.units.lexicon import Lexicon, Word

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

    from echox.units.kernels import Scores, Trie

FIRST_CODE_POINT = 0x4E00  # unit u is written chr(0x4E00 + u): ideographs, touched by no normaliser or splitter
MAX_UNITS = 20_000  # ideographs from U+4E00 on


def segment_bigram_reference(ids: Sequence[int] | np.ndarray, lexicon: Lexicon) -> list[Word]:
    """Return the words that maximise ln P1(w1) + sum ln P(w|v): states[i][k] is the best path over i units, the last word of k."""
    units = tuple(int(unit) for unit in ids)
    states: list[dict[int, tuple[float, int, int]]] = [{} for _ in range(len(units) + 1)]  # k -> score, word, l
    for end in range(1, len(units) + 1):
        for k in range(1, min(end, lexicon.max_length) + 1):
            number = lexicon.number.get(units[end - k : end])
            if number is None:
                continue
            if k == end:
                states[end][k] = (float(lexicon.log_probs[number]), number, 0)
                continue
            paths = [
                (score + lexicon.follow_log_prob(previous, number), length)
                for length, (score, previous, _) in states[end - k].items()
            ]
            score, length = max(paths)  # the longer word before wins a tie
            states[end][k] = (score, number, length)
    end, words = len(units), []
    k = max(states[end], key=lambda length: (states[end][length][0], length), default=0)
    while end:
        words.append(units[end - k : end])
        end, k = end - k, states[end][k][2]
    return words[::-1]


class Segmenter:
    """The decoders of one lexicon, compiled at first use and kept."""

    def __init__(self, lexicon: Lexicon) -> None:
        if lexicon.units > MAX_UNITS:
            raise ConfigError(f"{lexicon.units} units are more than the {MAX_UNITS} that can be written as characters.")
        self.lexicon = lexicon

    def segment(self, sequences: Sequence[np.ndarray], order: int) -> list[np.ndarray]:
        """Return the word numbers of each unit sequence, int64 [words], under the model of `order` 1 or 2."""
        for ids in sequences:
            if len(ids) and ids.max() >= self.lexicon.units:
                raise InputError(f"unit {ids.max()} is outside the lexicon's units 0 to {self.lexicon.units - 1}.")
        if order not in (1, 2):
            raise ConfigError(f"order {order} is unknown: choose 1 for unigram or 2 for bigram.")
        if not sequences:
            return []
        if order == 1:
            return self._unigram(sequences)
        if importlib.util.find_spec("numba") is None:
            words, number = (segment_bigram_reference(ids, self.lexicon) for ids in sequences), self.lexicon.number
            return [np.array([number[word] for word in row], np.int64) for row in words]
        return self._bigram(sequences)

    def _unigram(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        pieces = self._sentencepiece.encode([to_text(ids) for ids in sequences], out_type=int)
        counts = np.array([len(row) for row in pieces])
        numbers = np.fromiter(chain.from_iterable(pieces), np.int64, int(counts.sum())) - 1  # piece 0 is <unk>
        return np.split(numbers, np.cumsum(counts)[:-1])

    def _bigram(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        from echox.units.kernels import bigram_paths

        trie, scores = self._tables
        offsets = np.r_[0, np.cumsum([len(ids) for ids in sequences])].astype(np.int64)
        flat = np.concatenate(sequences).astype(np.int64)
        numbers, counts = bigram_paths(flat, offsets, trie, scores, self.lexicon.max_length)
        return np.split(numbers.astype(np.int64), np.cumsum(counts)[:-1])

    @cached_property
    def _sentencepiece(self) -> "SentencePieceProcessor":
        from sentencepiece import SentencePieceProcessor
        from sentencepiece import sentencepiece_model_pb2 as pb

        model = pb.ModelProto()  # type: ignore[attr-defined]
        model.trainer_spec.model_type = 1  # unigram
        model.normalizer_spec.name = "identity"
        model.normalizer_spec.add_dummy_prefix = False
        model.normalizer_spec.remove_extra_whitespaces = False
        model.normalizer_spec.escape_whitespaces = False
        model.pieces.add(piece="<unk>", score=0.0, type=2)
        texts = word_texts(self.lexicon)
        for text, score in zip(texts, self.lexicon.log_probs.tolist(), strict=True):
            model.pieces.add(piece=text, score=score, type=1)
        return SentencePieceProcessor(model_proto=model.SerializeToString())

    @cached_property
    def _tables(self) -> "tuple[Trie, Scores]":
        from echox.units.kernels import Scores, Trie

        lexicon = self.lexicon
        node_of = {word: 1 + unit for unit, word in enumerate(lexicon.words[: lexicon.units])}  # 0 is the root
        word_of = {1 + unit: unit for unit in range(lexicon.units)}
        edges: list[tuple[int, int, int]] = []
        for number, word in enumerate(lexicon.words):
            for length in range(2, len(word) + 1):
                if word[:length] not in node_of:
                    node_of[word[:length]] = len(node_of) + 1
                    edges.append((node_of[word[: length - 1]], word[length - 1], node_of[word[:length]]))
            word_of[node_of[word]] = number
        parents, units, children = np.array(sorted(edges), np.int64).reshape(-1, 3).T.copy()
        first = np.searchsorted(parents, np.arange(len(node_of) + 2))
        words = np.array([word_of.get(node, -1) for node in range(len(node_of) + 1)], np.int64)
        bigrams = lexicon.bigrams
        scores = Scores(
            lexicon.log_probs, lexicon.backoff, bigrams.offsets, bigrams.followers, lexicon.bigram_log_probs
        )
        return Trie(first.astype(np.int64), units, children, words), scores


def to_text(ids: np.ndarray) -> str:
    """Write units [U] as characters, one each."""
    return (ids + FIRST_CODE_POINT).astype("<u4").tobytes().decode("utf-32-le")


def from_text(text: str) -> Word:
    """Read units from the characters of `to_text`."""
    return tuple(ord(character) - FIRST_CODE_POINT for character in text)


def word_texts(lexicon: Lexicon) -> list[str]:
    """Return every word of the lexicon as characters."""
    return ["".join(chr(FIRST_CODE_POINT + unit) for unit in word) for word in lexicon.words]
