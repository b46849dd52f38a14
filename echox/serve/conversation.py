"""The items of one realtime conversation in order, and the question that they end with; values, no sockets.

    a client's object --item_of--> Item --Conversation--> items --question_of--> the question, and what came before it

What no model here supports is refused by name.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from echox.serve.refusals import Refusal
from echox.serve.session_config import short
from echox.serve.wire import decoded, ms_of

Turns = tuple[tuple[str, str], ...]  # (role, text), oldest first; roles and texts are those of text/prompt.py: Turn

ROOT = "root"  # `previous_item_id` of what shall stand first
MOST_ITEMS = 1000
PARTS = {"user": ("input_text", "input_audio"), "assistant": ("output_text", "output_audio"), "system": ("input_text",)}
TOOLS = {"function_call": ("call", "arguments"), "function_call_output": ("tool", "output")}  # role, field of the text
LONGEST_ID = 64  # characters


@dataclass
class Item:
    """A message, a tool call (role call, its arguments as text) or a tool's output (role tool).

    `sound` is a recording, kept until a later one arrives; `heard` is its transcript once there is one.
    """

    id: str
    role: str  # user, assistant, system, call or tool
    text: str = ""
    sound: bytes | None = None  # raw, in the session's input format
    form: str = "pcm16"
    spoken: bool = False  # its content is sound
    heard: str | None = None
    seconds: float = 0.0
    status: str = "completed"
    marks: list[tuple[int, float]] = field(default_factory=list)  # (characters, ms) at the end of each segment's speech
    spoken_ms: float = 0.0
    name: str = ""  # of the tool that is called
    call_id: str = ""

    def shown(self) -> dict[str, Any]:
        """Return the item as it is sent, its sound left out."""
        head: dict[str, Any] = {"id": self.id, "object": "realtime.item", "status": self.status}
        if self.role == "call":
            said = "" if self.status == "in_progress" else self.text
            return head | {"type": "function_call", "call_id": self.call_id, "name": self.name, "arguments": said}
        if self.role == "tool":
            return head | {"type": "function_call_output", "call_id": self.call_id, "output": self.text}
        head |= {"type": "message", "role": self.role}
        if self.role == "assistant":
            if self.status == "in_progress":
                return head | {"content": []}
            part = {"type": "output_audio", "transcript": self.text} if self.spoken else _text("output_text", self.text)
        elif self.spoken:
            part = {"type": "input_audio", "transcript": self.heard}
        else:
            part = _text("input_text", self.text)
        return head | {"content": [part]}

    def words(self) -> str:
        """Return its text or transcript, empty while unknown; a tool call as a model reads it."""
        if self.role == "call":
            return call_of(self.name, self.text, "item.arguments")
        return (self.heard or "") if self.role == "user" and self.spoken else self.text

    def cut(self, ms: float) -> None:
        """Drop the text spoken after `ms`; within a segment, whole words in proportion to the time."""
        kept, chars, begun = 0, 0, 0.0
        for end, until in self.marks:
            if until <= ms:
                kept = end
            elif ms > begun:
                share = chars + int((end - chars) * (ms - begun) / (until - begun))
                kept = max(kept, self.text.rfind(" ", 0, share + 1))
            chars, begun = end, until
        self.text = self.text[: max(kept, 0)].rstrip()
        self.marks = [(end, until) for end, until in self.marks if end <= kept and until <= ms]
        self.spoken_ms = min(self.spoken_ms, ms)


def _text(kind: str, text: str) -> dict[str, Any]:
    return {"type": kind, "text": text}


def item_of(given: Any, default_id: str, form: str, calls: bool = False, longest: float = inf) -> Item:
    """Return a client's item, its sound in the session's input format; Refusal that names the fault.

    A recording lasts at most `longest` seconds. Tool calls and outputs are accepted where the model `calls`.
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
            message = f"a message of role {role} holds {' or '.join(PARTS[role])}, not {str(part.get('type'))[:40]!r}."
            raise Refusal(400, message, "invalid_value", "item.content")
    if any(part["type"] == "input_audio" for part in parts):
        return _recorded(name, parts, form, longest)
    texts = [part.get("text", part.get("transcript")) for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise Refusal(400, "a part of item.content has no text.", "invalid_value", "item.content")
    return Item(name, role, short("\n".join(texts), "item.content"))


def _recorded(name: str, parts: list[dict[str, Any]], form: str, longest: float) -> Item:
    if len(parts) > 1:
        message = "a message holds text or one recording: send several messages."
        raise Refusal(400, message, "invalid_value", "item.content")
    sound = decoded(parts[0].get("audio"), "item.content.audio")
    seconds = ms_of(len(sound), form) / 1000
    if seconds > longest:
        message = f"a recording holds at most {longest:g} s: send less."
        raise Refusal(400, message, "string_above_max_length", "item.content.audio")
    return Item(name, "user", sound=sound, form=form, spoken=True, seconds=seconds)


def _called(given: dict[str, Any], name: str) -> Item:
    role, field = TOOLS[given["type"]]
    for one in ("call_id", field, *(("name",) if role == "call" else ())):
        if not isinstance(given.get(one), str):
            raise Refusal(400, f"item.{one} is missing or no text.", "invalid_value", f"item.{one}")
        short(given[one], f"item.{one}")
    item = Item(name, role, given[field], name=given["name"] if role == "call" else "", call_id=given["call_id"])
    short(item.words(), f"item.{field}")  # refused where its arguments are none
    return item


class Conversation:
    """Items in order."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Put an item at the end, or after another (`root`: first); return the id it stands behind; Refusal when it cannot."""
        if any(one.id == item.id for one in self.items):
            raise Refusal(400, f"there is an item {item.id!r} already.", "invalid_value", "item.id")
        if item.role == "tool" and not any(one.call_id == item.call_id for one in self.items):
            raise Refusal(400, f"no tool was called as {item.call_id[:60]!r}.", "invalid_value", "item.call_id")
        place = len(self.items) if after is None else 0 if after == ROOT else self._place(after) + 1
        self.items.insert(place, item)
        return self.items[place - 1].id if place else None

    def check_room(self) -> None:
        """Raise a Refusal when no more items fit."""
        if len(self.items) >= MOST_ITEMS:
            raise Refusal(400, f"the conversation holds {MOST_ITEMS} items: delete some.", "conversation_full")

    def get(self, item_id: object) -> Item:
        """Return an item; Refusal when there is none of that id."""
        return self.items[self._place(item_id)]

    def remove(self, item_id: object) -> None:
        """Take an item out; Refusal when there is none of that id."""
        del self.items[self._place(item_id)]

    def before(self, item: Item) -> str | None:
        """Return the id of the item that stands before one that is here, None for the first."""
        place = self._place(item.id)
        return self.items[place - 1].id if place else None

    def forget_sounds(self) -> None:
        """Free all recordings but the last: only that can still be asked."""
        for item in [item for item in self.items if item.sound is not None][:-1]:
            item.sound = None

    def _place(self, item_id: object) -> int:
        for place, item in enumerate(self.items):
            if item.id == item_id:
                return place
        raise Refusal(400, f"there is no item {str(item_id)[:60]!r}.", "item_not_found", "item_id")


@dataclass(frozen=True)
class Question:
    """What to answer: the user's last item and the history; neither item nor text after the output of a tool."""

    item: Item | None
    typed: str | None
    before: Turns
    dropped: int  # turns left out because they are too long ago
    system: str
    earlier: tuple[Item, ...] = ()  # that `before` is made of


def question_of(items: Sequence[Item], instructions: str, most_chars: int, greeting: str = "") -> Question:
    """Return the question at the end of `items`, or `greeting` where nothing is asked; Refusal when there is neither."""
    users = [place for place, item in enumerate(items) if item.role == "user"]
    last = users[-1] if users else -1
    later = items[last + 1 :]
    after = [one.role for one in later if one.role in ("call", "tool") or one.role == "assistant" and one.text]
    told = "\n".join([instructions, *(item.text for item in items if item.role == "system")]).strip()
    system = short(told, "instructions")
    if users and after[-1:] == ["tool"]:
        before, item, typed = items, None, None
    elif last < 0 or after:
        if not greeting:
            raise Refusal(400, "there is nothing to answer: add a message of the user first.", "nothing_to_answer")
        before, item, typed = items, None, greeting
    else:
        before, item = items[:last], items[last]
        typed = None if item.sound is not None else item.words()
    return Question(item, typed, *history_of(before, most_chars), system, tuple(before))


def history_of(items: Sequence[Item], most_chars: int) -> tuple[Turns, int]:
    """Return what earlier items say, as far as that is known, and how many turns do not fit; Refusal as of `fitting`."""
    turns = [(one.role, one.words(), one.call_id) for one in items if one.role != "system"]
    return fitting(in_order(turns), most_chars)


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
    """Return (role, text) of (role, text, id of a call): empty turns left out, outputs of tools in the order of their calls."""
    turns = [turn for turn in turns if turn[1] or turn[0] == "tool"]
    calls = {name: place for place, (role, _, name) in enumerate(turns) if role == "call"}
    outputs = [turn for turn in turns if turn[0] == "tool"]
    returned = iter(sorted(outputs, key=lambda turn: calls.get(turn[2], len(turns))))
    return [(next(returned) if turn[0] == "tool" else turn)[:2] for turn in turns]


def fitting(turns: Sequence[tuple[str, str]], most: int) -> tuple[Turns, int]:
    """Return the newest turns that hold at most `most` characters together, and how many older ones were dropped.

    What is kept begins with a user's turn or the opening greeting: an answer is dropped with its question. Refusal when the
    output of a tool comes last and does not fit.
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
