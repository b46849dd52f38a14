"""A joint SentencePiece unigram vocabulary of two languages: text to pieces and back; it knows no model.

The first four ids are fixed: `<s>`, which stands for a pause and is CTC's blank, `<pad>`, `</s>` and `<unk>`.
"""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import sentencepiece

from echox.errors import ConfigError, ModelError
from echox.files import JSON_BYTES, open_regular, write_bytes
from echox.text.cleaning import BLANK_MARK

VOCABULARY = "vocabulary.model"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
BLANK = 0
WORD_START = "\u2581"


class Pieces:
    """A vocabulary in memory; `size` is how many pieces it has."""

    def __init__(self, content: bytes, source: str = "the vocabulary") -> None:
        self.content = content
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise ModelError(f"{source} is no SentencePiece model: make the vocabulary again.") from error
        self.size = int(self._model.get_piece_size())
        if tuple(self._model.id_to_piece(number) for number in range(min(len(SPECIAL), self.size))) != SPECIAL:
            raise ModelError(f"{source} does not begin with {', '.join(SPECIAL)}: make the vocabulary again.")
        starts = (self._model.id_to_piece(number).startswith(WORD_START) for number in range(self.size))
        self.starts_word = [starts_one and number >= len(SPECIAL) for number, starts_one in enumerate(starts)]

    @classmethod
    def load(cls, path: str | Path) -> "Pieces":
        """Read a vocabulary file, or the one in a model folder; ModelError when it cannot be used."""
        path = Path(path) / VOCABULARY if Path(path).is_dir() else Path(path)
        with open_regular(path, JSON_BYTES, ModelError) as file:
            return cls(file.read(), str(path))

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> "Pieces":
        """Learn `size` pieces of the texts; ConfigError when they are too few for so many."""
        made = BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=made,
                model_type="unigram",
                vocab_size=size,
                character_coverage=0.9999,
                bos_id=0,
                pad_id=1,
                eos_id=2,
                unk_id=3,
                num_threads=1,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split()).rpartition("] ")[2].rstrip(".")[-200:]
            raise ConfigError(f"no vocabulary of {size} pieces can be made of these texts ({reason}).") from error
        return cls(made.getvalue())

    def save(self, folder: str | Path) -> None:
        """Write the vocabulary into a model folder; OutputError."""
        write_bytes(Path(folder) / VOCABULARY, self.content)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a cleaned text; marks of pauses become the blank, no end is added."""
        ids: list[int] = []
        for number, part in enumerate(text.split(BLANK_MARK)):
            ids += [BLANK] * bool(number) + self._model.encode(part.strip())
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, without special pieces."""
        return self._model.decode([number for number in ids if number >= len(SPECIAL)])
