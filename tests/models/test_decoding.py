"""The decoding loop: rows alone, in company, joined and kept say the same; choosing follows the slow twins."""

import pytest
import torch
from transformers import NoRepeatNGramLogitsProcessor

from echox.errors import ConfigError, ModelError
from echox.models.decoding import GREEDY, Row, Sampling, choose, decode, prefill, repeats, step
from echox.models.llama import Llama, LlamaConfig

WIDTH, WORDS = 16, 30


class Tiny:
    """A decoder of thirty words."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        sizes = {"hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 4}
        self.body = Llama(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2), embedded=False).eval()
        self.table = torch.randn(WORDS, WIDTH)

    def embed_tokens(self, tokens_B):
        return self.table[tokens_B]

    def token_logits(self, hidden_BW):
        return hidden_BW @ self.table.t()


def rows() -> list[Row]:
    generator = torch.Generator().manual_seed(2)
    return [Row(torch.randn(n, WIDTH, generator=generator)) for n in (7, 3, 12)]


def said(model: Tiny, prompts: list[Row], limits: list[int], sampling: Sampling = GREEDY) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in prompts]
    for made in decode(model, prompts, {0}, lambda row, tokens: len(tokens) >= limits[row], sampling):
        assert len(made.rows) == len(made.tokens) == len(made.states_BW)
        for row, token in zip(made.rows, made.tokens, strict=True):
            found[row].append(token)
    return found


def slowly(model: Tiny, row: Row, limit: int) -> list[int]:
    """The same for one row, everything computed anew for every token."""
    inputs_NW, tokens = row.inputs_NW, []
    with torch.inference_mode():
        while len(tokens) < limit:
            token = int(model.token_logits(model.body(inputs_NW[None]).last_hidden_state[:, -1]).argmax())
            if token == 0:
                break
            tokens.append(token)
            inputs_NW = torch.cat([inputs_NW, model.table[token][None]])
    return tokens


def test_rows_in_company_say_what_they_say_alone_and_leave_when_they_are_done():
    model, prompts, limits = Tiny(), rows(), [9, 2, 14]
    together = said(model, prompts, limits)
    assert together == [slowly(model, row, limit) for row, limit in zip(prompts, limits, strict=True)]
    assert all(together)
    assert said(model, prompts, [0, 3, 0]) == [[], together[1] + slowly(model, prompts[1], 3)[2:], []]


def test_a_seed_gives_a_row_the_same_draws_in_any_company():
    model, prompts = Tiny(), rows()
    warm = Sampling(temperature=2.0, top_p=0.95, seed=5)
    together = said(model, prompts, [8, 8, 8], warm)
    assert together == [said(model, [row], [8], warm)[0] for row in prompts]
    assert together != said(model, prompts, [8, 8, 8], Sampling(temperature=2.0, top_p=0.95, seed=6))


@torch.inference_mode()
def test_rows_join_and_leave_between_steps():
    model, (first, second, third) = Tiny(), rows()
    expected = [slowly(model, row, 6) for row in (first, second, third)]
    slots, hidden_BW = prefill(model.body, [first])
    found: list[list[int]] = [[], [], []]
    present = [0]
    for turn in range(8):
        tokens_B = model.token_logits(hidden_BW).argmax(-1)
        for row, token in zip(present, tokens_B.tolist(), strict=True):
            found[row].append(token)
        slots, hidden_BW = step(model.body, slots, model.embed_tokens(tokens_B))
        if turn == 1:  # two join a row that has begun
            others, their_hidden_BW = prefill(model.body, [second, third])
            slots, hidden_BW = slots.join(others), torch.cat([hidden_BW, their_hidden_BW])
            present = [0, 1, 2]
        if turn == 4:  # the first leaves, the others change places
            slots, hidden_BW, present = slots.keep([2, 1]), hidden_BW[[2, 1]], [2, 1]
    assert [tokens[:5] for tokens in found] == [tokens[:5] for tokens in expected]


@torch.inference_mode()
def test_what_may_not_be_seen_changes_nothing():
    model, row = Tiny(), rows()[0]
    hidden = Row(row.inputs_NW, seen_N=torch.tensor([True, True, False, True, True, True, True]))
    moved = Row(row.inputs_NW.clone(), seen_N=hidden.seen_N)
    moved.inputs_NW[2] += 1.0
    assert said(model, [hidden, row], [6, 6])[0] == said(model, [moved], [6])[0]
    torch.testing.assert_close(prefill(model.body, [hidden])[1], prefill(model.body, [moved])[1])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_repeated_runs_are_those_of_transformers(size):
    generator = torch.Generator().manual_seed(size)
    for length in range(12):
        tokens = torch.randint(4, (1, length), generator=generator)
        logits = NoRepeatNGramLogitsProcessor(size)(tokens, torch.zeros(1, 6))
        assert repeats(tokens[0].tolist(), size) == set(torch.isinf(logits[0]).nonzero()[:, 0].tolist())


def test_numbers_that_overflow_and_settings_that_cannot_be():
    with pytest.raises(ModelError, match="overflow"):
        choose(torch.full((1, 4), torch.nan), [[]], GREEDY, [None])
    for wrong in ({"temperature": -1}, {"top_p": 0}, {"no_repeat_ngram": -1}):
        with pytest.raises(ConfigError):
            Sampling(**wrong)
