"""One realtime conversation as a state machine: inputs go in, events for the client and orders for the engine come out.

    client's events ─┐                        ┌─► events, each with its id
    turns found      ├─► Session (no socket, ─┼─► Answer, Stop, Hear: orders for the engine
    pieces of answers┘    no clock, no model) └─► Listen: how turns shall be found from here on

A deep copy of a session goes on exactly as the session does: the tests rely on it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from echox.generate.engine import Ask
from echox.serve.conversation import Conversation, Item, item_of, question_of
from echox.serve.orders import Answer, Hear, Listen, Overhear, Stop, ask_of
from echox.serve.refusals import Refusal, no_transcript
from echox.serve.response import Event, Response, metadata_of, size_of
from echox.serve.session_config import MOST_NAME, SessionConfig, as_session, shown, updated
from echox.serve.settings import Limits
from echox.serve.wire import SoundBuffer, ms_of, rate_of, samples_of

SHORTEST_MS = 100.0  # of sound in a turn
SLACK_MS = 1000.0  # by which the finding of a turn may be late
MOST_ASIDE = 4  # answers outside of the conversation at once

Out = Event | Answer | Stop | Hear | Overhear | Listen


class Session:
    """The state of one conversation; every method takes an event and returns the events and orders that follow."""

    def __init__(self, key: str, model: str, limits: Limits, expires_at: int = 0, calls: bool = False) -> None:
        """Begin with a `model` that `calls` tools or does not."""
        self.key, self.limits, self.expires_at, self.calls = key, limits, expires_at, calls
        self.config = SessionConfig(model=model)
        self.conversation = Conversation()
        self.sound = SoundBuffer()
        self.turn_id: str | None = None  # of the item to come, while somebody speaks
        self.responses: dict[str, Response] = {}  # under way
        self.hearing: dict[str, Item] = {}  # what is being written down, or could not be
        self.answer_next = False  # a turn ended while an answer was under way that may not be interrupted
        self.count = 0
        self.out: list[Out] = []

    # what the client says

    def start(self) -> list[Out]:
        """Return the first events of a connection."""
        self._send("session.created", session=shown(self.config, f"sess_{self.key}", self.expires_at))
        return self._taken(self._listen)

    def client(self, event: Event) -> list[Out]:
        """Handle a client's event, other than sound, which goes to `append`; a wrong one gives an error event."""
        do = CLIENT.get(event.get("type", ""))
        if do is None:
            known = ", ".join((*CLIENT, "input_audio_buffer.append"))
            message = f"unknown type {str(event.get('type'))[:60]!r}: send one of {known}."
            return self.refuse(Refusal(400, message, "invalid_value", "type"), event)
        return self._taken(lambda: do(self, event), event)

    def refuse(self, refusal: Refusal, event: Event | None = None) -> list[Out]:
        """Return an error event, which quotes the id of the event that caused it."""
        quoted = (event or {}).get("event_id")
        known = isinstance(quoted, str) and len(quoted) <= MOST_NAME
        self._send("error", error={**refusal.error(), "event_id": quoted if known else None})
        return self._taken(lambda: None)

    def append(self, data: bytes) -> list[Out]:
        """Take the user's sound; a turn at its longest is ended, or refused where the client ends turns."""
        turns, begun = self.config.audio.input.turn_detection, self.sound.end_ms
        longest = 1000 * self.limits.question_seconds
        self.sound.append(data)
        if turns is not None and self.turn_id is None:
            self.sound.keep_last(turns.prefix_padding_ms + SLACK_MS)
        if self.sound.end_ms - self.sound.start_ms <= longest:
            return self._taken(self._overhear)
        if self.turn_id is not None:  # what is still being said is another turn
            return [*self.speech_stopped(self.sound.start_ms + longest), Listen(turns, self.sound.form, begun)]
        del self.sound.data[self.sound.until(self.sound.start_ms + longest) :]
        message = f"a turn holds at most {self.limits.question_seconds:g} s: commit it or clear it."
        return self.refuse(Refusal(400, message, "input_audio_buffer_full", "audio"))

    # what the detector of turns finds

    def speech_started(self, at_ms: float) -> list[Out]:
        """Begin a turn, and cancel the answer under way if it may be interrupted."""
        turns = self.config.audio.input.turn_detection
        if turns is None or self.turn_id is not None:
            return []
        self.sound.start_at(at_ms - turns.prefix_padding_ms)
        self.turn_id = self._id("item")
        self._send("input_audio_buffer.speech_started", audio_start_ms=int(self.sound.start_ms), item_id=self.turn_id)
        active = self._active() if turns.interrupt_response else None
        return self._taken(lambda: self._cancel(active, "turn_detected"))

    def speech_stopped(self, at_ms: float) -> list[Out]:
        """End a turn: commit it, and answer it if `create_response` is set."""
        turns, item_id = self.config.audio.input.turn_detection, self.turn_id
        if turns is None or item_id is None:
            return []
        self._send("input_audio_buffer.speech_stopped", audio_end_ms=int(at_ms), item_id=item_id)

        def commit() -> None:
            self._commit(item_id, self.sound.until(at_ms))
            if turns.create_response and self._active() is None:
                self._respond({})
            elif turns.create_response:
                self.answer_next = True

        return self._taken(commit)

    # what the engine makes

    def heard(self, response_id: str, text: str) -> list[Out]:
        """Take the transcript of the question that is being answered."""
        asked = getattr(self.responses.get(response_id), "asked", None)
        self._unhear(asked)
        return self._taken(lambda: self._transcribed(asked, text))

    def said(self, response_id: str, text: str) -> list[Out]:
        """Take text of an answer, which ends here if it would exceed its limit."""
        response = self.responses.get(response_id)
        if response is None:
            return []
        if text and response.most_words is not None and response.words >= response.most_words:
            self.out.append(Stop(response_id))
            return self.ended(response_id, "length")
        self._forward(response.said(text))
        return self._taken(lambda: None)

    def spoke(self, response_id: str, data: str, ms: float, units: int = 0) -> list[Out]:
        """Take sound of an answer: base64 in its format, the length in ms, and the number of units."""
        if response := self.responses.get(response_id):
            self._forward(response.spoke(data, ms, units))
        return self._taken(lambda: None)

    def called(self, response_id: str, name: str, arguments: str) -> list[Out]:
        """Take a tool call, which comes after all text."""
        if response := self.responses.get(response_id):
            item = Item(self._id("item"), "call", arguments, name=name, call_id=self._id("call"))
            self._forward(response.called(item))
        return self._taken(lambda: None)

    def ended(self, response_id: str, finish: str) -> list[Out]:
        """Take the end of an answer: stop, length, empty, or unheard (nothing was understood)."""
        response = self.responses.get(response_id)
        if response is None:
            return []
        if finish == "unheard":
            response.metadata = {**(response.metadata or {}), "finish": finish}
            self._transcribed(response.asked, "")
        elif response.asked is not None and response.asked.spoken and response.asked.heard is None:
            self._not_written(response.asked, no_transcript())
        cut = finish == "length"
        reason = {"type": "incomplete", "reason": "max_output_tokens"} if cut else None
        return self._taken(lambda: self._end(response, "incomplete" if cut else "completed", reason))

    def failed(self, response_id: str, refusal: Refusal) -> list[Out]:
        """Take the failure of an answer."""
        response, details = self.responses.get(response_id), {"type": "failed", "error": refusal.told()}
        return [] if response is None else self._taken(lambda: self._end(response, "failed", details))

    def transcribed(self, item_id: str, text: str) -> list[Out]:
        """Take the transcript that `Hear` asked for."""
        return self._taken(lambda: self._transcribed(self.hearing.get(item_id), text))

    def not_transcribed(self, item_id: str, refusal: Refusal) -> list[Out]:
        """Take the failure of a transcript."""
        return self._taken(lambda: self._not_written(self.hearing.pop(item_id, None), refusal))

    # the client's events, one by one

    def _update(self, event: Event) -> None:
        before = self.config.audio.input
        self.config = updated(self.config, event.get("session"), "session", self.calls)
        after = self.config.audio.input
        restarted = after.format.form != before.format.form
        if restarted:
            self.sound.restart(after.format.form)
        if restarted or after.turn_detection != before.turn_detection:
            self.turn_id = None
            self._listen()
        self._send("session.updated", session=shown(self.config, f"sess_{self.key}", self.expires_at))

    def _client_commit(self, event: Event) -> None:
        self._commit(self.turn_id or self._id("item"), len(self.sound.data))
        self._listen()

    def _clear(self, event: Event) -> None:
        self.sound.take()
        self.turn_id = None
        self._listen()
        self._send("input_audio_buffer.cleared")

    def _create_item(self, event: Event) -> None:
        item = self._item(event.get("item"))
        self._announce(item, self._add(item, event.get("previous_item_id")))

    def _retrieve(self, event: Event) -> None:
        self._send("conversation.item.retrieved", item=self.conversation.get(event.get("item_id")).shown())

    def _delete(self, event: Event) -> None:
        item = self.conversation.get(event.get("item_id"))
        self._stop_saying(item)
        self.conversation.remove(item.id)
        self._unhear(item)
        self._send("conversation.item.deleted", item_id=item.id)

    def _truncate(self, event: Event) -> None:
        item, ms = self.conversation.get(event.get("item_id")), event.get("audio_end_ms")
        if item.role != "assistant" or not item.spoken:
            raise Refusal(400, "only what the assistant said aloud can be truncated.", "invalid_value", "item_id")
        if not isinstance(ms, int) or isinstance(ms, bool) or not 0 <= ms <= item.spoken_ms + 1:
            message = f"audio_end_ms is not within the {item.spoken_ms:.0f} ms that were said."
            raise Refusal(400, message, "invalid_value", "audio_end_ms")
        self._stop_saying(item)
        item.cut(ms)
        self._send("conversation.item.truncated", item_id=item.id, content_index=0, audio_end_ms=ms)

    def _create_response(self, event: Event) -> None:
        asked = event.get("response") or {}
        if not isinstance(asked, dict):
            raise Refusal(400, "response is no object.", "invalid_value", "response")
        self._respond(asked)

    def _cancel_response(self, event: Event) -> None:
        wanted = event.get("response_id")
        response = self._active() if wanted is None else self.responses.get(str(wanted))
        if response is None:
            raise Refusal(400, "no response is under way to cancel.", "response_cancel_not_active")
        self._cancel(response, "client_cancelled")

    # what follows

    def _respond(self, asked: dict[str, Any]) -> None:
        """Start a response to the conversation, or to the items in the request."""
        aside = asked.get("conversation") == "none"
        if asked.get("conversation") not in (None, "auto", "none"):
            raise Refusal(400, "response.conversation is auto or none.", "invalid_value", "response.conversation")
        if not aside and self._active() is not None:
            raise Refusal(400, "a response is under way: cancel it first.", "conversation_already_has_active_response")
        if aside and sum(one.conversation is None for one in self.responses.values()) >= MOST_ASIDE:
            raise Refusal(400, "too many responses are under way: wait for one.", "too_many_responses")
        config = updated(self.config, as_session(asked), "response", self.calls)
        items = self.conversation.items if asked.get("input") is None else self._items(asked["input"])
        question = question_of(items, config.instructions, self.limits.history_chars, asked.get("instructions") or "")
        metadata = metadata_of(asked) | ({"dropped_turns": str(question.dropped)} if question.dropped else {})
        most, form, voice = config.most_tokens, config.audio.output.format.form, config.audio.output.voice
        item = Item(self._id("item"), "assistant", spoken=not config.text_only, status="in_progress")
        earlier = [one for one in question.earlier if one.sound is not None and one.heard is None]
        response = Response(self._id("resp"), item, form, voice, config.text_only, most, question.item, earlier)
        response.metadata = metadata or None
        if not aside:
            response.conversation, response.conversation_id = self.conversation, f"conv_{self.key}"
        ask = ask_of(question, config)
        response.read_words, response.heard_frames = size_of(ask)
        self.responses[response.id] = response
        self._unhear(question.item if question.typed is None else None)
        self._hear(*earlier)
        self._send("response.created", response=response.shown())
        self.out.append(Answer(response.id, ask, form, question.earlier, question.item))

    def _items(self, given: Any) -> list[Item]:
        """Return the items of `response.input`, which replace the conversation."""
        if not isinstance(given, list):
            raise Refusal(400, "response.input is no list of items.", "invalid_value", "response.input")
        return [self._item(one, refers=True) for one in given]

    def _item(self, given: Any, refers: bool = False) -> Item:
        if refers and isinstance(given, dict):
            if given.get("type") == "item_reference":
                return self.conversation.get(given.get("id"))
            given = given | {"id": None}  # nobody sees it again, and one in the conversation may have it
        return item_of(given, self._id("item"), self.sound.form, self.calls, self.limits.question_seconds)

    def _commit(self, item_id: str, size: int) -> None:
        """Make the first `size` bytes of the buffer the user's item."""
        self.turn_id = None
        ms = ms_of(size, self.sound.form)
        if ms < SHORTEST_MS:
            message = f"the buffer holds {ms:.0f} ms of sound: commit at least {SHORTEST_MS:.0f}."
            raise Refusal(400, message, "input_audio_buffer_commit_empty")
        self.conversation.check_room()
        item = Item(item_id, "user", sound=self.sound.take(size), form=self.sound.form, spoken=True, seconds=ms / 1000)
        before = self._add(item)
        self._send("input_audio_buffer.committed", previous_item_id=before, item_id=item.id)
        self._announce(item, before)

    def _add(self, item: Item, after: str | None = None) -> str | None:
        """Add an item and return the id before it; all recordings are transcribed, and only the last is kept."""
        self.conversation.check_room()
        before = self.conversation.add(item, after)
        if item.sound is not None:
            self._hear(*self.conversation.items)
            self.conversation.forget_sounds()
        return before

    def _announce(self, item: Item, before: str | None) -> None:
        for kind in ("added", "done"):
            self._send(f"conversation.item.{kind}", previous_item_id=before, item=item.shown())

    def _hear(self, *items: Item) -> None:
        """Order a transcript of each once, for the history; an answer to the item, which brings one, cancels the order."""
        for item in items:
            if item.sound is not None and item.heard is None and item.id not in self.hearing:
                self.hearing[item.id] = item
                ask = Ask(samples_of(item.sound, item.form), rate_of(item.form), hear_only=True)
                self.out.append(Hear(item.id, ask))

    def _overhear(self) -> None:
        """Order that the unfinished turn is processed ahead, once enough of it is new."""
        silent = self.turn_id is None and self.config.audio.input.turn_detection is not None
        if silent or self._active() or not self.sound.is_due():
            return
        item = Item("", "user", sound=bytes(self.sound.data), form=self.sound.form, spoken=True)
        question = question_of([*self.conversation.items, item], self.config.instructions, self.limits.history_chars)
        self.out.append(Overhear(replace(ask_of(question, self.config), so_far=True)))

    def _unhear(self, item: Item | None) -> None:
        """Cancel the order for a transcript: the answer brings one."""
        if item is not None and self.hearing.pop(item.id, None):
            self.out.append(Stop(item.id))

    def _transcribed(self, item: Item | None, text: str) -> None:
        """Store a transcript once, and send it to a client that asked for transcription."""
        if item is None or not item.spoken or item.heard is not None:
            return
        item.heard = text.strip()
        self.hearing.pop(item.id, None)
        if self.config.audio.input.transcription is not None and item in self.conversation.items:
            usage = {"type": "duration", "seconds": round(item.seconds, 3)}
            name = "conversation.item.input_audio_transcription.completed"
            self._send(name, item_id=item.id, content_index=0, transcript=item.heard, usage=usage)

    def _not_written(self, item: Item | None, refusal: Refusal) -> None:
        if item is None or item not in self.conversation.items:
            return
        self.hearing[item.id] = item
        if self.config.audio.input.transcription is not None:
            name = "conversation.item.input_audio_transcription.failed"
            self._send(name, item_id=item.id, content_index=0, error=refusal.told())

    def _cancel(self, response: Response | None, reason: str) -> None:
        if response is not None:
            self.out.append(Stop(response.id))
            self._end(response, "cancelled", {"type": "cancelled", "reason": reason})

    def _stop_saying(self, item: Item) -> None:
        """Cancel the answer that an item is part of, if it is under way."""
        self._cancel(next((one for one in self.responses.values() if one.item is item), None), "client_cancelled")

    def _end(self, response: Response, status: str, details: dict[str, Any] | None) -> None:
        del self.responses[response.id]
        self._forward(response.done(status, details))
        for one in (*response.earlier, *filter(None, [response.asked])):
            (self._hear if one in self.conversation.items else self._unhear)(one)
        if self.answer_next and self._active() is None:
            self.answer_next = False
            self._respond({})

    def _active(self) -> Response | None:
        """Return the answer under way in the conversation."""
        return next((one for one in self.responses.values() if one.conversation is not None), None)

    def _listen(self) -> None:
        self.out.append(Listen(self.config.audio.input.turn_detection, self.sound.form, self.sound.end_ms))

    def _id(self, kind: str) -> str:
        self.count += 1
        return f"{kind}_{self.key}{self.count:05}"

    def _send(self, kind: str, **fields: Any) -> None:
        self._forward([{"type": kind, **fields}])

    def _forward(self, events: list[Event]) -> None:
        self.out += [{"type": event["type"], "event_id": self._id("event"), **event} for event in events]

    def _taken(self, do: Callable[[], Any], event: Event | None = None) -> list[Out]:
        """Call `do` and return the events and orders it made; a Refusal becomes an error event."""
        try:
            do()
        except Refusal as refusal:
            return self.refuse(refusal, event)
        out, self.out = self.out, []
        return out


CLIENT: dict[str, Callable[[Session, Event], None]] = {
    "session.update": Session._update,
    "input_audio_buffer.commit": Session._client_commit,
    "input_audio_buffer.clear": Session._clear,
    "conversation.item.create": Session._create_item,
    "conversation.item.retrieve": Session._retrieve,
    "conversation.item.delete": Session._delete,
    "conversation.item.truncate": Session._truncate,
    "response.create": Session._create_response,
    "response.cancel": Session._cancel_response,
}
