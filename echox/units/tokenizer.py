"""Unit words as tokens: what the speech decoder predicts, and what a Hugging Face tokenizer on disk holds.

    token   0 <pad>   1 <s>   2 </s>   3 .. 3 + k - 1 single units   the rest: longer words

Decoding is a table look-up and needs no other package.  Encoding is the exact bigram Viterbi by default; the
tokenizer.json beside it is the same lexicon with the unigram decoder, for `AutoTokenizer` (its text: one character
U+4E00 + unit for each unit).  Words print as `12_407_33` (spec A2.7, C).

On disk: tokenizer.json, tokenizer_config.json, unit_language.json (which decoder), bigrams.safetensors.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from echox.errors import ConfigError, InputError, ModelError
from echox.files import refuse_others, write_json, write_text
from echox.units.bpe import Merge, bpe_backend, bpe_segment, train_bpe
from echox.units.estimate import LexiconConfig, train_with_report
from echox.units.files import read_arrays, read_json, write_arrays
from echox.units.lexicon import Bigrams, Lexicon, Word
from echox.units.segment import MAX_UNITS, Segmenter, from_text, word_texts
from echox.units.sequence import as_ids

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>")
FORMAT = 1

Decoder = Literal["unigram", "bigram", "bpe"]


@dataclass(frozen=True, eq=False)
class UnitTokenizer:
    """Words of a lexicon as token ids; `decoder` says how units are cut into words, `merges` belong to "bpe"."""

    lexicon: Lexicon
    decoder: Decoder = "bigram"
    merges: tuple[Merge, ...] = ()
    wordwise: ClassVar[bool] = True  # a word spells its units whatever stands beside it
    pad_token_id: ClassVar[int] = SPECIAL_TOKENS.index("<pad>")
    bos_token_id: ClassVar[int] = SPECIAL_TOKENS.index("<s>")
    eos_token_id: ClassVar[int] = SPECIAL_TOKENS.index("</s>")

    def __post_init__(self) -> None:
        if self.decoder not in get_args(Decoder):
            raise ConfigError(f"decoder {self.decoder!r} is unknown: choose unigram, bigram or bpe.")
        backend = bpe_backend(word_texts(self.lexicon), self.merges) if self.decoder == "bpe" else None
        object.__setattr__(self, "_bpe", backend)

    @classmethod
    def train(
        cls, sequences: Sequence[np.ndarray], config: LexiconConfig | None = None, decoder: Decoder = "bigram"
    ) -> "UnitTokenizer":
        """Estimate the unit language of de-duplicated sequences; raises InputError and ConfigError."""
        if decoder != "bpe":
            return cls(train_with_report(sequences, config).lexicon, decoder)
        lexicon, merges = train_bpe(sequences, config)
        return cls(lexicon, decoder, tuple(merges))

    @cached_property
    def _segmenter(self) -> Segmenter:
        return Segmenter(self.lexicon)

    @property
    def units(self) -> int:
        """Size of the codebook."""
        return self.lexicon.units

    @property
    def vocab_size(self) -> int:
        """Tokens: the specials and the words."""
        return len(SPECIAL_TOKENS) + len(self.lexicon)

    def encode(self, ids: Sequence[int] | np.ndarray) -> list[int]:
        """Return the token ids of a unit sequence [U], no specials added; raises InputError for an unknown unit."""
        return self.encode_batch([as_ids(ids, "units")])[0].tolist()

    def encode_batch(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the token ids, int64, of each unit sequence: many at once are several times faster."""
        checked = [as_ids(ids, "units") for ids in sequences]
        units = self.lexicon.units
        for ids in checked:
            if len(ids) and ids.max() >= units:
                raise InputError(f"unit {ids.max()} is outside the unit language's units 0 to {units - 1}.")
        if self.decoder == "bpe":
            segmented = bpe_segment(self._bpe, checked)  # type: ignore[attr-defined]
        else:
            segmented = self._segmenter.segment(checked, order=2 if self.decoder == "bigram" else 1)
        return [numbers + len(SPECIAL_TOKENS) for numbers in segmented]

    def decode(self, token_ids: Iterable[int]) -> list[int]:
        """Return the units that tokens spell; specials spell none, and InputError for one outside the vocabulary."""
        return [unit for token in token_ids for unit in self.word(token)]

    def word(self, token_id: int) -> Word:
        """Return the units of one token, () for a special; raises InputError outside the vocabulary."""
        if not 0 <= token_id < self.vocab_size:
            raise InputError(f"unit token {token_id} is outside the vocabulary 0 to {self.vocab_size - 1}.")
        number = token_id - len(SPECIAL_TOKENS)
        return self.lexicon.words[number] if number >= 0 else ()

    def text(self, token_ids: Iterable[int]) -> str:
        """Return tokens in print: words as joined ids, `12_407_33`, apart by blanks; specials by name."""
        special = dict(enumerate(SPECIAL_TOKENS))
        return " ".join(special.get(t) or "_".join(map(str, self.word(t))) for t in token_ids)

    def save(self, folder: str | Path) -> None:
        """Write the four files into `folder`, each whole or not at all; raises OutputError."""
        path = Path(folder)
        self.check_place(path)
        bigrams, lexicon = self.lexicon.bigrams, self.lexicon
        names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL_TOKENS, strict=True))
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        counts = bigrams.counts  # half the file where they fit 32 bits
        counts = counts.astype(np.int32) if counts.max(initial=0) < 2**31 else counts
        arrays = {"offsets": bigrams.offsets, "followers": bigrams.followers, "counts": counts}
        write_arrays(path / "bigrams.safetensors", arrays | {"log_probs": lexicon.log_probs})
        head = {"format": FORMAT, "decoder": self.decoder, "units": lexicon.units, "words": len(lexicon)}
        write_json(path / "unit_language.json", head | {"strength": lexicon.strength})
        write_text(path / "tokenizer.json", self._hugging_face())
        write_json(path / "tokenizer_config.json", kind | names)

    @staticmethod
    def check_place(folder: str | Path) -> None:
        """Raise OutputError, before any work is done, when a unit language could not be written into `folder`."""
        refuse_others(folder, ["tokenizer.json"], "unit_language.json")

    def _hugging_face(self) -> str:
        """Return tokenizer.json: Unigram with our scores, or BPE with our merges."""
        from tokenizers import Tokenizer, decoders, models

        texts = word_texts(self.lexicon)
        if self.decoder == "bpe":
            vocabulary = {text: number for number, text in enumerate((*SPECIAL_TOKENS, *texts))}
            model = models.BPE(vocab=vocabulary, merges=list(self.merges))
        else:
            specials = [(token, 0.0) for token in SPECIAL_TOKENS]
            model = models.Unigram([*specials, *zip(texts, self.lexicon.log_probs.tolist(), strict=True)], unk_id=None)
        tokenizer = Tokenizer(model)
        tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
        tokenizer.decoder = decoders.Fuse()
        return tokenizer.to_str()

    @classmethod
    def load(cls, folder: str | Path) -> "UnitTokenizer":
        """Read a saved unit language; raises ModelError naming the file that is missing, broken or of another make."""
        path = Path(folder)
        head = _read_head(path / "unit_language.json")
        words, merges, scores = _read_tokenizer(path / "tokenizer.json", head)
        arrays = read_arrays(path / "bigrams.safetensors", {"offsets", "followers", "counts", "log_probs"})
        log_probs = arrays.pop("log_probs")
        if arrays["counts"].dtype == np.int32:
            arrays["counts"] = arrays["counts"].astype(np.int64)
        if log_probs.dtype != np.float64 or (scores is not None and scores != log_probs.tolist()):
            raise ModelError(f"{path / 'bigrams.safetensors'} does not belong to {path / 'tokenizer.json'}.")
        try:
            lexicon = Lexicon(head["units"], words, log_probs, Bigrams(**arrays), float(head["strength"]))
            return cls(lexicon, head["decoder"], merges)
        except ModelError as error:
            raise ModelError(f"the unit language in {path} is broken: {error}") from error


def _read_head(path: Path) -> dict[str, Any]:
    head = read_json(path)
    kinds = {"format": int, "decoder": str, "units": int, "words": int, "strength": float}
    if set(head) != set(kinds) or any(type(head[name]) is not kind for name, kind in kinds.items()):
        raise ModelError(f"{path} should hold {', '.join(kinds)}: make the unit language again.")
    if head["format"] != FORMAT or head["decoder"] not in get_args(Decoder):
        raise ModelError(f"{path} has format {head['format']}, decoder {head['decoder']!r}: install a newer echox.")
    if not 1 <= head["units"] <= min(head["words"], MAX_UNITS):
        raise ModelError(f"{path} speaks of {head['units']} units and {head['words']} words, which cannot be.")
    return head


def _read_tokenizer(path: Path, head: dict[str, Any]) -> tuple[tuple[Word, ...], tuple[Merge, ...], list[float] | None]:
    """Return words, merges and (for Unigram) scores of a tokenizer.json; raises ModelError naming it."""
    model = read_json(path).get("model")
    wrong = ModelError(f"{path} is not the tokenizer of this unit language: make the unit language again.")
    kind = "BPE" if head["decoder"] == "bpe" else "Unigram"
    if not isinstance(model, dict) or model.get("type") != kind:
        raise wrong
    vocabulary = model.get("vocab")
    scores: list[float] | None = None
    merges: tuple[Merge, ...] = ()
    if kind == "BPE" and isinstance(vocabulary, dict) and isinstance(model.get("merges"), list):
        if sorted(vocabulary.values(), key=str) != sorted(range(len(vocabulary)), key=str):
            raise wrong
        texts = sorted(vocabulary, key=vocabulary.__getitem__)
        merges = tuple(tuple(merge) for merge in model["merges"] if _is_row(merge, str, str))
        if len(merges) != len(model["merges"]):
            raise wrong
    elif kind == "Unigram" and isinstance(vocabulary, list) and all(_is_row(row, str, float) for row in vocabulary):
        texts = [text for text, _ in vocabulary]
        scores = [score for _, score in vocabulary[len(SPECIAL_TOKENS) :]]
    else:
        raise wrong
    if tuple(texts[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS or len(texts) != head["words"] + len(SPECIAL_TOKENS):
        raise wrong
    words = tuple(map(from_text, texts[len(SPECIAL_TOKENS) :]))
    return words, merges, scores


def _is_row(value: object, first: type, second: type) -> bool:
    return isinstance(value, list) and len(value) == 2 and type(value[0]) is first and type(value[1]) is second
