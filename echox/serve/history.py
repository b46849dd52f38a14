"""Earlier turns as a model is given them: (role, text), the oldest dropped whole when they are too long."""

import json
from collections.abc import Sequence

from echox.serve.refusals import Refusal

Turns = tuple[tuple[str, str], ...]  # (role, text), oldest first; roles and texts are those of text/prompt.py: Turn


def call_of(name: str, arguments: str, param: str) -> str:
    """Return the call of a tool as a model reads it; Refusal unless `arguments` are the text of a JSON object."""
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise Refusal(400, f"{param} is not the text of a JSON object.", "invalid_value", param)
    return json.dumps({"name": name, "arguments": given}, ensure_ascii=False)


def in_order(turns: Sequence[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Return (role, text) of (role, text, id of a call); what tools returned stands in the order in which they were called."""
    calls = {name: place for place, (role, _, name) in enumerate(turns) if role == "call"}
    outputs = [turn for turn in turns if turn[0] == "tool"]
    returned = iter(sorted(outputs, key=lambda turn: calls.get(turn[2], len(turns))))
    return [(next(returned) if turn[0] == "tool" else turn)[:2] for turn in turns]


def fitting(turns: Sequence[tuple[str, str]], most: int) -> tuple[Turns, int]:
    """Return the newest turns that hold at most `most` characters together, and how many older ones were dropped.

    What is kept begins with a user's turn, or with the greeting that all began with: an answer without its question is dropped
    with it. Refusal when a tool has spoken last and its turn does not fit.
    """
    kept, left = len(turns), most
    while kept > 0 and len(turns[kept - 1][1]) <= left:
        kept -= 1
        left -= len(turns[kept][1])
    greeted = kept == 0 and turns and turns[0][0] == "assistant"
    while kept < len(turns) and turns[kept][0] != "user" and not greeted:
        kept += 1
    if kept == len(turns) and turns and turns[-1][0] == "tool":
        message = f"the question, its calls and what they returned hold more than {most} characters: return less."
        raise Refusal(400, message, "string_above_max_length")
    return tuple(turns[kept:]), kept
