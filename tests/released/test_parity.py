"""Released checkpoints on our own classes against the slow reference written from the specification, in float32."""

import pytest
import torch

from echox.generate.parts import with_config
from echox.models.decoding import alone, at_most
from echox.models.llm import CPU
from echox.models.ragged import unpad
from echox.models.s2t import S2TInputs
from echox.models.sampling import GREEDY
from echox.models.slots import Row
from echox.released.config import ReleasedConfig
from echox.released.open import open_parts
from echox.text.prompt import Prompt
from echox.text.segmenter import cut_text
from echox.units.spelled import parse_units
from tests.released import tiny
from tests.released.reference import ReferenceEchoX, cut_segments, parse, run_llama
from tests.released.test_fairseq import write_vocoder

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def prompt_ids(tokens, audios: int) -> list[int]:
    return [tokens.bos, 40, 41, tokens.eot, *[42, tokens.audio_patch] * audios, 43, 44, 45, tokens.eot, 46, 47]


def prompt_of(tokens, audios: int, end: int | None = None) -> Prompt:
    runs = [[]]
    for token in prompt_ids(tokens, audios)[:end]:
        runs.append([]) if token == tokens.audio_patch else runs[-1].append(token)
    unseen = frozenset({tokens.eot}) if audios else frozenset()
    return Prompt(tuple(map(tuple, runs)), (None,) * audios, unseen)


def heard(parts, frames_BTD):
    found = parts.s2t.hear(frames_BTD, torch.full((len(frames_BTD),), frames_BTD.shape[1]))
    return unpad(found.kept_BNH, found.mask_BN), found.classes


def greedy(parts, tokens, rows: list[Row], limit=60):
    made = parts.s2t.generate(rows, {tokens.eot}, at_most(limit), GREEDY)
    return [one.ids for one in made], [torch.stack(one.states) for one in made]


def test_speech_embeddings(parts, reference, frames):
    batch = frames(3)
    for row, embeddings, classes in zip(batch, *heard(parts, batch), strict=True):
        expected, ctc = reference.speech(row)
        assert 5 < len(expected) < len(ctc)  # runs were merged, but not all
        torch.testing.assert_close(embeddings, expected, **CLOSE)
        assert classes == ctc[torch.cat([torch.ones(1).bool(), ctc[1:] != ctc[:-1]])].tolist()


def test_prompt_tokens_states_scores(parts, reference, tokens, frames):
    audios = [reference.speech(row)[0] for row in frames(2)]
    row = parts.s2t.row(prompt_of(tokens, 2), audios)
    expected, mask = reference.embed(prompt_ids(tokens, 2), audios, tokens.audio_patch, tokens.eot)
    torch.testing.assert_close(row.inputs_NW, expected, **CLOSE)
    assert torch.equal(row.seen_N, mask) and not mask.all()

    states = parts.s2t.body(inputs_embeds=row.inputs_NW[None], attention_mask=row.seen_N[None].long())
    torch.testing.assert_close(states.last_hidden_state[0], run_llama(reference.llama, expected, mask), **CLOSE)
    ids_a, states_a = greedy(parts, tokens, [row])
    ids_b, states_b, scores_b = reference.answer(expected, mask, tokens.eot, tokens.period, 60)
    assert ids_a[0] == ids_b
    torch.testing.assert_close(states_a[0], states_b, **CLOSE)
    scores_a = [parts.score(state) for state in states_a[0]]
    torch.testing.assert_close(torch.tensor(scores_a), torch.tensor(scores_b), **CLOSE)
    assert cut_text([""] * len(scores_a), parts.segmenter, scores_a) == cut_segments(scores_b)


def test_text_only_prompts_mask_nothing(parts, reference, tokens):
    row = parts.s2t.row(prompt_of(tokens, 0), [])
    assert row.seen_N is None
    embeds, mask = reference.embed(prompt_ids(tokens, 0), [], tokens.audio_patch, tokens.eot)
    expected = reference.answer(embeds, mask, tokens.eot, tokens.period, 20)[0]
    assert greedy(parts, tokens, [row], 20)[0][0] == expected


def test_a_batch_answers_as_each_prompt_alone(parts, tokens, frames):
    audio, _ = heard(parts, frames(3))
    rows = [
        parts.s2t.row(prompt_of(tokens, 2), audio[:2]),
        parts.s2t.row(prompt_of(tokens, 0, 5), []),
        parts.s2t.row(prompt_of(tokens, 1), audio[2:]),
    ]
    together = greedy(parts, tokens, rows, 25)
    for number, row in enumerate(rows):
        alone = greedy(parts, tokens, [row], 25)
        assert together[0][number] == alone[0][0]
        torch.testing.assert_close(together[1][number], alone[1][0], **CLOSE)


def test_given_answers_have_the_states_that_they_are_said_with(parts, tokens, frames):
    """What training reads of a prompt is what answering reads: end-of-turn tokens are not attended to in either."""
    batch = frames(2)
    prompt = prompt_of(tokens, 1)
    rows = [parts.s2t.row(prompt, [positions]) for positions in heard(parts, batch)[0]]
    answers, states = greedy(parts, tokens, rows, 12)
    for found, said in zip(parts.s2t.states_under(rows, answers), states, strict=True):
        torch.testing.assert_close(found, said, **CLOSE)
    lengths = torch.full((2,), batch.shape[1])
    taught = parts.s2t(S2TInputs(batch, lengths, *prompt.runs, answers, unseen=prompt.unseen))
    for found, said in zip(unpad(taught.hidden_BLH, taught.mask_BL), states, strict=True):
        torch.testing.assert_close(found, said, **CLOSE)


@pytest.mark.parametrize("full", [False, True])
def test_t2c_tokens(parts, reference, tokens, full):
    V, U = parts.t2c.config.text_vocab_size, parts.t2c.config.unit_vocab_size
    t2c, echo = with_config(parts.t2c, {"says_text": full, "longest": 30}), parts.echo
    states = [torch.randn(n, 64, generator=torch.Generator().manual_seed(n)) for n in (21, 9, 34)]
    positions, layouts = [echo.positions(s, s) for s in states], [echo.layout([""] * len(s)) for s in states]
    before, after = (list(ids) for ids in tokens.around_states)
    expected = [reference.segment_inputs(s, before, after) for s in states]
    allowed = None if full else [tokens.bos, tokens.eot, *range(V, V + U)]
    for ours, theirs in zip(t2c.read(positions, layouts), expected, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)
        hidden = t2c.body(inputs_embeds=ours[None]).last_hidden_state[0]
        torch.testing.assert_close(t2c.head(hidden), reference.t2c_logits(theirs), **CLOSE)
    batch = [one.ids for one in t2c.generate(positions, layouts)]
    assert batch == [reference.units(e, tokens.eot, 30, allowed) for e in expected]
    assert any(batch)
    for one, position_NH, layout in zip(batch, positions, layouts, strict=True):
        assert [word for word, _ in alone(t2c, t2c.line(position_NH, layout))] == one
        text = tokens.tokenizer.decode(one, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert parts.unit_tokenizer.decode(one) == parse_units(text) == parse(text)


def test_training_rows_predict_what_generation_says(parts):
    """Teacher-forced logits of the released T2C, BOS among what it predicts, have their maxima where it would go on."""
    from echox.models.t2c import T2CBatch

    t2c = with_config(parts.t2c, {"says_text": True, "longest": 12})
    text = torch.randn(7, 64, generator=torch.Generator().manual_seed(3))
    layout = t2c.layout([""] * 7)
    words = t2c.generate([text], [layout])[0].ids
    logits, targets, mask = t2c(T2CBatch([text], [layout], [t2c.framed(words)]))
    assert len(words) > 3 and targets[0][mask[0]].tolist() == t2c.framed(words)
    assert logits[0, : len(words)].argmax(-1).tolist() == words


def test_masked_text_input_of_the_t2c(parts, reference, tokens):
    t2c = with_config(parts.t2c, {"says_text": True})
    ids = tokens.tokenizer("hello", add_special_tokens=False).input_ids
    before, after = tokens.around_text
    whole = [*before, *ids, *after]
    mask = torch.tensor(whole) != tokens.eot
    rows = reference.state["unit_translator.model.embed_tokens.weight"][whole]
    inputs = torch.nn.functional.linear(
        rows, reference.state["unit_translator.adapter.weight"], reference.state["unit_translator.adapter.bias"]
    )
    layout = t2c.layout([""] * len(ids))
    first = t2c.generate([t2c.embed_text(ids, parts.s2t.embeddings_VH)], [layout], limit=1)
    assert first[0].ids == [int(reference.t2c_logits(inputs, mask)[-1].argmax())]
    assert int(mask.sum()) == len(whole) - 1 and torch.equal(layout.seen_C, mask)


@pytest.mark.parametrize("unit_model", [None, "small", "medium"])
def test_t2c_sizes_by_unit_model(tmp_path, unit_model):
    raw = tiny.settings(tied=True, unit_model=unit_model, num_attention_heads=8, num_key_value_heads=4, head_dim=8)
    folder = tmp_path / "checkpoint"
    state = tiny.write_checkpoint(folder, raw)
    write_vocoder(folder, num_embeddings=1000)
    assert "lm_head.weight" not in state
    parts, config = open_parts(folder, CPU), ReleasedConfig.load(folder)
    layers, width = {None: (6, 512), "small": (4, 512), "medium": (8, 768)}[unit_model]
    assert len(parts.t2c.body.layers) == layers and config.t2c.hidden_size == width
    assert parts.s2t.llm.lm_head.weight is parts.s2t.llm.model.embed_tokens.weight
    assert tuple(parts.t2c.head.weight.shape) == (config.llm.vocab_size + config.units, width)
    states = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    echo, t2c = parts.echo, parts.t2c
    ours = t2c.read([echo.positions(states, states)], [echo.layout([""] * 5)])[0]
    reference = ReferenceEchoX(config, state)
    before, after = echo.config.before, echo.config.after
    theirs = reference.t2c_logits(reference.segment_inputs(states, list(before), list(after)))
    torch.testing.assert_close(t2c.head(t2c.body(inputs_embeds=ours[None]).last_hidden_state[0]), theirs, **CLOSE)
