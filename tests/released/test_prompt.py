"""Prompts, token ids by name, unit text and the segment rule."""

import random
import re

import pytest
import torch

from echox.errors import InputError, ModelError
from echox.models.decoding import Line, choose
from echox.models.sampling import Sampling, sample
from echox.models.slots import Row
from echox.released.config import ReleasedConfig
from echox.released.open import load_tokenizer
from echox.text.echox_dialect import SEGMENT_PREFIX_ID, SYSTEM, EchoXDialect, EchoXTokens
from echox.text.prompt import Prompt, Turn
from echox.text.segmenter import TriggerSegmenter, cut_text
from echox.units.spelled import parse_units
from tests.released import tiny
from tests.released.reference import cut_segments, nucleus, parse


def ids_of(tokens, prompt: Prompt) -> list[int]:
    """The prompt's ids with a placeholder for every sound."""
    ids = list(prompt.runs[0])
    for run in prompt.runs[1:]:
        ids += [tokens.audio_patch, *run]
    return ids


def build_prompt(tokens, turns, limit=None) -> Prompt:
    return EchoXDialect(tokens, limit=limit).prompt(turns)


def cut(scores: list[float]) -> list[tuple[int, int]]:
    return cut_text([""] * len(scores), TriggerSegmenter(), scores)


def names(tokens, ids):
    return tokens.tokenizer.convert_ids_to_tokens(ids)


def test_spoken_prompt_token_by_token(tokens):
    text = tokens.tokenizer(SYSTEM, add_special_tokens=False).input_ids
    prompt = build_prompt(tokens, [Turn("user", "", ("q.wav",))])
    expected = [
        "<|begin_of_text|>", "<|start_header_id|>", "<|begin_of_text|>", "system", "<|end_header_id|>",
        "<|begin_of_text|>", "Ċ", "<|begin_of_text|>", *names(tokens, text), "<|eot_id|>",
        "<|start_header_id|>", "<|begin_of_text|>", "user", "<|end_header_id|>", "<|begin_of_text|>", "Ċ",
        "<audio_patch>", "<|begin_of_text|>", "<|eot_id|>",
        "<|start_header_id|>", "<|begin_of_text|>", "assistant", "<|end_header_id|>", "<|begin_of_text|>", "Ċ",
    ]  # fmt: skip
    assert names(tokens, ids_of(tokens, prompt)) == expected and prompt.sounds == ("q.wav",)


def test_prompt_is_what_the_released_tokenizer_calls_give(tokens):
    """The released code concatenates tokenizer(x).input_ids, each with its own BOS (spec section 9)."""
    t = tokens.tokenizer
    ids = t.get_vocab()
    start, end, eot = ids["<|start_header_id|>"], ids["<|end_header_id|>"], ids["<|eot_id|>"]

    def call(text):
        return t(text).input_ids

    head = {role: [start, *call(role), end] for role in ("system", "user", "assistant")}
    turns = [
        Turn("user", "hi there", ("a",)),
        Turn("assistant", "hello."),
        Turn("user", "and?"),
        Turn("assistant", "no"),
        Turn("user", "", ("b",)),
    ]
    expected = [ids["<|begin_of_text|>"], *head["system"], *call("\n"), *call(SYSTEM), eot]
    expected += [*head["user"], *call("\n<audio_patch>"), *call("hi there"), eot]
    expected += [*head["assistant"], *call("\n"), *call("hello."), eot]
    expected += [*head["user"], *call("and?"), eot, *head["assistant"], *call("\n"), *call("no"), eot]
    expected += [*head["user"], *call("\n<audio_patch>"), *call(""), eot, *head["assistant"], *call("\n")]
    prompt = build_prompt(tokens, turns)
    assert ids_of(tokens, prompt) == expected and prompt.sounds == ("a", "b") and prompt.unseen == {tokens.eot}
    assert ids_of(tokens, build_prompt(tokens, turns, limit=len(expected))) == expected
    with pytest.raises(InputError, match="loses a sound"):
        build_prompt(tokens, turns, limit=len(expected) - 15)
    two = build_prompt(tokens, [Turn("user", "", ("a", "b"))])
    assert two.sounds == ("a", "b") and len(two.runs) == 3
    assert build_prompt(tokens, [Turn("user", "typed")]).unseen == frozenset()


def test_conversations_that_cannot_be_asked(tokens):
    for turns in (
        [],
        [Turn("assistant", "x")],
        [Turn("robot", "x"), Turn("user", "y")],
        [Turn("assistant", "", ("a",)), Turn("user")],
    ):
        with pytest.raises(InputError):
            build_prompt(tokens, turns)
    for name in ("<|eot_id|>", "<audio_patch>", "<|unit_3|>"):  # the LLM has no row for a unit
        with pytest.raises(InputError, match=re.escape(f"contains {name}")):
            build_prompt(tokens, [Turn("user", f"ignore{name}this")])


def test_ids_come_by_name(tokens, tmp_path):
    vocabulary = tokens.tokenizer.get_vocab()
    assert tokens.audio_patch == vocabulary["<audio_patch>"] and tokens.period == vocabulary["."]
    assert tokens.stops == tuple(vocabulary[n] for n in ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"))
    before, after = tokens.around_states
    speaker = ["<|start_header_id|>", "<|begin_of_text|>", "speaker", "<|end_header_id|>", "<|begin_of_text|>", "Ċ"]
    assert names(tokens, before[:-1]) == speaker and before[-1] == 77
    assert names(tokens, after) == ["<|eot_id|>", *speaker]
    assert (
        ReleasedConfig.from_dict(tiny.settings(segment_prefix_id=None)).segment_prefix_id == SEGMENT_PREFIX_ID == 12800
    )
    bare = tiny.make_tokenizer()
    bare.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace("<audio_patch>", "<other>"))
    with pytest.raises(ModelError, match="no token <audio_patch>"):
        EchoXTokens.of(load_tokenizer(tmp_path))
    file.write_text("{")
    with pytest.raises(ModelError, match="not a tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("<|begin_of_text|><|unit_▁5|><|unit_▁12|><|eot_id|>", [5, 12]),
        ("<|unit_▁83|><|unit_7▁81|><|unit_4|>", [837, 814]),
        ("<|unit_837_81|><|unit_194|>", [837, 81, 194]),
        ("<|unit_▁998|><|unit_▁1003|>", [998]),
        ("words 3 <|unit_7|> and 40", [3, 7, 40]),
        ("words 3 <|unit_▁7|> and 40", [7]),
        ("", []),
    ],
)
def test_unit_text(text, units):
    assert parse_units(text) == parse(text) == units


def test_segmenter_equals_the_rule_read_off_the_specification():
    for seed in range(300):
        dice = random.Random(seed)
        scores = [round(dice.uniform(-0.2, 0.3), dice.choice([1, 2, 6])) for _ in range(dice.randint(0, 160))]
        assert cut(scores) == cut_segments(scores)
    assert cut([0.0] * 20 + [0.5] + [0.0] * 5) == [(0, 21), (21, 26)]  # earliest: after the 26th token
    assert cut([0.0] * 20 + [0.1] + [0.0] * 5) == [(0, 26)]  # the threshold is exclusive
    assert cut([0.0] * 100) == [(0, 51), (51, 100)]
    segmenter = TriggerSegmenter(window=1, shortest=2, threshold=0.0)
    assert [segmenter.push("", s) for s in (0.0, 0.1, 0.9, 0.2)] == [None, None, None, 3]


def test_sampling_follows_the_released_nucleus():
    logits = torch.randn(1500, generator=torch.Generator().manual_seed(0)) * 2
    for temperature, top_p in ((0.2, 0.9), (1.0, 0.5), (2.0, 0.99)):
        wanted = nucleus(logits, temperature, top_p)
        sampling = Sampling(temperature, top_p)
        generator = torch.Generator().manual_seed(1)
        drawn = torch.bincount(torch.tensor([sample(logits, sampling, generator) for _ in range(400)]), minlength=1500)
        assert not drawn[wanted == 0].any()
        best = wanted.topk(5).indices
        torch.testing.assert_close(drawn[best] / 400, wanted[best], atol=0.1, rtol=0.0)
    assert choose(logits[None], [Line(Row(torch.zeros(1, 1)), (), bool)]) == [int(logits.argmax())]
