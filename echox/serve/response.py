"""One answer as the events of the protocol, in order; a value, no sockets.

    response.created ─ output_item.added ─ item.added ─ content_part.added ─ deltas ─ dones ─ item.done ─ response.done

Everything opened is closed: a cancelled answer sends the same `done` events as a finished one. Tool calls are items of their own,
after the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from echox.audio import SAMPLE_RATE
from echox.generate.engine import Ask
from echox.serve.conversation import Conversation, Item
from echox.serve.refusals import Refusal

MOST_PAIRS, LONGEST_VALUE = 16, 512  # of metadata, and characters of each text
FRAMES = 50  # of 20 ms, a second: what the sound of a question counts as

Event = dict[str, Any]


@dataclass
class Response:
    """An answer under way. `conversation` is None where the client asked for one outside of it."""

    id: str
    item: Item
    form: str
    voice: str
    text_only: bool
    most_words: int | None = None
    asked: Item | None = None  # the user's item that is answered
    earlier: Sequence[Item] = ()  # recordings before it that nobody had written down
    conversation: Conversation | None = None
    conversation_id: str | None = None
    metadata: dict[str, str] | None = None
    opened: bool = False
    words: int = 0
    units: int = 0
    read_words: int = 0
    heard_frames: int = 0
    status: str = "in_progress"
    details: dict[str, Any] | None = None
    output: list[dict[str, Any]] = field(default_factory=list)

    def said(self, text: str) -> list[Event]:
        """Return the events of new text."""
        text = text if self.item.text else text.lstrip()
        if not text or self.output:
            return []
        events = self._open()
        self.item.text += text
        self.words += 1
        kind = "response.output_text.delta" if self.text_only else "response.output_audio_transcript.delta"
        return [*events, {"type": kind, **self._place(), "delta": text}]

    def spoke(self, data: str, ms: float, units: int) -> list[Event]:
        """Return the events of new sound, base64 in `data`."""
        if self.output:
            return []
        events = self._open()
        self.units += units
        self.item.spoken_ms += ms
        mark = (len(self.item.text), self.item.spoken_ms)
        if self.item.marks and self.item.marks[-1][0] == mark[0]:
            self.item.marks[-1] = mark
        else:
            self.item.marks.append(mark)
        return [*events, {"type": "response.output_audio.delta", **self._place(), "delta": data}]

    def called(self, item: Item) -> list[Event]:
        """Return the events of a tool call, which comes whole; the text before it is closed first."""
        events = self._close("completed") if self.opened else []
        self.opened, self.words, item.status = False, self.words + 1, "in_progress"
        place = {"response_id": self.id, "item_id": item.id, "output_index": len(self.output), "call_id": item.call_id}
        events += self._announced("added", item)
        events.append({"type": "response.function_call_arguments.delta", **place, "delta": item.text})
        done = {"type": "response.function_call_arguments.done", **place, "name": item.name, "arguments": item.text}
        item.status = "completed"
        return [*events, done, *self._announced("done", item)]

    def done(self, status: str, details: dict[str, Any] | None = None) -> list[Event]:
        """Return the last events; `details` says why it did not complete."""
        self.status, self.details = status, details
        events = self._close("completed" if status == "completed" else "incomplete") if self.opened else []
        return [*events, {"type": "response.done", "response": self.shown()}]

    def shown(self) -> dict[str, Any]:
        """Return the response object."""
        over = self.status != "in_progress"
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self.status,
            "status_details": self.details,
            "output": self.output,
            "conversation_id": self.conversation_id,
            "output_modalities": ["text"] if self.text_only else ["audio"],
            "max_output_tokens": self.most_words or "inf",
            "audio": {"output": {"format": _format(self.form), "voice": self.voice}},
            "usage": self._usage() if over else None,
            "metadata": self.metadata,
        }

    def _place(self) -> Event:
        return {"response_id": self.id, "item_id": self.item.id, "output_index": 0, "content_index": 0}

    def _part(self, text: str) -> Event:
        return {"type": "text", "text": text} if self.text_only else {"type": "audio", "transcript": text}

    def _open(self) -> list[Event]:
        """Return the events that announce the item, once."""
        if self.opened:
            return []
        self.opened = True
        begun = {"type": "response.content_part.added", **self._place(), "part": self._part("")}
        return [*self._announced("added", self.item), begun]

    def _announced(self, stage: str, item: Item) -> list[Event]:
        """Return the events of an item that is `added` to the output and the conversation, or `done`."""
        shown, place = item.shown(), {"response_id": self.id, "output_index": len(self.output)}
        ours = {"type": f"response.output_item.{stage}", **place, "item": shown}
        if stage == "done":
            self.output = [*self.output, shown]  # what was sent holds the list of its time
        if self.conversation is None:
            return [ours]
        before = self.conversation.add(item) if stage == "added" else self.conversation.before(item)
        theirs = {"type": f"conversation.item.{stage}", "previous_item_id": before, "item": shown}
        return [ours, theirs] if stage == "added" else [theirs, ours]

    def _close(self, status: str) -> list[Event]:
        """Return the `done` events of everything that was opened."""
        self.item.status = status
        text, place = self.item.text, self._place()
        if self.text_only:
            events = [{"type": "response.output_text.done", **place, "text": text}]
        else:
            events = [{"type": "response.output_audio.done", **place}]
            events.append({"type": "response.output_audio_transcript.done", **place, "transcript": text})
        events.append({"type": "response.content_part.done", **place, "part": self._part(text)})
        return [*events, *self._announced("done", self.item)]

    def _usage(self) -> dict[str, Any]:
        """Return counts, not prices: words read, 20 ms frames heard, pieces of text and units said."""
        read, heard = self.read_words, self.heard_frames
        return {
            "total_tokens": read + heard + self.words + self.units,
            "input_tokens": read + heard,
            "output_tokens": self.words + self.units,
            "input_token_details": {"text_tokens": read, "audio_tokens": heard, "cached_tokens": 0},
            "output_token_details": {"text_tokens": self.words, "audio_tokens": self.units},
        }


def metadata_of(asked: dict[str, Any]) -> dict[str, str]:
    """Return the client's metadata of a response; Refusal unless it is a small object of strings."""
    given = asked.get("metadata") or {}
    texts = [*given, *given.values()] if isinstance(given, dict) and len(given) <= MOST_PAIRS else [None]
    if not all(isinstance(text, str) and len(text) <= LONGEST_VALUE for text in texts):
        message = f"response.metadata is no object of at most {MOST_PAIRS} texts of {LONGEST_VALUE} characters."
        raise Refusal(400, message, "invalid_value", "response.metadata")
    return dict(given)


def size_of(ask: Ask) -> tuple[int, int]:
    """Return the words and the 20 ms frames of sound in a question and its history."""
    read = [ask.typed or "", ask.instructions, *(text for _, text in ask.history)]
    samples = len(ask.question) if isinstance(ask.question, np.ndarray) else 0
    heard = samples * FRAMES // (ask.sample_rate or SAMPLE_RATE)
    return sum(len(text.split()) for text in read), heard


def _format(form: str) -> dict[str, Any]:
    return {"type": "audio/pcm", "rate": 24_000} if form == "pcm16" else {"type": f"audio/{form}"}
