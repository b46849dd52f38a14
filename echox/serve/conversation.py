"""The items of one conversation in their order: who said what, and how much of it was heard; values, no sockets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from echox.serve.history import Turns, call_of, fitting, in_order
from echox.serve.refusals import Refusal

ROOT = "root"  # `previous_item_id` of what shall stand first
MOST_ITEMS = 1000


@dataclass
class Item:
    """One message, one call of a tool (role call, its arguments as text), or what that returned (role tool).

    `sound` is what was recorded, until another recording stands behind it; `heard` is its transcript once there is one.
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
        """Return what it says, as far as that is known; a call as a model reads it."""
        if self.role == "call":
            return call_of(self.name, self.text, "item.arguments")
        return (self.heard or "") if self.role == "user" and self.spoken else self.text

    def cut(self, ms: float) -> None:
        """Forget what was not heard: the text whose speech begins after `ms`, whole words in proportion within a segment."""
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
        """Let the recordings go that will not be asked again: all but the last."""
        for item in [item for item in self.items if item.sound is not None][:-1]:
            item.sound = None

    def _place(self, item_id: object) -> int:
        for place, item in enumerate(self.items):
            if item.id == item_id:
                return place
        raise Refusal(400, f"there is no item {str(item_id)[:60]!r}.", "item_not_found", "item_id")


@dataclass(frozen=True)
class Question:
    """What to answer: the last item of the user, and what came before it; neither item nor text where a tool spoke last."""

    item: Item | None
    typed: str | None
    before: Turns
    dropped: int  # turns left out because they are too long ago
    system: str


def question_of(items: Sequence[Item], instructions: str, most_chars: int, greeting: str = "") -> Question:
    """Return the question that `items` end with, or `greeting` where nobody has asked; Refusal when there is neither."""
    users = [place for place, item in enumerate(items) if item.role == "user"]
    last = users[-1] if users else -1
    after = [
        item.role
        for item in items[last + 1 :]
        if item.role in ("call", "tool") or item.role == "assistant" and item.text
    ]
    system = "\n".join([instructions, *(item.text for item in items if item.role == "system")]).strip()
    if users and after[-1:] == ["tool"]:
        before, item, typed = items, None, None
    elif last < 0 or after:
        if not greeting:
            raise Refusal(400, "there is nothing to answer: add a message of the user first.", "nothing_to_answer")
        before, item, typed = items, None, greeting
    else:
        before, item = items[:last], items[last]
        typed = None if item.sound is not None else item.words()
    turns = [(one.role, one.words(), one.call_id) for one in before if one.role != "system"]
    history, dropped = fitting(in_order([turn for turn in turns if turn[1] or turn[0] == "tool"]), most_chars)
    return Question(item, typed, history, dropped, system)
