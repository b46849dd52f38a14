"""Examples to learn from: what is left out is counted, what is held out leaves something, what is typed has no states."""

import json

import numpy as np
import pytest

from echox.data.batching import BucketedBatches, packed, some_at_a_time
from echox.data.example import Example, QuestionData, padded_states, read_examples, typed_examples
from echox.data.manifest import write_jsonl, write_manifest
from echox.data.states import write_ragged
from echox.errors import ConfigError, InputError


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


@pytest.fixture
def corpus(tmp_path):
    base = {"audio": "a.wav", "samples": 1, "sample_rate": 16_000}
    records = [base | {"id": f"q{n}@voice", "text": f"who {n}"} for n in range(6)]
    write_manifest(tmp_path / "shard-00000.jsonl", records)
    rows = [np.ones((900 if n == 1 else 4 + n, 3), np.float16) for n in range(6)]
    write_ragged(tmp_path / "states" / "shard-00000.npz", [record["id"] for record in records], rows)
    answers = [{"id": f"q{n}", "question": f"who {n}", "answer": str(n)} for n in (0, 1, 2, 4, 5, 9)]
    write_jsonl(tmp_path / "answers.jsonl", answers)
    return tmp_path


def data(corpus, **values):
    settings = {"corpora": [corpus], "states": [corpus / "states"], "answers": corpus / "answers.jsonl", "held_out": 1}
    return QuestionData.parse(settings | values, "test")


def test_what_is_left_out_is_counted_and_said(corpus, caplog):
    found = read_examples(data(corpus), letters, 7, corpus / "answers.jsonl")
    assert [row.id for row in found.held_out] == ["q5@voice"] and found.width == 3
    assert [(row.id, row.states_TD is None) for row in found.train] == [
        ("q0@voice", False), ("q2@voice", False), ("q4@voice", False), ("q1", True), ("q9", True)
    ]  # fmt: skip
    assert found.train[1].answer == [ord("2"), 7] and found.train[1].transcript == letters("Who 2")
    assert "2 of 6 spoken questions are left out: 1 longer than 750 frames, 1 without an answer" in caplog.text
    states_BTD, lengths_B = padded_states([found.train[0], found.train[3]], 3)
    assert lengths_B.tolist() == [4, 2] and states_BTD[1].abs().sum() == 0


def test_holding_out_more_than_there_is_is_refused(corpus):
    with pytest.raises(ConfigError, match="data.held_out is 4 and there are 4 rows"):
        read_examples(data(corpus, held_out=4), letters, 7)
    with pytest.raises(InputError, match="none of the spoken questions"):
        read_examples(data(corpus, max_frames=1), letters, 7)
    with pytest.raises(ConfigError, match="0 folders for 1 corpora"):
        read_examples(data(corpus, states=[]), letters, 7)


def test_a_record_that_does_not_say_its_text_is_named(corpus):
    manifest = corpus / "shard-00000.jsonl"
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    del records[2]["text"]
    write_manifest(manifest, records)
    with pytest.raises(InputError, match="q2@voice"):
        read_examples(data(corpus), letters, 7)
    write_jsonl(corpus / "typed.jsonl", [{"id": "x", "question": "who"}])
    with pytest.raises(InputError, match="line 1 has no `id` or no `answer`"):
        typed_examples(corpus / "typed.jsonl", set(), letters, 7)


def test_runs_fit_and_hold_every_item_once():
    costs = [5, 1, 9, 3, 3, 12, 2]
    runs = some_at_a_time(range(len(costs)), costs, 10)
    assert sorted(item for run in runs for item in run) == list(range(7))
    assert all(len(run) == 1 or max(costs[i] for i in run) * len(run) <= 10 for run in runs)
    assert packed([2, 0, 1], [1, 1, 9], 10) == [[2], [0, 1]]  # a long one costs in its own run alone


def test_a_batch_is_a_function_of_its_number():
    def items(numbers, rng):
        return numbers, float(rng.random())

    one, two = (BucketedBatches([3, 1, 4, 1, 5, 9, 2, 6], 10, items, seed=3) for _ in range(2))
    forth = [one[number] for number in range(12)]
    assert [two[number] for number in reversed(range(12))] == forth[::-1]


def test_an_epoch_holds_every_item_once_in_batches_that_cost_no_more():
    costs = range(10, 37)
    batches, step, epochs = BucketedBatches(costs, 100, lambda items, rng: items, seed=3), 0, []
    while batches.epoch_of(step) < 5:
        number = batches.epoch_of(step)
        epochs += [[]] * (number == len(epochs))
        epochs[number] = [*epochs[number], batches[step]]
        step += 1
    for epoch in epochs:
        assert sorted(item for items in epoch for item in items) == list(range(27))
        assert all(len(items) == 1 or max(costs[i] for i in items) * len(items) <= 100 for items in epoch)
    assert epochs[0] != epochs[1] != epochs[2] and len(set(map(len, epochs))) > 1
    with pytest.raises(InputError, match="nothing to train on"):
        BucketedBatches([], 10, lambda items, rng: items)


def test_a_batch_counts_what_the_llm_reads_and_writes_of_a_question(corpus):
    rows = read_examples(data(corpus), letters, 7, corpus / "answers.jsonl").train
    assert [row.cost() for row in rows] == [4 + 2, 6 + 2, 8 + 2, 5 + 2, 5 + 2]
    talkative = Example("x", [1, 2], list(range(300)), rows[0].states_TD)
    assert talkative.cost(prompt=30) == 30 + 4 + 300
    costs = [row.cost(30) for row in (*rows, talkative)]
    runs = some_at_a_time(range(len(costs)), costs, 400)
    assert [5] in runs  # nobody else fits beside a long answer
