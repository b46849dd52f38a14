"""States of a real (toy) assistant, and the LLM as it was published beside the adapted one."""

import pytest
import torch

from echox import ConfigError, SpeechAssistant
from echox.eval.probes import can_turn_off, states_of, untouched
from echox.train.toy import sound_of

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def assistant(toy_model):
    return SpeechAssistant.load(str(toy_model), device="cpu", dtype="float32")


def test_the_untouched_model_is_another_one(assistant):
    llm, text = assistant.parts.s2t.llm, assistant.ask(typed=QUESTION, text_only=True).text
    before = states_of(assistant).typed_states(QUESTION)[-1]
    plain = untouched(assistant)
    for name in assistant.parts.s2t.lora.names:
        base = plain.parts.s2t.llm.get_submodule(name).weight
        adapted = llm.get_submodule(name).weight
        assert not torch.equal(base, adapted)
        torch.testing.assert_close(base + plain.parts.s2t.lora.delta(name), adapted)
    assert plain.parts.echo is assistant.parts.echo and assistant.parts.s2t.llm is llm  # other requests see no change
    assert assistant.ask(typed=QUESTION, text_only=True).text == text
    torch.testing.assert_close(states_of(assistant).typed_states(QUESTION)[-1], before, atol=0, rtol=0)
    assert not torch.equal(states_of(plain).typed_states(QUESTION)[-1], before)


def test_what_has_no_adapters_is_told():
    assert not can_turn_off(SpeechAssistant.fake())
    with pytest.raises(ConfigError, match="no adapters"):
        untouched(SpeechAssistant.fake())


def test_states_have_a_row_a_token_and_a_layer(assistant):
    reader, parts = states_of(assistant), assistant.parts
    layers, width = parts.s2t.llm.config.num_hidden_layers + 1, parts.s2t.embeddings_VH.shape[1]
    tokens = len(parts.tokenizer(QUESTION, add_special_tokens=False).input_ids)
    typed = reader.typed_states(QUESTION)
    assert [tuple(layer.shape) for layer in typed] == [(tokens, width)] * layers
    torch.testing.assert_close(typed[0], parts.s2t.embed(parts.tokenizer(QUESTION).input_ids).float())
    heard = parts.ear.hear([sound_of(QUESTION)])[0]
    assert len(reader.spoken_states(sound_of(QUESTION))[0]) == len(heard.positions_NH)
    assert len(reader.echo_states("It is Paris.")) == parts.echo.t2c.decoder.config.num_hidden_layers + 1


def test_units_of_a_text_have_embeddings(assistant):
    (states,) = states_of(assistant).unit_states("The answer is Paris.")
    assert len(states) == max(1, len(assistant.say("The answer is Paris.").units))
