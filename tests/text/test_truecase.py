"""Capitals, first sentences, targets and batches: the small steps between text and training."""

import numpy as np
import pytest

from echox.data.batching import BucketedBatches
from echox.errors import InputError
from echox.generate.text_stream import TextStream
from echox.models.llm import load_tokenizer
from echox.prepare.answers import first_sentence, target
from echox.text.truecase import Truecaser
from echox.train.toy import write_llm


def test_truecaser():
    fix = Truecaser(["I met Tom in Paris.", "Was Tom there?", "He saw the may flowers.", "Go to Paris now."])
    assert fix("where is tom in paris?") == "Where is Tom in Paris?"
    assert fix("Where is tom?") == "Where is tom?"  # typed with capitals: left alone
    assert fix("am i late?") == "Am I late?"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("It is Paris. It lies on the Seine.", "It is Paris."),
        ("Dr. Smith won. Yes.", "Dr. Smith won."),
        ("It cost 3.5 dollars! Wow.", "It cost 3.5 dollars!"),
        ("It never ends", ""),
    ],
)
def test_first_sentence(text, sentence):
    assert first_sentence(text) == sentence


def test_targets_keep_what_the_model_knows():
    assert target(["Paris"], "The capital is Paris. It is big.") == "The capital is Paris."
    assert target(["Paris"], "The capital is Rome.") == "The answer is Paris."
    assert target(["Paris"], None) == "The answer is Paris."
    assert target([], "I am well.") == "I am well."
    assert target([], "no end") is None
    assert target(["Nice"], "That is niceness.") == "The answer is Nice."


def test_batches_cover_every_item_once_an_epoch_and_can_start_anywhere():
    costs = np.random.default_rng(0).integers(5, 60, 200)
    batches = BucketedBatches(costs.tolist(), 200, lambda items, rng: (items, rng.integers(1 << 30)), seed=4)
    first = len(batches.epoch(0))
    seen = [batches[step] for step in range(first + 5)]
    assert sorted(i for items, _ in seen[:first] for i in items) == list(range(200))
    assert all(max(costs[items]) * len(items) <= 200 for items, _ in seen)
    again = BucketedBatches(costs.tolist(), 200, lambda items, rng: (items, rng.integers(1 << 30)), seed=4)
    assert again[first + 3] == seen[first + 3] and again[2] == seen[2]
    with pytest.raises(InputError, match="nothing to train on"):
        BucketedBatches([], 10, lambda items, rng: items)


def test_text_stream_waits_for_whole_characters(tmp_path):
    tokenizer = load_tokenizer(write_llm(tmp_path))
    text = "Zoë said “naïve” – 你好 🎈!"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in ids]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) + stream.flush() == text
    cut = TextStream(tokenizer)
    shown = [cut.push(token) for token in ids[:-3]]
    assert text.startswith("".join(shown))
