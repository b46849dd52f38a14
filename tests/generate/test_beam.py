"""Beam search and cached decoding against their slow twins."""

import pytest
import torch

from echox.generate.beam import Search, beam_search, n_best
from echox.models.transformer import Block, DecoderState, TransformerDecoder
from tests.generate.slow_beam import beam_search_reference

V, BOS, EOS, PAD = 9, 1, 2, 0


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(3)
    found = TransformerDecoder(V, 2, Block(16, 4, 32), PAD).eval()
    with torch.no_grad():
        found.embedding.weight.mul_(6)  # decided, not uniform
    return found


@pytest.fixture(scope="module")
def memory():
    torch.manual_seed(5)
    return torch.randn(3, 7, 16), torch.tensor([[True] * n + [False] * (7 - n) for n in (7, 4, 2)])


def search(decoder, memory, **options):
    state = decoder.start(*memory)
    settings = Search(BOS, EOS, never=(PAD,), **options)
    return beam_search(lambda tokens, parents: decoder.step(state, tokens, parents), len(memory[0]), settings)


def slow(decoder, memory, row, **options):
    with torch.inference_mode():
        return beam_search_reference(
            lambda said: decoder(torch.tensor([said]), memory[0][row : row + 1], memory[1][row : row + 1])[0, -1],
            Search(BOS, EOS, never=(PAD,), **options),
        )


@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("ngram", [0, 2])
def test_the_search_equals_its_slow_twin(decoder, memory, beams, penalty, ngram):
    options = {"beams": beams, "length_penalty": penalty, "max_tokens": 12, "no_repeat_ngram": ngram}
    for row, found in enumerate(search(decoder, memory, **options)):
        wanted = slow(decoder, memory, row, **options)
        assert found.tokens == wanted.tokens and found.ended == wanted.ended
        assert found.score == pytest.approx(wanted.score, abs=1e-4)


def test_all_hypotheses_come_best_first():
    table_VV = torch.randn(
        V, V, generator=torch.Generator().manual_seed(0)
    )  # what follows depends on the last token alone
    table_VV[:, EOS] += 1
    settings = Search(BOS, EOS, beams=5, never=(PAD,), max_tokens=12)
    [best] = beam_search(lambda tokens, _: table_VV[tokens], 1, settings)
    for found in n_best(lambda tokens, _: table_VV[tokens], 1, settings):
        assert found[0] == best and len(found) >= 5
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        assert len({tuple(one.tokens) for one in found}) == len(found)


def test_what_falls_below_the_floor_is_given_up(decoder, memory):
    """What is found is what a search without a floor finds above it, in no more rows and steps."""

    def found(floor):
        rows, state = [], decoder.start(*memory)

        def step(tokens, parents):
            rows.append(tokens.shape[1])
            return decoder.step(state, tokens, parents)

        return n_best(step, 3, Search(BOS, EOS, 5, 0.0, 12, never=(PAD,), floor=floor)), rows

    everything, rows = found(-torch.inf)
    scores = sorted(one.score for row in everything for one in row)
    floor = scores[-3] - 0.1
    above, fewer = found(floor)
    for row, wanted in zip(above, everything, strict=True):
        wanted = [one for one in wanted if one.score >= floor]
        assert [one.tokens for one in row[: len(wanted)]] == [one.tokens for one in wanted]
        assert all(one.score >= floor for one in row)
    assert sum(fewer) < sum(rows) and found(1.0)[0] == [[], [], []]


def test_one_beam_is_greedy(decoder, memory):
    for row, found in enumerate(search(decoder, memory, beams=1, max_tokens=12)):
        said = [BOS]
        while said[-1] != EOS and len(said) <= 12:
            logits = decoder(torch.tensor([said]), memory[0][row : row + 1], memory[1][row : row + 1])[0, -1]
            logits[[BOS, PAD]] = -torch.inf
            said.append(int(logits.argmax()))
        assert found.tokens == [token for token in said[1:] if token != EOS]


def test_two_beams_see_past_a_tempting_first_word():
    """After 3 (0.6) comes anything at 0.25; after 4 (0.4) surely the end: greedy decoding falls for 3."""
    after = {BOS: {3: 0.6, 4: 0.4}, 3: {3: 0.25, 4: 0.25, 5: 0.25, EOS: 0.25}, 4: {EOS: 1.0}, 5: {EOS: 1.0}}

    def step(tokens, parents):
        found = torch.full((*tokens.shape, 6), -30.0)
        for k, token in enumerate(tokens[0].tolist()):
            for following, p in after.get(token, {EOS: 1.0}).items():
                found[0, k, following] = torch.tensor(p).log()
        return found

    one, two = (beam_search(step, 1, Search(BOS, EOS, beams, 0.0, 6))[0].tokens for beams in (1, 2))
    assert one[0] == 3 and two == [4]


def test_no_run_is_said_twice(decoder, memory):
    for found in search(decoder, memory, beams=3, max_tokens=20, no_repeat_ngram=2):
        runs = list(zip(found.tokens, found.tokens[1:], strict=False))
        assert len(runs) == len(set(runs))


def test_limits_are_each_sentences_own(decoder, memory):
    state = decoder.start(*memory)
    found = beam_search(lambda t, p: decoder.step(state, t, p), 3, Search(BOS, EOS, 2, max_tokens=9), [3, 0, 9])
    assert len(found[0].tokens) <= 3 and found[1].tokens == [] and not found[1].ended


def test_steps_equal_the_whole_sequence(decoder, memory):
    tokens = torch.tensor([[BOS, 4, 5, 6, 3]] * 3)
    whole = decoder(tokens, *memory)
    state: DecoderState = decoder.start(*memory)
    for place in range(tokens.shape[1]):
        logits = decoder.step(state, tokens[:, place : place + 1], torch.zeros(3, 1, dtype=torch.long))
        assert torch.allclose(logits[:, 0], whole[:, place], atol=1e-4)


def test_padding_of_the_memory_changes_nothing(decoder, memory):
    alone = decoder(torch.tensor([[BOS, 4]]), memory[0][1:2, :4], memory[1][1:2, :4])
    assert torch.allclose(alone, decoder(torch.tensor([[BOS, 4]] * 3), *memory)[1:2], atol=1e-5)
