"""Random segmentation of units, as a control for the unit language: words of the same lengths, cut anywhere (spec A9).

unit language   12_407 | 33 | 5_6_7        lengths 2 1 3
random          12 | 407_33_5 | 6_7        the same lengths in another order
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from echox.units.tokenizer import SPECIAL_TOKENS, UnitTokenizer


class RandomWords:
    """Cuts each sequence into words as long as those of `language`, in random order; rarer words are spelt as single units."""

    def __init__(self, language: UnitTokenizer, sequences: Sequence[np.ndarray], seed: int = 0) -> None:
        self.language, self.seed = language, seed
        counts = Counter(word for row in self._cut(sequences) for word in row if len(word) > 1)
        units = language.lexicon.units
        room = max(0, language.vocab_size - len(SPECIAL_TOKENS) - units)
        known = [(unit,) for unit in range(units)] + [word for word, _ in counts.most_common(room)]
        self.numbers: dict[tuple[int, ...], int] = {
            word: number for number, word in enumerate(known, start=len(SPECIAL_TOKENS))
        }
        self.vocab_size = len(SPECIAL_TOKENS) + len(known)

    def encode_batch(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the token ids, int64, of each unit sequence."""
        rows = []
        for words in self._cut(sequences):
            spelt = [[word] if word in self.numbers else [(unit,) for unit in word] for word in words]
            rows.append(np.array([self.numbers[one] for some in spelt for one in some], dtype=np.int64))
        return rows

    def boundaries(self, sequence: np.ndarray) -> set[int]:
        """Return the places between units where a word ends."""
        return set(np.cumsum([len(word) for word in self._cut([sequence])[0]])[:-1].tolist())

    def _cut(self, sequences: Sequence[np.ndarray]) -> list[list[tuple[int, ...]]]:
        found = []
        for ids, tokens in zip(sequences, self.language.encode_batch(sequences), strict=True):
            digest = hashlib.sha256(np.asarray(ids, np.int64).tobytes()).digest()
            rng = np.random.default_rng([self.seed, int.from_bytes(digest[:8], "big")])
            lengths = rng.permutation([len(self.language.word(int(token))) for token in tokens])
            ends = [0, *np.cumsum(lengths).astype(int).tolist()]
            values = np.asarray(ids).tolist()
            found.append([tuple(values[a:b]) for a, b in pairwise(ends)])
        return found
