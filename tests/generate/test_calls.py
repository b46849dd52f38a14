"""Calls of tools: told by the chat template, sorted out of what a model says, never spoken; a model that knows no tools says so."""

import json

import pytest
import torch

from echox import ConfigError, InputError, ModelError, SpeechAssistant
from echox.generate.batched import Batched
from echox.generate.calls import sorted_calls
from echox.generate.engine import Ask, InTurn, made_by, pieces_of
from echox.generate.parts import assemble
from echox.generate.types import Call
from echox.models.decoding import alone
from echox.models.llm import Place, load_llm, load_tokenizer
from echox.models.s2t import S2TConfig, SpeechToText
from echox.text.prompt import ChatDialect, Turn, encode
from echox.train.toy import write_llm
from tests.toy_model import CALL, CALLING, WEATHER

PARIS = Call("weather", '{"city": "Paris"}')
ASKED = Turn("user", "How is the weather in Paris?")
CALLED = Turn("call", json.dumps({"name": "weather", "arguments": {"city": "Paris"}}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture
def tokenizer(folder):
    found = load_tokenizer(folder)
    found.chat_template = CALLING
    return found


@pytest.fixture
def assistant(folder, tokenizer, tmp_path):
    s2t = SpeechToText(
        S2TConfig(hears=False, max_new_tokens=200), load_llm(folder, Place(torch.device("cpu"), torch.float32))
    )
    return SpeechAssistant(assemble(tmp_path, {}, None, 1, s2t.eval(), tokenizer))


def sorted_out(tokenizer, text):
    """Return the words and the calls of an answer, a byte-level token at a time with waits between."""
    said = [one for token in encode(tokenizer, text) for one in (None, (token, torch.zeros(1)))]
    made = [one for one in sorted_calls(tokenizer, [WEATHER], (), iter(said)) if one is not None]
    calls = [one for one in made if isinstance(one, Call)]
    return tokenizer.decode([one[0] for one in made if not isinstance(one, Call)]), calls


def test_words_and_calls_are_told_apart(tokenizer):
    cases = {
        "It is 3 < 4, é and ☃ <tool": ("It is 3 < 4, é and ☃ <tool", []),
        CALL: ("", [PARIS]),
        f"Let me look.\n{CALL}": ("Let me look.", [PARIS]),
        f"{CALL}\n{CALL.replace('Paris', '☃')} It is warm.": ("", [PARIS, Call("weather", '{"city": "☃"}')]),
        f"<think>They ask.</think>Yes. {CALL}": ("Yes.", [PARIS]),
        f"Yes. {CALL[:40]}": ("Yes.", []),  # broken off
    }
    for text, wanted in cases.items():
        assert sorted_out(tokenizer, text) == wanted, text
    for text in (CALL.replace("}}", "}"), CALL.replace('"name"', '"what"'), CALL.replace('{"city": "Paris"}', "[1]")):
        with pytest.raises(ModelError, match="wrote a call"):
            sorted_out(tokenizer, text)


def test_a_tokenizer_may_say_how_its_model_calls(tokenizer):
    field = {
        "open": "[CALLS]",
        "content": "json",
        "transform": {"function": {"name": "{name}", "arguments": "{arguments}"}},
        "transform_each": True,
    }
    fields = {"content": {}, "tool_calls": field}
    tokenizer.response_template = {"start_anchor": "assistant\n", "fields": fields}
    text = 'Yes.[CALLS][{"name": "weather", "arguments": {"city": "Paris"}}]'
    assert sorted_out(tokenizer, text) == ("Yes.", [PARIS])
    tokenizer.response_template = {"fields": fields}
    with pytest.raises(ModelError, match="response_template"):
        sorted_out(tokenizer, text)


def test_the_template_tells_of_tools_and_of_what_they_returned(tokenizer):
    dialect = ChatDialect(tokenizer, "Be kind.").calling([WEATHER])
    returned = Turn("tool", "<|im_end|>warm")
    (ids,) = dialect.prompt([ASKED, Turn("assistant", "Let me look."), CALLED, CALLED, returned, returned]).runs
    text = tokenizer.decode(ids)
    wanted = (
        f"<|im_start|>assistant\nLet me look.\n{CALL}\n{CALL}<|im_end|>\n<|im_start|>tool\n<|im_end|>warm<|im_end|>"
    )
    assert wanted in text and json.dumps(WEATHER) in text and text.count("Be kind.") == 1
    assert (
        list(ids).count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 5
    )  # one a message: what tools return is text
    odd = json.dumps({"name": "weather", "arguments": {"<|im_end|>": ["<|im_end|>", 1, None]}})
    (ids,) = dialect.prompt([ASKED, Turn("call", odd), returned]).runs
    assert list(ids).count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 4
    assert '{"<|im_end|>": ["<|im_end|>", 1, null]}' in tokenizer.decode(ids)
    with pytest.raises(InputError, match="must end with a user turn"):
        dialect.prompt([ASKED, CALLED])


def test_a_model_that_knows_no_tools_says_so(folder, assistant):
    with pytest.raises(ConfigError, match="cannot call tools"):
        ChatDialect(load_tokenizer(folder)).calling([WEATHER])
    with pytest.raises(ConfigError, match="cannot call tools"):
        next(pieces_of(SpeechAssistant.fake(), Ask(typed="Hi", tools=(WEATHER,))))
    assert not InTurn(SpeechAssistant.fake()).calls and InTurn(assistant).calls
    with pytest.raises(ConfigError, match="one conversation at a time"):
        assistant.calling([WEATHER]).ask_many([], text_only=True)


def test_an_answer_says_its_words_then_its_calls_and_goes_on_from_what_came_back(assistant):
    tokenizer, read = assistant.parts.tokenizer, []

    def scripted(model, line):
        """Say what stands in `script`, with the states of nothing."""
        read.append(len(line.row.inputs_NW))
        for token in encode(tokenizer, script):
            line.said.append(token)
            yield token, torch.zeros(32)

    calling = assistant.decoding_by(scripted).calling([WEATHER])
    script = f"Let me look. {CALL}"
    reply = calling.ask(typed=ASKED.text, text_only=True)
    assert (reply.text, reply.calls, reply.finish) == ("Let me look.", [PARIS], "stop")
    script = "It is warm."
    history = (("user", ASKED.text), ("call", CALLED.text), ("tool", "warm"))
    engine = InTurn(assistant.decoding_by(scripted))
    pieces = list(made_by(engine, Ask(history=history, tools=(WEATHER,), text_only=True)))
    assert "".join(piece.text for piece in pieces) == "It is warm." and not any(piece.call for piece in pieces)
    assert read[1] > read[0]
    assert assistant.decoding_by(scripted).ask(typed=ASKED.text, text_only=True).calls == []
    assert calling.parts.sampling.no_repeat_ngram == 0 and assistant.parts.sampling.no_repeat_ngram == 4
    assert calling._limits(None).enough_tokens is None and assistant._limits(None).enough_tokens == 48
    real = assistant.decoding_by(alone).calling([WEATHER]).ask(typed=ASKED.text, text_only=True)
    assert real.finish in ("length", "stop", "empty") and real.calls == []
    ask = Ask(history=history, tools=(WEATHER,), text_only=True)
    company, by_itself = (list(made_by(engine, ask)) for engine in (Batched(assistant), InTurn(assistant)))
    assert company == by_itself and company[-1].finish in ("length", "stop", "empty")
