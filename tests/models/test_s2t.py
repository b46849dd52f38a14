"""Speech to text: training states are generation's, batches equal single rows, merged LoRA equals peft's."""

import pytest
import torch

from echox.errors import ConfigError, ModelError
from echox.models.decoding import at_most
from echox.models.llm import load_llm, load_tokenizer
from echox.models.lora import LoraSettings, attach_lora, lora_state
from echox.models.s2t import S2TConfig, S2TInputs, SpeechToText
from echox.objectives.s2t import AlignPass, AnswerPass, S2TObjective
from echox.text.prompt import ChatDialect, encode, question_prompt, stop_ids
from echox.train.toy import write_llm

ADAPTER = {"encoder_width": 8, "width": 32, "layers": 1, "heads": 4, "ffn": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_llm(tmp_path_factory.mktemp("llm"))


def part(folder, classes: int = 40) -> SpeechToText:
    torch.manual_seed(0)
    config = S2TConfig(adapter=ADAPTER, lora={"rank": 2, "alpha": 4}, ctc_classes=classes)
    model = SpeechToText(config, load_llm(folder)).eval()
    model.ctc_tokens.copy_(torch.arange(10, 10 + classes))
    return model


def test_generation_in_company_and_its_states(folder):
    model, tokenizer = part(folder), load_tokenizer(folder)
    prompt, stop = question_prompt(ChatDialect(tokenizer, "Answer.")), stop_ids(tokenizer, model.llm)
    heard = model.hear(torch.randn(2, 30, 8), torch.tensor([30, 17]))
    rows = [row[mask] for row, mask in zip(heard.kept_BNH, heard.mask_BN, strict=True)]
    rows.append(model.embed(encode(tokenizer, "Who is the king?")))
    asked = [model.row(prompt, [row]) for row in rows]
    together = model.generate(asked, stop, at_most(7))
    for row, made in zip(asked, together, strict=True):
        alone = model.generate([row], stop, at_most(7))[0]
        assert alone.ids == made.ids and len(made.ids) > 0
        torch.testing.assert_close(torch.stack(alone.states), torch.stack(made.states), atol=1e-4, rtol=1e-3)
    frames = torch.randn(1, 30, 8)
    heard = model.hear(frames, torch.tensor([30]))
    made = model.generate([model.row(prompt, [heard.kept_BNH[0]])], stop, at_most(5))[0]
    forced = model(S2TInputs(frames, torch.tensor([30]), prompt.before, prompt.after, [made.ids]))
    torch.testing.assert_close(forced.hidden_BLH[0], torch.stack(made.states), atol=1e-4, rtol=1e-3)


def test_a_part_that_hears_no_token_is_refused(folder, tmp_path):
    part(folder, classes=0).save(tmp_path)
    with pytest.raises(ModelError, match=r"tells no tokens apart \(ctc_classes is 0\)"):
        SpeechToText.load(tmp_path, load_llm(folder))


def test_texts_are_as_likely_together_as_each_token_by_itself(folder):
    model, tokenizer = part(folder), load_tokenizer(folder)
    for words in (("Who is the king?", "Who", "Who is it"), ("Who", "How"), ("Who", "Who")):
        texts = [encode(tokenizer, text) for text in words]
        shared = next(
            n for n in range(9) if any(text[n : n + 1] != texts[0][n : n + 1] or not text[n:] for text in texts)
        )
        for text, found in zip(texts, model.log_likelihoods([tokenizer.eos_token_id], texts), strict=True):
            wanted, said = 0.0, [tokenizer.eos_token_id]
            for place, token in enumerate(text):
                logits_V = model.llm(input_ids=torch.tensor([said])).logits[0, -1]
                wanted += float(logits_V.log_softmax(-1)[token]) if place >= shared else 0.0
                said.append(token)
            assert found == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_no_run_of_tokens_is_said_twice(folder, size):
    model, tokenizer = part(folder), load_tokenizer(folder)
    prompt, question = question_prompt(ChatDialect(tokenizer)), [model.embed(encode(tokenizer, "Who?"))]

    def say(ngram):
        model.config.no_repeat_ngram = ngram
        return model.generate([model.row(prompt, question)], set(), at_most(24))[0].ids

    plain, said = say(0), say(size)
    runs = [tuple(said[i : i + size]) for i in range(len(said) - size + 1)]
    assert len(set(runs)) == len(runs) and len(said) == 24
    loops = [tuple(plain[i : i + size]) for i in range(len(plain) - size + 1)]
    assert len(set(loops)) < len(loops), "the toy must loop when nothing stops it, or this test shows nothing"


def test_typed_rows_are_read_not_heard(folder):
    model, tokenizer = part(folder), load_tokenizer(folder)
    prompt, ids = question_prompt(ChatDialect(tokenizer, "Answer.")), encode(load_tokenizer(folder), "Who?")
    answer = [encode(tokenizer, "Red")]
    outputs = [
        model(S2TInputs(frames, torch.tensor([20]), prompt.before, prompt.after, answer, [ids], [True])).hidden_BLH
        for frames in (torch.randn(1, 20, 8), torch.randn(1, 20, 8))
    ]
    torch.testing.assert_close(*outputs)


def test_rows_of_a_batch_are_read_as_one_by_one(folder):
    """The slow twin takes each row's positions by itself."""
    model, tokenizer = part(folder), load_tokenizer(folder)
    prompt, ids = question_prompt(ChatDialect(tokenizer, "Answer.")), encode(tokenizer, "Who?")
    frames, lengths = torch.randn(3, 30, 8), torch.tensor([30, 20, 17])
    answers, typed = [encode(tokenizer, text) for text in ("Red", "No, it is not", "Yes")], [False, True, False]
    heard, rows = model.hear(frames, lengths), []
    for row in range(3):
        read = model.embed(ids) if typed[row] else heard.kept_BNH[row][heard.mask_BN[row]]
        rows.append(model.row(prompt, [read]))
    assert len({len(row.inputs_NW) for row in rows}) > 1
    output = model(S2TInputs(frames, lengths, prompt.before, prompt.after, answers, [ids] * 3, typed))
    for row, states_LH in enumerate(model.states_under(rows, answers)):
        assert torch.equal(output.hidden_BLH[row, : len(states_LH)], states_LH)


def test_merged_lora_equals_peft(folder):
    settings = LoraSettings(rank=2, alpha=4, dropout=0.0)
    trained = attach_lora(load_llm(folder), settings).eval()
    torch.manual_seed(5)
    for name, parameter in trained.named_parameters():
        if "lora_" in name:
            assert parameter.requires_grad
            parameter.data.normal_(std=0.2)
        else:
            assert not parameter.requires_grad
    model = part(folder)
    model.lora.copy_from(lora_state(trained))
    ids = torch.arange(12)[None]
    plain = model.llm(ids).logits
    model.lora.merge_into(model.llm)
    torch.testing.assert_close(model.llm(ids).logits, trained(ids).logits, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(model.llm(ids).logits, plain, atol=1e-3)


def test_the_llm_never_ships(folder, tmp_path):
    from safetensors.torch import load_file

    model = part(folder)
    model.save(tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if name.startswith("llm.")]
    again = SpeechToText.load(tmp_path, load_llm(folder))
    assert torch.equal(again.ctc_tokens, model.ctc_tokens)
    wide = write_llm(tmp_path / "wide", width=64)
    with pytest.raises(ModelError, match="do not fit"):
        SpeechToText.load(tmp_path, load_llm(wide))


def test_ctc_hears_spoken_rows_only(folder):
    model = part(folder)
    answers_to, loss = AnswerPass(model, AlignPass(model)), S2TObjective(ctc_weight=1.0)

    def objective(batch):
        return loss(answers_to(batch))

    frames, lengths, answers = torch.randn(2, 30, 8), torch.tensor([30, 30]), [[12, 13], [14]]
    unheard = [[11, 12], [3]]  # 3 is no CTC class, but its row is only read
    mixed = S2TInputs(frames, lengths, (), (), answers, unheard, [False, True])
    alone = S2TInputs(frames[:1], lengths[:1], (), (), answers[:1], unheard[:1], [False])
    torch.manual_seed(7)
    found = objective(mixed).parts["ctc"]
    torch.manual_seed(7)
    torch.testing.assert_close(found, objective(alone).parts["ctc"])
    assert "ctc" not in objective(S2TInputs(frames, lengths, (), (), answers, unheard, [True, True])).parts
    assert "ctc" not in loss(answers_to.eval()(mixed)).parts  # heard while it trains
    answers_to.train()
    with pytest.raises(ConfigError, match="token 3 is no CTC class"):
        objective(S2TInputs(frames, lengths, (), (), answers, unheard, [False, False]))
