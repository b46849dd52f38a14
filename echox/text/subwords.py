"""Subwords of plain text, learnt from the texts at hand: for tasks that only train, so nothing is stored.

Token ids begin behind the three specials that unit words have, so that any decoder here reads either.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

SPECIALS = ("<pad>", "<s>", "</s>")


class Subwords:
    """Byte-level BPE over lower-cased text."""

    def __init__(self, texts: Sequence[str], size: int) -> None:
        self._tokenizer = Tokenizer(models.BPE())
        self._tokenizer.normalizer = normalizers.Lowercase()
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
        )
        self._tokenizer.train_from_iterator(texts, trainer)

    @property
    def vocab_size(self) -> int:
        """Specials and subwords."""
        return self._tokenizer.get_vocab_size()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, no specials added."""
        return [found.ids for found in self._tokenizer.encode_batch(list(texts))]
