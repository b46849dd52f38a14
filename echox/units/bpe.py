"""Byte-pair encoding over units, the documented alternative to the n-gram unit language (spec A2.4, A2.7).

Merges are learnt and applied by the `tokenizers` library on units written as characters; here is only the way in and
out.  Its words are scored by their own counts, so that its code length compares with the other models'.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from echox.errors import ModelError
from echox.units.estimate import LexiconConfig, count_words, single_units
from echox.units.lexicon import Bigrams, Lexicon, log_probs_from_counts
from echox.units.segment import FIRST_CODE_POINT, from_text, to_text
from echox.units.sequence import as_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Merge = tuple[str, str]


def train_bpe(sequences: Sequence[np.ndarray], config: LexiconConfig | None = None) -> tuple[Lexicon, list[Merge]]:
    """Learn merges up to `vocabulary_size` words of `max_length` units; return the lexicon and the merges in order.

    Only units, max_length, vocabulary_size and min_count of the settings are read.  Raises InputError and ConfigError
    as `train_with_report` does.
    """
    from tokenizers import Tokenizer, models, trainers

    config = config or LexiconConfig()
    corpus = [ids for ids in (as_ids(sequence, "units") for sequence in sequences) if len(ids)]
    units = single_units(corpus, config)
    backend = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary_size if config.max_length > 1 else units,
        min_frequency=config.min_count or 2,
        initial_alphabet=[chr(FIRST_CODE_POINT + unit) for unit in range(units)],
        max_token_length=config.max_length + 1,  # the library stops below its number
        show_progress=False,
    )
    backend.train_from_iterator(map(to_text, corpus), trainer)
    model = json.loads(backend.to_str())["model"]
    texts = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [(left, right) for left, right in model["merges"]]
    segmented = bpe_segment(bpe_backend(texts, merges), corpus)
    log_probs = log_probs_from_counts(count_words(segmented, len(texts)))
    return Lexicon(units, tuple(map(from_text, texts)), log_probs, Bigrams.empty(len(texts))), merges


def bpe_backend(texts: Sequence[str], merges: Sequence[Merge]) -> "Tokenizer":
    """Return a tokenizer that applies `merges` over the words `texts`; raises ModelError for a merge of no word."""
    from tokenizers import Tokenizer, models

    vocabulary = {text: number for number, text in enumerate(texts)}
    for left, right in merges:
        if not {left, right, left + right} <= set(vocabulary):
            raise ModelError("a merge joins or makes a word that is not in the vocabulary.")
    return Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), cache_capacity=0))


def bpe_segment(backend: "Tokenizer", sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the word numbers of each unit sequence, int64 [words]."""
    rows = backend.encode_batch_fast([to_text(ids) for ids in sequences], add_special_tokens=False)
    return [np.array(row.ids, np.int64) for row in rows]
