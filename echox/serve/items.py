"""Items as clients send them, checked: messages of text or sound; what no model here can read is refused by name."""

from math import inf
from typing import Any

from echox.serve.conversation import Item
from echox.serve.refusals import Refusal
from echox.serve.session_config import MOST_CHARS
from echox.serve.wire import decoded, ms_of, samples_of

PARTS = {
    "user": ("input_text", "input_audio"),
    "assistant": ("output_text", "output_audio"),
    "system": ("input_text",),
}
TOOLS = {
    "function_call": ("call", "arguments"),
    "function_call_output": ("tool", "output"),
}  # role here, field of the text
LONGEST_ID = 64  # characters


def item_of(given: Any, default_id: str, form: str, calls: bool = False, longest: float = inf) -> Item:
    """Return a client's item, its sound in the session's input format; Refusal that names what is wrong with it.

    A recording lasts at most `longest` seconds. Calls of tools, and what they returned, are read where the model `calls`.
    """
    if not isinstance(given, dict):
        raise Refusal(400, "item is missing or no object.", "invalid_value", "item")
    kind, role, parts, name = given.get("type"), given.get("role"), given.get("content"), given.get("id") or default_id
    if kind != "message" and (kind not in TOOLS or not calls):
        message = f"items of type {str(kind)[:40]!r} are not read here: send a message."
        raise Refusal(400, message, "unsupported_value", "item.type")
    if not isinstance(name, str) or len(name) > LONGEST_ID:
        raise Refusal(400, f"item.id is no text of at most {LONGEST_ID} characters.", "invalid_value", "item.id")
    if kind in TOOLS:
        return _called(given, name)
    if not isinstance(role, str) or role not in PARTS:
        raise Refusal(400, "item.role is none of user, assistant and system.", "invalid_value", "item.role")
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise Refusal(400, "item.content is no list of parts.", "invalid_value", "item.content")
    for part in parts:
        if part.get("type") not in PARTS[role]:
            message = f"a {role}'s message holds {' or '.join(PARTS[role])}, not {str(part.get('type'))[:40]!r}."
            raise Refusal(400, message, "invalid_value", "item.content")
    if any(part["type"] == "input_audio" for part in parts):
        return _recorded(name, parts, form, longest)
    texts = [part.get("text", part.get("transcript")) for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise Refusal(400, "a part of item.content has no text.", "invalid_value", "item.content")
    return Item(name, role, _short("\n".join(texts), "item.content"))


def _recorded(name: str, parts: list[dict[str, Any]], form: str, longest: float) -> Item:
    if len(parts) > 1:
        message = "a message holds text or one recording: send several messages."
        raise Refusal(400, message, "invalid_value", "item.content")
    sound = decoded(parts[0].get("audio"), "item.content.audio")
    samples_of(sound, form)
    seconds = ms_of(len(sound), form) / 1000
    if seconds > longest:
        message = f"a recording holds at most {longest:g} s: send less."
        raise Refusal(400, message, "string_above_max_length", "item.content.audio")
    return Item(name, "user", sound=sound, form=form, spoken=True, seconds=seconds)


def _short(text: str, param: str) -> str:
    if len(text) > MOST_CHARS:
        raise Refusal(400, f"{param} holds more than {MOST_CHARS} characters.", "string_above_max_length", param)
    return text


def _called(given: dict[str, Any], name: str) -> Item:
    role, field = TOOLS[given["type"]]
    for one in ("call_id", field, *(("name",) if role == "call" else ())):
        if not isinstance(given.get(one), str):
            raise Refusal(400, f"item.{one} is missing or no text.", "invalid_value", f"item.{one}")
        _short(given[one], f"item.{one}")
    item = Item(name, role, given[field], name=given["name"] if role == "call" else "", call_id=given["call_id"])
    item.words()  # refused where its arguments are none
    return item


def metadata_of(asked: dict[str, Any]) -> dict[str, str]:
    """Return what a client wants to find again in its response; Refusal unless it is a small table of texts."""
    given = asked.get("metadata") or {}
    if not isinstance(given, dict) or len(given) > 16 or not all(isinstance(value, str) for value in given.values()):
        raise Refusal(400, "response.metadata is no object of at most 16 texts.", "invalid_value", "response.metadata")
    return dict(given)
