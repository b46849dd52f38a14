"""What a model says where it may call tools, sorted as it comes: words for people, and calls; the parser is transformers' own.

    Let me look. <tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>
    words        call

A tokenizer's `response_template` says how its model writes calls; without one they are read as Hermes and Qwen write them, above.
What a model thinks to itself, and what it says after a call without knowing what that returns, nobody is told.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from echox.errors import ModelError
from echox.generate.text_stream import TextStream
from echox.generate.types import Call
from echox.models.decoding import Said
from echox.text.prompt import Tool

END: Any = ()  # after the last token
WORDS, CALLS = "content", "tool_calls"  # fields of a response template
HERMES: dict[str, Any] = {
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>"},
        CALLS: {
            "open_pattern": r"\s*<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"function": "{content}"},
        },
        WORDS: {},
    },
}


def sorted_calls(
    tokenizer: Any, tools: Sequence[Tool], before: Sequence[int], said: Iterator[Said | None]
) -> Iterator[Said | Call | None]:
    """Yield the words of an answer and its calls, and None where `said` does; a call that breaks off is none.

    `before` are the last tokens of the prompt. ModelError for a call that cannot be read.
    """
    from transformers.utils.chat_parsing import ResponseParser

    template = getattr(tokenizer, "response_template", None) or HERMES
    try:
        parser = ResponseParser(template, prefix=tokenizer.decode(before), tools=list(tools))
    except ValueError as error:
        raise ModelError(
            f"the tokenizer's response_template cannot be read ({error}): fetch the model again."
        ) from error
    text, held, called = TextStream(tokenizer, spells_specials=True), [], False
    for one in chain(said, [END]):
        if one is None:
            yield None
            continue
        try:
            events = parser.finalize()[1] if one is END else parser.feed(text.push(one[0]))
        except (ValueError, KeyError) as error:
            if one is END:
                return
            raise ModelError(f"the model wrote a call that cannot be read ({str(error)[:200]}): ask again.") from error
        held += [one] if one is not END else []
        for event in events:
            if event["field"] == WORDS and event["type"] == "region_chunk" and not called:
                yield from held
            if event["field"] == CALLS and event["type"] == "region_close":
                called = True
                yield from calls_of(event["value"])
        if events:
            held.clear()


def calls_of(value: Any) -> list[Call]:
    """Return the calls that one region of an answer holds; ModelError when a name or the arguments are missing."""
    found = []
    for one in value if isinstance(value, list) else [value]:
        function = one.get("function", one) if isinstance(one, dict) else {}
        name, arguments = function.get("name"), function.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise ModelError(
                f"the model wrote a call without a name or with odd arguments ({str(value)[:200]}): ask again."
            )
        found.append(Call(name, json.dumps(arguments, ensure_ascii=False)))
    return found
