"""The decoding loop: rows alone, in company, joined and kept say the same; choosing follows the slow twins."""

import pytest
import torch
from transformers import DynamicCache, NoRepeatNGramLogitsProcessor

from echox.errors import ConfigError, ModelError
from echox.models.decoding import OVERFLOW, Batch, Line, alone, choose, decode, gathered
from echox.models.kept import EACH, LEAST, Begun, Kept, Opening, Read
from echox.models.llama import Llama, LlamaConfig
from echox.models.sampling import GREEDY, Sampling, repeats
from echox.models.slots import ROOM, Row, Slots, _Layer, prefill, resume, step

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
        list(alone(Tiny(), Line(Row(torch.full((1, WIDTH), torch.nan)), {0}, bool)))
    assert choose(torch.full((1, 4), torch.nan), [line(0, 1)]) == [OVERFLOW]
    for wrong in ({"temperature": -1}, {"top_p": 0}, {"no_repeat_ngram": -1}):
        with pytest.raises(ConfigError):
            Sampling(**wrong)


def line(number: int, limit: int) -> Line:
    return Line(rows()[number], {0}, lambda said: len(said) >= limit, number=number)


@pytest.mark.parametrize("order", range(4))
def test_lines_that_come_and_go_at_any_time_say_what_they_say_alone(order):
    """Every step some join, one is given up, the rest go on to their ends."""
    model, generator = Tiny(), torch.Generator().manual_seed(order)
    batch, coming, given_up = Batch(model), [line(number, 3 + 5 * number) for number in (0, 1, 2, 1, 0)], line(2, 99)
    lines, first = [*coming, given_up], int(torch.randint(4, (), generator=generator))
    batch.join(given_up)
    for turn in range(60):
        for _ in range(int(torch.randint(3, (), generator=generator))):
            if coming:
                batch.join(coming.pop(int(torch.randint(len(coming), (), generator=generator))))
        if turn == first:
            batch.leave(given_up)
        batch.step()
        assert batch.slots is None or len(batch.slots) == len(batch.lines)
    assert not coming and not len(batch) and batch.slots is None and all(one.ended and not one.error for one in lines)
    for one in lines:
        limit = 3 + 5 * one.number if one is not given_up else len(one.said)
        assert one.said == slowly(model, one.row, limit)


def test_places_that_only_a_row_that_left_looked_at_are_given_up():
    long, short = Line(Row(torch.cat([rows()[2].inputs_NW] * 3)), (), lambda said: False), line(1, 5)
    batch = Batch(Tiny())
    for one in (long, short):
        batch.join(one)
    batch.step()
    assert batch.slots.seen_BN.shape == (2, 36) and batch.lines == [long, short]
    batch.leave(long)
    batch.step()
    assert batch.lines == [short] and batch.slots.plain and batch.slots.cache.layers[0].keys.shape[2] == 4
    batch.leave(short)
    assert batch.slots is None and not batch.lines


def test_a_line_that_fails_ends_alone():
    """Inputs that are no numbers, inputs of a wrong width, and then a body that fails for all."""
    model, (good, late) = Tiny(), (line(0, 6), line(2, 6))
    wrong = Line(Row(torch.full((4, WIDTH), torch.nan)), {0}, bool), Line(Row(torch.zeros(4, WIDTH + 1)), {0}, bool)
    batch = Batch(model)
    for one in (good, *wrong):
        batch.join(one)
    batch.step()
    batch.join(late)
    while len(batch):
        batch.step()
    assert good.said == slowly(model, good.row, 6) and late.said == slowly(model, late.row, 6)
    assert isinstance(wrong[0].error, ModelError) and isinstance(wrong[1].error, RuntimeError)
    with pytest.raises(ModelError, match="overflow"):
        list(alone(model, Line(wrong[0].row, {0}, bool)))
    with pytest.raises(ModelError, match="overflow"):
        list(decode(model, [good.row, wrong[0].row], {0}, lambda row, said: len(said) > 3))
    again = line(0, 6)
    batch.join(again)
    batch.step()
    model.embed_tokens = None
    batch.step()
    assert isinstance(again.error, TypeError) and not len(batch) and batch.slots is None


@torch.inference_mode()
def test_a_row_whose_beginning_was_read_goes_on_as_if_it_were_read_whole():
    model, row = Tiny(), rows()[2]
    past = prefill(model.body, [Row(row.inputs_NW[:9])])[0]
    for count in (9, 5):
        slots, hidden_BW = resume(model.body, past.first(count), row)
        whole, expected_BW = prefill(model.body, [row])
        torch.testing.assert_close(hidden_BW, expected_BW)
        assert slots.next_B.tolist() == whole.next_B.tolist() == [12] and slots.seen_BN.equal(whole.seen_BN)
    assert past.cache.layers[0].keys.shape[2] == 9  # what was lent is as it was


def test_a_conversation_is_read_from_where_it_was_left():
    """Turn after turn in a batch with others; the body is given what is new, and says what it says of the whole."""
    model, kept = Tiny(), Kept(2)
    batch, fresh, read = Batch(model, kept), torch.randn(7, 40, WIDTH), []
    forward = model.body.forward

    def counted(inputs_embeds, **given):
        read.append(inputs_embeds.shape[1])
        return forward(inputs_embeds, **given)

    model.body.forward = counted
    beside = Line(rows()[1], (), lambda said: False)
    batch.join(beside)
    inputs_NW = fresh[0]
    for turn in range(1, 4):
        talk = Line(Row(inputs_NW), {0}, lambda said: len(said) >= 4, recurs=True)
        batch.join(talk)
        read.clear()
        while not talk.ended:
            batch.step()
        assert max(read) == (40 if turn == 1 else 41), turn  # the last word said is read with what follows
        assert talk.said == slowly(model, talk.row, 4) and len(talk.said) == 4
        batch.step()
        inputs_NW = torch.cat([inputs_NW, model.table[talk.said], fresh[turn]])
        assert len(kept.rows) == 1  # a turn takes the place of the one before it
    for other in fresh[4:]:
        batch.join(Line(Row(other), {0}, lambda said: len(said) >= 2, recurs=True))
    while len(batch) > 1:
        batch.step()
    batch.step()
    assert len(kept.rows) == 2 and kept.find(Row(inputs_NW)) is None and kept.find(Row(fresh[6])) is not None
    assert kept.find(Row(fresh[6], seen_N=torch.ones(40, dtype=torch.bool))) is None
    assert kept.find(Row(fresh[6] + 1e-6)) is None and len(beside.said) > 8


def test_what_all_rows_begin_with_is_read_once():
    """Each says what it says read whole; one that begins otherwise, or is no longer, is read whole."""
    model, fresh, read = Tiny(), torch.randn(3, 20, WIDTH, generator=torch.Generator().manual_seed(5)), []
    begin_NW, opening = fresh[0, :LEAST], Opening(model.body, fresh[0, :LEAST])
    forward = model.body.forward

    def counted(inputs_embeds, **given):
        read.append(inputs_embeds.shape[1])
        return forward(inputs_embeds, **given)

    model.body.forward = counted
    for inputs_NW, wanted in (
        (fresh[2], [20]),
        (torch.cat([begin_NW, fresh[1]]), [LEAST, 20]),
        (torch.cat([begin_NW, fresh[2]]), [20]),
        (fresh[1], [20]),
        (begin_NW, [LEAST]),
    ):
        line = Line(Row(inputs_NW), (), lambda said: len(said) >= 3, opening=opening)
        read.clear()
        list(alone(model, line))
        assert [count for count in read if count > 1] == wanted
        assert line.said == slowly(model, line.row, 3)
    assert Opening(model.body, fresh[0, : LEAST - 1]).find(Row(fresh[0])) is None
    assert opening.find(Row(fresh[0], seen_N=torch.ones(20, dtype=torch.bool))) is None


def test_an_answer_begun_in_silence_is_gone_on_with():
    """Tokens and states are those of the row alone; another row, other stops or another way to choose find nothing."""
    model, row = Tiny(), Row(torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(3)))
    batch = Batch(model, Kept(1))

    def line(limit, prompt=row, stops=(), **options):
        return Line(prompt, stops, lambda said: len(said) >= limit, recurs=True, **options)

    def run(one):
        batch.join(one)
        while len(batch):
            yield from batch.step().states_BW

    draft, whole = line(3, draft=True), line(7)
    list(run(draft))
    begun = batch.begun(whole)
    assert [token for token, _ in begun] == draft.said == whole.said and len(draft.said) == 3
    assert all(state_W.untyped_storage().nbytes() == state_W.nbytes for _, state_W in begun)
    states = [*(state_W for _, state_W in begun), *run(whole)]
    expected = list(alone(model, line(7)))
    assert whole.said == [token for token, _ in expected]
    torch.testing.assert_close(torch.stack(states), torch.stack([state_W for _, state_W in expected]))
    short, longer = line(2), line(5, draft=True)
    assert len(batch.begun(short)) == 2 and list(run(short)) == []  # it ends where it would have
    assert len(batch.begun(longer)) == 3 and len(list(run(longer))) == 2  # a draft goes on from a draft
    assert len(batch.begun(line(7))) == 5 and len(batch.kept.drafts) == 1
    others = [line(7, Row(row.inputs_NW[:-1])), line(7, stops={0}), line(7, sampling=Sampling(no_repeat_ngram=2))]
    others += [line(7, sampling=Sampling(temperature=1.0)), Line(row, (), lambda said: False)]
    others += [line(7, Row(row.inputs_NW, seen_N=torch.ones(20, dtype=torch.bool)))]
    assert not any(batch.begun(other) for other in others) and not any(other.said for other in others)


@torch.inference_mode()
def test_the_row_that_was_used_last_is_kept_and_of_few_inputs_nothing_is_found():
    model, kept = Tiny(), Kept(2)
    first, second, third = (torch.randn(LEAST + 1, WIDTH) for _ in range(3))
    for inputs_NW in (first, second):
        kept.put(Read(inputs_NW, prefill(model.body, [Row(inputs_NW)])[0]))
    assert kept.find(Row(first[:LEAST])) is None  # the last is read anew
    assert kept.find(Row(first)).seen_BN.shape == (1, LEAST)
    kept.put(Read(third, prefill(model.body, [Row(third)])[0]))
    assert [one.inputs_NW is inputs_NW for one, inputs_NW in zip(kept.rows, (first, third), strict=True)] == [True] * 2


def test_what_is_kept_does_not_grow_with_the_conversation():
    def read(length, draft=False):
        inputs_NW = torch.randn(length, 4)
        slots = Slots(DynamicCache(), torch.ones(1, length, dtype=torch.bool), torch.tensor([length]), True)
        return Read(inputs_NW, slots, Begun(length, "way", []) if draft else None)

    kept = Kept(3)
    rows = [read(EACH) for _ in range(3)]
    for row in rows:
        kept.put(row)
    assert kept.rows == rows  # as many as may be
    drafts = [read(EACH // 2, draft=True) for _ in range(3)]
    for draft in drafts:
        kept.put(draft)
    assert kept.drafts == drafts[1:] and kept.rows == rows[1:] and kept.positions <= 3 * EACH
    long = read(9 * EACH)
    kept.put(long)
    assert kept.rows == [long] and kept.drafts == drafts[2:]  # the newest of both, however long


@torch.inference_mode()
def test_what_is_written_behind_some_slots_changes_no_others_however_many_steps_are_taken():
    model, row = Tiny(), rows()[2]
    kept = prefill(model.body, [row])[0].keep([0])
    before = [(keys.clone(), values.clone()) for keys, values in kept.layers]
    inputs_NW = torch.randn(3 * ROOM, WIDTH)
    for start in (kept.first(12), kept.first(5), kept.keep([0, 0]), kept.join(kept.first(7))):
        slots, count = start, start.seen_BN.shape[1]
        for input_W in inputs_NW:
            slots, hidden_BW = step(model.body, slots, input_W.expand(len(slots), -1))
        whole = torch.cat([row.inputs_NW[:count], inputs_NW])
        torch.testing.assert_close(hidden_BW[0], prefill(model.body, [Row(whole)])[1][0], rtol=1e-4, atol=1e-4)
    for mine, now in zip(before, kept.layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, now, strict=True))


@torch.inference_mode()
def test_what_is_kept_takes_no_more_than_its_places():
    model, row = Tiny(), rows()[2]
    slots, _ = step(model.body, prefill(model.body, [row])[0], torch.randn(1, WIDTH))
    for keys, values in slots.keep([0]).layers:
        assert all(x.untyped_storage().nbytes() == x.numel() * x.element_size() for x in (keys, values))


def test_rows_that_transformers_reorders_are_kept_so():
    layer, keys_BHNE = _Layer(), torch.arange(12.0).view(2, 1, 3, 2)
    layer.update(keys_BHNE, -keys_BHNE)
    layer.reorder_cache(torch.tensor([1, 0]))
    found, values = layer.update(keys_BHNE, -keys_BHNE)
    assert torch.equal(found, torch.cat([keys_BHNE.flip(0), keys_BHNE], 2)) and torch.equal(values, -found)


def test_a_line_may_end_where_it_is_likelier_than_not_that_it_has_ended():
    """A stop of 0.3 at every step is never the likeliest token, and yet only one row in three goes on after two of them."""
    logits_BV = torch.tensor([[0.3, 0.4, 0.3], [0.3, 0.3, 0.4], [float("nan")] * 3]).log()
    lines = [Line(Row(torch.zeros(1, WIDTH)), {0}, lambda said: False, ends_by_median=by) for by in (True, False, True)]
    chosen = [choose(logits_BV.clone(), lines) for _ in range(3)]
    assert chosen == [[1, 2, OVERFLOW], [0, 2, OVERFLOW], [0, 2, OVERFLOW]]
    assert lines[0].going == pytest.approx(0.7**3) and lines[1].going == 1.0
    sure = torch.tensor([[0.6, 0.4, 0.0]]).log()
    assert choose(sure, [Line(Row(torch.zeros(1, WIDTH)), {0}, lambda said: False, ends_by_median=True)]) == [0]
    model, prompts = Tiny(), rows()
    model.table *= 0.01  # all words are about as likely: of thirty, (29 / 30)^20 is still above a half
    lengths = []
    for by_median in (False, True):
        steps = decode(model, prompts, {0}, lambda row, said: len(said) >= 40, ends_by_median=by_median)
        lengths.append([len(one.ids) for one in gathered(steps, 3, states=False)])
    assert lengths[0] == [40] * 3 and all(20 <= length <= 21 for length in lengths[1])
