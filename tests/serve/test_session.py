"""The session as a value: random interleavings of everything that can happen to it, and what must hold throughout."""

import base64
import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.realtime import RealtimeServerEvent
from serve_players import classes

from echox.serve import beta
from echox.serve.conversation import Item, fitting
from echox.serve.orders import Answer, Hear, Listen, Overhear, Stop
from echox.serve.refusals import Refusal
from echox.serve.session import CLIENT, MOST_ASIDE, SLACK_MS, Session
from echox.serve.settings import Limits

KINDS = [*CLIENT, "unknown"]
FIELDS = (
    "session response item item_id content_index audio_end_ms response_id previous_item_id event_id type role content id text "
    "audio input output format turn_detection transcription instructions output_modalities modalities metadata tools "
    "input_audio_format voice max_output_tokens conversation call_id arguments name tool_choice"
).split()
KNOWN = classes(RealtimeServerEvent)
LIMITS = Limits(question_seconds=2.0, history_chars=40)
MS = 48  # bytes of a millisecond

VADS = [
    None,
    {"type": "server_vad"},
    {"type": "server_vad", "interrupt_response": False},
    {"type": "server_vad", "create_response": False, "prefix_padding_ms": 0},
]
small = st.integers(0, 5)
ops = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 900)),
    st.tuples(st.just("started"), st.integers(0, 400)),
    st.tuples(st.just("stopped"), st.integers(0, 400)),
    st.tuples(st.just("ask")),
    st.tuples(st.just("turn")),
    st.tuples(st.just("cancel")),
    st.tuples(st.sampled_from(["commit", "clear", "create", "aside"])),
    st.tuples(st.sampled_from(["said", "spoke"]), small),
    st.tuples(st.just("truncate"), small, st.integers(-10, 1200)),
    st.tuples(st.sampled_from(["delete", "retrieve", "say"]), small),
    st.tuples(st.just("turns"), st.sampled_from(VADS)),
    st.tuples(st.just("form"), st.sampled_from(["audio/pcm", "audio/pcmu"])),
    st.tuples(st.just("transcripts"), st.booleans()),
    st.tuples(st.sampled_from(["heard", "said", "spoke", "failed", "transcribed"]), small),
    st.tuples(st.sampled_from(["call", "return"]), small),
    st.tuples(st.just("ended"), small, st.sampled_from(["stop", "length", "unheard", "empty"])),
)


def pick(values, place):
    values = list(values)
    return values[place % len(values)] if values else "nothing"


def apply(session, op):
    """Do one thing to a session and return what follows."""
    name, *given_ = op
    place = given_[0] if given_ else 0
    if name == "append":
        return session.append(bytes(place * MS))
    if name in ("started", "stopped"):
        at = max(0.0, session.sound.end_ms - place)
        return session.speech_started(at) if name == "started" else session.speech_stopped(at)
    if name in ("heard", "said", "spoke", "failed", "ended"):
        response_id = pick(session.responses, place)
        extra = {
            "heard": ("what",),
            "said": (" word",),
            "spoke": ("AAAA", 200.0, 2),
            "failed": (Refusal(400, "no.", "x"),),
            "ended": tuple(given_[1:]),
        }[name]
        return getattr(session, name)(response_id, *extra)
    if name == "call":
        return session.called(pick(session.responses, place), "weather", "{}")
    if name == "transcribed":
        return session.transcribed(pick(sorted(session.hearing), place), "text")
    if name == "ask":  # a typed question and the beginning of its answer
        return [out for one in (("say", 1), ("create",), ("said", 0), ("spoke", 0)) for out in apply(session, one)]
    if name == "turn":  # a spoken one
        return [out for one in (("append", 500), ("started", 400), ("stopped", 0)) for out in apply(session, one)]
    place_ = place if isinstance(place, int) else 0
    item_id = pick([item.id for item in session.conversation.items], place_)
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi there"}]}
    sound = {"turns": {"turn_detection": place}, "form": {"format": {"type": place}}}
    sound["transcripts"] = {"transcription": {"model": "x"} if place else None}
    call_id = pick([item.call_id for item in session.conversation.items if item.role == "call"], place_)
    output = {"type": "function_call_output", "call_id": call_id, "output": "warm"}
    events = {
        "return": {"type": "conversation.item.create", "item": output},
        "commit": {"type": "input_audio_buffer.commit"},
        "clear": {"type": "input_audio_buffer.clear"},
        "create": {"type": "response.create"},
        "aside": {"type": "response.create", "response": {"conversation": "none", "input": [message]}},
        "cancel": {"type": "response.cancel"},
        "truncate": {
            "type": "conversation.item.truncate",
            "item_id": item_id,
            "audio_end_ms": given_[-1] if given_ else 0,
        },
        "delete": {"type": "conversation.item.delete", "item_id": item_id},
        "retrieve": {"type": "conversation.item.retrieve", "item_id": item_id},
        "say": {"type": "conversation.item.create", "item": message, "previous_item_id": None if place else item_id},
        **dict.fromkeys(sound, {"type": "session.update", "session": {"audio": {"input": sound.get(name)}}}),
    }
    return session.client(events[name])


class Watched:
    """What a careful client knows from the events alone."""

    def __init__(self):
        self.ids, self.items, self.under_way, self.open, self.written = set(), [], {}, {}, set()

    def see(self, out):
        if not isinstance(out, dict):
            return
        KNOWN[out["type"]].model_validate(out, strict=True)
        assert out["event_id"] not in self.ids
        self.ids.add(out["event_id"])
        kind, response_id = out["type"], out.get("response_id")
        if kind == "conversation.item.added":
            before = out["previous_item_id"]
            self.items.insert(self.items.index(before) + 1 if before else 0, out["item"]["id"])
        elif kind == "conversation.item.deleted":
            self.items.remove(out["item_id"])
        elif kind.endswith("transcription.completed"):
            assert out["item_id"] in self.items and out["item_id"] not in self.written
            self.written.add(out["item_id"])
        elif kind == "response.created":
            response = out["response"]
            assert not (response["conversation_id"] and any(self.under_way.values())), "two answers at once"
            self.under_way[response["id"]] = response["conversation_id"]
        elif kind == "response.done":
            del self.under_way[out["response"]["id"]]
            assert not self.open.pop(out["response"]["id"], None), "something was left open"
            assert out["response"]["status"] != "in_progress" and out["response"]["usage"]
        elif kind == "response.output_item.added":
            assert response_id in self.under_way and not self.open.get(response_id)
            self.open[response_id] = ["item"]
        elif kind == "response.content_part.added":
            assert self.open[response_id] == ["item"]
            self.open[response_id].append("part")
        elif kind.endswith(".delta") and response_id:
            assert self.open[response_id] == (["item"] if "call_id" in out else ["item", "part"]) and out["delta"]
        elif kind == "response.content_part.done":
            assert self.open[response_id].pop() == "part"
        elif kind == "response.output_item.done":
            assert self.open[response_id].pop() == "item"


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ops, min_size=20, max_size=50), st.integers(0, 50))
def test_any_interleaving_keeps_the_order_of_events(script, fork):
    session, watched, twin = Session("k", "fake", LIMITS, calls=True), Watched(), None
    appended, answers = 0, set()
    for out in session.start() + apply(session, ("transcripts", True)):
        watched.see(out)
    for number, op in enumerate(script):
        if number == fork:
            twin = copy.deepcopy(session)
        outs = apply(session, op)
        if twin is not None:
            theirs = apply(twin, op)
            assert [out for out in theirs if isinstance(out, dict)] == [out for out in outs if isinstance(out, dict)]
        for out in outs:
            watched.see(out)
            if isinstance(out, Answer):
                answers.add(out.response_id)
            elif isinstance(out, Stop):
                answers.discard(out.id)
        appended += op[1] if op[0] == "append" else 500 if op[0] == "turn" else 0
        assert watched.items == [item.id for item in session.conversation.items]
        assert set(watched.under_way) == set(session.responses) <= answers
        assert set(session.hearing) <= set(watched.items)
        assert session.out == [] and session.sound.end_ms <= appended * 6 + 1
        held = session.sound.end_ms - session.sound.start_ms
        assert held <= 2000 * (6 if session.sound.form == "pcmu" else 1) + 1
        if session.config.audio.input.turn_detection is not None and session.turn_id is None and op[0] == "append":
            assert held <= session.config.audio.input.turn_detection.prefix_padding_ms + SLACK_MS + 900 * 6
        for item in session.conversation.items:
            assert item.status != "in_progress" or any(one.item is item for one in session.responses.values())
        sounds = [item for item in session.conversation.items if item.sound is not None]
        assert len(sounds) <= 1


def session_with(*script):
    session = Session("k", "fake", LIMITS)
    session.start()
    outs = [apply(session, op) for op in script]
    return session, outs[-1]


def test_a_turn_that_grows_too_long_ends_by_itself():
    session, outs = session_with(("append", 500), ("started", 100), ("append", 900), ("append", 900))
    assert [out["type"] for out in outs if isinstance(out, dict)][:2] == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
    ]
    assert session.conversation.items[0].seconds == 2.0
    assert isinstance(outs[-1], Listen) and outs[-1].at_ms == 1400  # for what is still being said, from that sound on


def test_a_turn_begins_with_its_padding_and_only_that():
    session, _ = session_with(("append", 900), ("started", 200))
    assert session.sound.start_ms == 400 and len(session.sound.data) == 500 * MS


def test_a_turn_during_an_answer_that_may_not_be_interrupted_is_answered_after_it():
    session, outs = session_with(
        ("turns", VADS[2]), ("append", 500), ("started", 400), ("stopped", 0),
        ("append", 500), ("started", 400), ("stopped", 0),
    )  # fmt: skip
    assert not any(isinstance(out, Answer) for out in outs) and len(session.responses) == 1
    outs = apply(session, ("ended", 0, "stop"))
    assert [type(out) for out in outs if not isinstance(out, dict)] == [Stop, Answer]  # it brings the words


def heard_by(outs):
    """Return whose words were ordered and not taken back."""
    orders = [
        (type(out), out.item_id if isinstance(out, Hear) else out.id) for out in outs if type(out) in (Hear, Stop)
    ]
    return {name for kind, name in orders if kind is Hear} - {name for kind, name in orders if kind is Stop}


TURN = ("append", 500), ("started", 400), ("stopped", 0)


def test_two_turns_during_an_answer_are_both_heard():
    session, _ = session_with(("transcripts", True), ("turns", VADS[2]), *TURN)
    outs = [out for op in (*TURN, *TURN) for out in apply(session, op)]
    first, second = (item.id for item in session.conversation.items[1:])
    assert {first, second} <= heard_by(outs)
    outs = session.transcribed(first, "before") + apply(session, ("heard", 0)) + apply(session, ("ended", 0, "stop"))
    answer = next(out for out in outs if isinstance(out, Answer))
    assert [text for _, text in answer.ask.history] == ["what", "before"]


def test_a_question_whose_answer_breaks_off_before_it_was_heard_is_heard():
    failed, empty = ("failed", 0), ("append", 500)
    for end in ((failed,), (empty, ("started", 100)), (("cancel",),)):
        session, _ = session_with(("transcripts", True), *TURN)
        question = session.conversation.items[0].id
        assert question in heard_by([out for op in end for out in apply(session, op)]), end
    outs = session.not_transcribed(question, Refusal(400, "no.", "x"))
    assert outs[-1]["type"].endswith("transcription.failed")
    assert question not in heard_by([out for op in TURN for out in apply(session, op)])  # it is tried once


def test_what_is_committed_twice_before_an_answer_is_heard():
    session, _ = session_with(("turns", None), ("append", 500), ("commit",), ("append", 400), ("commit",))
    first, second = session.conversation.items
    assert set(session.hearing) == {first.id, second.id} and first.sound is None
    outs = apply(session, ("create",))
    assert set(session.hearing) == {first.id} and any(isinstance(out, Answer) for out in outs)
    for op in (("append", 400), ("commit",)):
        apply(session, op)  # orders the second again, whose answer is under way
    outs = session.heard(next(iter(session.responses)), "Why?")
    assert second.heard == "Why?" and [out.id for out in outs if isinstance(out, Stop)] == [second.id]


def recording(seconds, **more):
    part = {"type": "input_audio", "audio": base64.b64encode(bytes(int(48_000 * seconds))).decode()}
    item = {"type": "message", "role": "user", "content": [part, *more.pop("parts", [])]}
    return {"type": "conversation.item.create", "item": item | more}


def test_recordings_that_are_given_are_short_and_only_the_last_is_kept():
    session, _ = session_with(("turns", None))
    for _ in range(3):
        session.client(recording(1))
    assert [item.sound is not None for item in session.conversation.items] == [False, False, True]
    assert len(session.hearing) == 3
    session.client(recording(1, id="first") | {"previous_item_id": "root"})
    assert [item.sound is not None for item in session.conversation.items] == [False, False, False, True]
    text = {"type": "input_text", "text": "x" * 20_001}
    for event, code in (
        (recording(2.1), "string_above_max_length"),
        (recording(1, parts=[text]), "invalid_value"),
        (recording(1, content=[text]), "string_above_max_length"),
        ({"type": "response.create", "response": {"input": [recording(2.1)["item"]]}}, "string_above_max_length"),
    ):
        (out,) = session.client(event)
        assert out["type"] == "error" and out["error"]["code"] == code, out
    assert len(session.conversation.items) == 4


def test_no_failed_transcript_is_told_of_what_is_not_in_the_conversation():
    session, _ = session_with(("turns", None), ("transcripts", True))
    aside = {"conversation": "none", "input": [recording(1)["item"]]}
    outs = session.client({"type": "response.create", "response": aside}) + apply(session, ("ended", 0, "stop"))
    assert outs[-1]["type"] == "response.done"
    assert not [out for out in outs if isinstance(out, dict) and "transcription" in out["type"]]


@pytest.mark.parametrize("end", [("ended", 0, "stop"), ("cancel",)])
def test_recordings_before_the_question_of_an_input_are_heard_while_it_is_answered(end):
    session, _ = session_with(("turns", None), ("transcripts", True))
    session.client(recording(1, id="mine"))
    given = [recording(1, id="mine")["item"], recording(0.5)["item"], recording(2)["item"]]
    outs = session.client({"type": "response.create", "response": {"input": given}})
    answer = next(out for out in outs if isinstance(out, Answer))
    first, second = heard_by(outs)
    assert {first, second} == {one.id for one in answer.earlier} and "mine" not in (first, second)
    assert session.transcribed(first, "before") == [] and session.conversation.items[0].heard is None
    assert [one.words() for one in answer.earlier if one.id == first] == ["before"]
    outs = apply(session, end)
    assert second in {out.id for out in outs if isinstance(out, Stop)} and set(session.hearing) == {"mine"}


def test_a_recording_of_an_input_that_could_not_be_written_down_needs_no_stop():
    session, _ = session_with(("turns", None))
    given = [recording(0.5)["item"], recording(1)["item"]]
    outs = session.client({"type": "response.create", "response": {"input": given}})
    (first,) = heard_by(outs)
    assert session.not_transcribed(first, Refusal(400, "no.", "x")) == [] and not session.hearing
    assert not [out for out in apply(session, ("ended", 0, "stop")) if isinstance(out, Stop)]


def test_an_input_that_is_null_is_none():
    session, _ = session_with(("say", 1))
    outs = session.client({"type": "response.create", "response": {"input": None}})
    assert [out.ask.typed for out in outs if isinstance(out, Answer)] == ["Hi there"]


def refused(session, kind, /, **fields):
    out = session.client({"type": kind, **fields})[-1]
    return (out["error"]["code"], out["error"]["param"]) if out["type"] == "error" else None


def test_what_cannot_be_is_refused_by_name(monkeypatch):
    monkeypatch.setattr("echox.serve.conversation.MOST_ITEMS", 4)
    session, _ = session_with(("ask",))
    user, answer = (item.id for item in session.conversation.items)
    create, truncate, message = "conversation.item.create", "conversation.item.truncate", recording(1, id="new")["item"]
    for ms in (-1, 202, True, None, 1.5):  # 200 ms were said
        assert refused(session, truncate, item_id=answer, audio_end_ms=ms) == ("invalid_value", "audio_end_ms")
    assert refused(session, truncate, item_id=answer, audio_end_ms=201) is None
    assert refused(session, create, item=message | {"id": user}) == ("invalid_value", "item.id")
    assert refused(session, create, item=message, previous_item_id="no") == ("item_not_found", "item_id")
    typed = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Yes."}]}
    given = [message | {"id": "heard"}, typed | {"id": "read"}, typed]
    assert [refused(session, create, item=item) for item in given] == [None, None, ("conversation_full", None)]
    for item_id in (user, "heard", "read"):
        assert refused(session, truncate, item_id=item_id, audio_end_ms=0) == ("invalid_value", "item_id")
    for asked, param in (([1], "response"), ({"conversation": "none", "input": {}}, "response.input")):
        assert refused(session, "response.create", response=asked) == ("invalid_value", param)


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        (
            {"turn_detection": {"type": "server_vad"}},
            "unknown_parameter",
            "turn_detection",
        ),  # the older protocol's place of it
        ({"audio": {"output": {"voices": "x"}}}, "unknown_parameter", "audio.output.voices"),
        (
            {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": []}}}},
            "invalid_value",
            "audio.input.turn_detection",
        ),
        (
            {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "very"}}}},
            "invalid_value",
            "audio.input.turn_detection",
        ),
        ({"prompt": {"id": "pmpt_1"}}, "unsupported_value", "prompt"),
        ({"include": ["item.input_audio_transcription.logprobs"]}, "unsupported_value", "include"),
        ({"truncation": "disabled"}, "invalid_value", "truncation"),
        ({"parallel_tool_calls": False}, "invalid_value", "parallel_tool_calls"),
        ({"model": "another"}, "cannot_update_model", "model"),
    ],
)
def test_nothing_that_is_asked_for_is_left_out_in_silence(change, code, param):
    session, _ = session_with(("say", 1))
    before = session.config
    assert refused(session, "session.update", session={"type": "realtime", **change}) == (code, f"session.{param}")
    assert refused(session, "response.create", response=change) == (code, f"response.{param}")
    assert session.config == before and not session.responses


def test_what_changes_nothing_is_taken_as_clients_send_it():
    session, _ = session_with(("say", 1))
    nothing = dict.fromkeys(("prompt", "include", "tracing", "model", "reasoning"))
    sent = {"type": "realtime", "truncation": "auto", **nothing, "audio": {"input": {"noise_reduction": None}}}
    shown = session.client({"type": "session.update", "session": sent})[-1]["session"]
    named = session.client({"type": "session.update", "session": {"tracing": "auto", "model": shown["model"]}})[-1][
        "session"
    ]
    assert named == shown and shown["model"] == session.config.model and shown["tracing"] is None
    back = session.client({"type": "session.update", "session": shown})[-1][
        "session"
    ]  # with what the server alone tells
    assert back == shown
    semantic = {"type": "semantic_vad", "eagerness": "low", "interrupt_response": False}
    heard = {"noise_reduction": {"type": "far_field"}, "turn_detection": semantic}
    heard = session.client({"type": "session.update", "session": {"audio": {"input": heard}}})[-1]["session"]["audio"][
        "input"
    ]
    turns = heard["turn_detection"]
    assert heard["noise_reduction"] is None and not turns["interrupt_response"] and turns["create_response"]
    assert (turns["type"], turns["silence_duration_ms"]) == ("server_vad", 1000)
    voiced = {"audio": {"output": {"voice": {"id": "mine"}}}}
    begun = session.client({"type": "response.create", "response": voiced | {"conversation": "none"}})[0]["response"]
    assert begun["audio"]["output"]["voice"] == "mine"  # the client's class holds a name
    for asked in ({"modalities": ["text"]}, {"conversation": "conv_1"}):
        assert refused(session, "response.create", response=asked)[1] == f"response.{next(iter(asked))}"


def test_what_the_system_says_is_short_or_nobody_else_would_be_answered(monkeypatch):
    monkeypatch.setattr("echox.serve.session_config.MOST_CHARS", 20)
    session, _ = session_with(("say", 1))
    part = {"type": "input_text", "text": "Be brief and kind."}
    told = {"type": "message", "role": "system", "content": [part]}
    assert refused(session, "conversation.item.create", item=told) is None
    assert refused(session, "response.create", response={"instructions": "Now."}) == (
        "string_above_max_length",
        "instructions",
    )
    calling, tool = Session("k", "fake", LIMITS, calls=True), {"type": "function", "name": "a_longer_name"}
    told = ("string_above_max_length", "session.tools")
    assert refused(calling, "session.update", session={"type": "realtime", "tools": [tool]}) == told


LONG = "x" * 600


def tool_with(parameters):
    return {"tools": [{"type": "function", "name": "f", "parameters": parameters}]}


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"audio": {"output": {"voice": LONG}}}, ("string_above_max_length", "session.audio.output.voice")),
        (
            {"audio": {"input": {"transcription": {"model": LONG}}}},
            ("string_above_max_length", "session.audio.input.transcription.model"),
        ),
        (tool_with({"x": float("inf")}), ("invalid_value", "session.tools")),
        (tool_with({"x": "\ud800"}), ("invalid_value", "session.tools")),
    ],
)
def test_what_is_only_shown_again_is_short_and_can_be_shown(change, refusal):
    session = Session("k", "fake", LIMITS, calls=True)
    assert refused(session, "session.update", session={"type": "realtime", **change}) == refusal
    assert session.config == Session("k", "fake", LIMITS).config


def test_of_an_event_only_what_is_short_is_quoted():
    session, _ = session_with(("say", 1))
    quoted = [session.client({"type": "x", "event_id": name})[-1]["error"]["event_id"] for name in ("mine", LONG)]
    assert quoted == ["mine", None]
    for metadata in ({"a": LONG}, {LONG: "a"}, {"a": 1}, [1], {str(number): "" for number in range(17)}):
        asked = {"conversation": "none", "metadata": metadata}
        assert refused(session, "response.create", response=asked) == ("invalid_value", "response.metadata")


def test_of_transcripts_and_traces_only_what_is_done_is_kept():
    session, deep = session_with(("say", 1))[0], {}
    for _ in range(970):
        deep = {"x": deep}
    for _ in range(2):
        sent = {"tracing": deep, "audio": {"input": {"transcription": {"model": "any", "prompt": deep}}}}
        shown = session.client({"type": "session.update", "session": sent})[-1]["session"]
    assert shown["audio"]["input"]["transcription"] == {"model": "any"} and shown["tracing"] is None


def test_half_a_character_is_refused_before_a_model_reads_it():
    session, half = Session("k", "fake", LIMITS, calls=True), "a \ud800 b"
    for role, kind in (("user", "input_text"), ("assistant", "output_text"), ("system", "input_text")):
        item = {"type": "message", "role": role, "content": [{"type": kind, "text": half}]}
        assert refused(session, "conversation.item.create", item=item) == ("invalid_value", "item.content")
    call = {"type": "function_call", "name": "f", "call_id": "c", "arguments": '{"x": "\\ud800"}'}
    assert refused(session, "conversation.item.create", item=call) == ("invalid_value", "item.arguments")


def test_the_same_format_in_other_words_keeps_the_sound():
    session, _ = session_with(("append", 500), ("started", 400))
    same = {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 24_000}}}}
    session.client({"type": "session.update", "session": same})
    assert session.turn_id is not None and len(session.sound.data) == 500 * MS


def test_an_answer_beside_does_not_take_the_place_of_the_one_that_waits():
    session, _ = session_with(("turns", VADS[2]), *TURN, *TURN)
    first = next(iter(session.responses))
    apply(session, ("aside",))
    assert [out.ask.question is None for out in session.ended(first, "stop") if isinstance(out, Answer)] == [False]


def test_an_answer_that_waits_for_what_was_deleted_is_given_up_once():
    session, _ = session_with(("turns", VADS[2]), *TURN, ("aside",), *TURN)
    for item in list(session.conversation.items):
        session.client({"type": "conversation.item.delete", "item_id": item.id})
    talk, aside = session.responses
    errors = [[out["type"] for out in session.ended(name, "stop")].count("error") for name in (talk, aside)]
    assert errors == [1, 0]


@pytest.mark.parametrize("script", [(), (("ask",),)])
def test_beside_the_conversation_so_many_answers_are_made_at_once(script):
    session, _ = session_with(("append", 1), *script)
    aside = [apply(session, ("aside",))[-1] for _ in range(MOST_ASIDE + 1)]
    assert [isinstance(out, Answer) for out in aside] == [True] * MOST_ASIDE + [False]
    assert aside[-1]["error"]["code"] == "too_many_responses"


def test_barge_in_stops_the_answer_and_says_why():
    session, _ = session_with(("append", 500), ("started", 400), ("stopped", 0), ("said", 0), ("spoke", 0))
    outs = apply(session, ("append", 500)) + apply(session, ("started", 100))
    assert any(isinstance(out, Stop) for out in outs) and not session.responses
    done = next(out for out in outs if isinstance(out, dict) and out["type"] == "response.done")
    assert done["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert session.conversation.items[-1].status == "incomplete"


def test_a_transcript_is_ordered_only_where_no_answer_brings_it():
    script = [("turns", None), ("transcripts", True), ("append", 500), ("commit",)]
    session, outs = session_with(*script)
    assert Hear in map(type, outs)
    outs = apply(session, ("create",))
    assert [type(out) for out in outs if not isinstance(out, dict)] == [Stop, Answer]


def test_a_turn_is_listened_to_as_it_grows_and_nothing_else_is():
    def overheard(outs):
        return [len(out.ask.question) for out in outs if isinstance(out, Overhear) and out.ask.so_far]

    session, outs = session_with(("turns", None), ("say", 1), ("append", 300))
    assert overheard(outs) == []
    assert overheard(apply(session, ("append", 200))) == [500 * 24]
    assert overheard(apply(session, ("append", 300))) == []
    again = apply(session, ("append", 100))
    assert overheard(again) == [900 * 24] and again[0].ask.history == (("user", "Hi there"),)
    apply(session, ("commit",))
    assert overheard(apply(session, ("append", 400))) == [400 * 24]  # the next turn
    apply(session, ("create",))
    assert overheard(apply(session, ("append", 900))) == []  # while it answers
    session, outs = session_with(("append", 900))
    assert overheard(outs) == []  # nobody speaks
    apply(session, ("started", 200))
    assert overheard(apply(session, ("append", 100))) == [600 * 24]


@pytest.mark.parametrize(
    ("ms", "text"), [(0, ""), (400, "One two"), (399, "One"), (700, "One two three"), (800, "One two three four")]
)
def test_what_was_heard_is_cut_at_words_by_the_sound_of_their_segment(ms, text):
    item = Item("i", "assistant", "One two three four", spoken=True, marks=[(7, 400.0), (18, 800.0)], spoken_ms=800.0)
    item.cut(ms)
    assert item.text == text and item.spoken_ms == ms


def test_a_greeting_is_kept_until_it_is_too_long_ago():
    turns = [("assistant", "Hello."), ("user", "Hi"), ("assistant", "Yes?")]
    assert fitting(turns, 40) == (tuple(turns), 0) and fitting(turns, 8) == (tuple(turns[1:]), 1)


turns_of = st.lists(
    st.tuples(st.sampled_from(["user", "assistant"]), st.sampled_from(["", "a", "bb", "c" * 9])), max_size=9
)


@given(turns_of, st.integers(0, 40))
def test_turns_fit_and_begin_with_the_user(turns, most):
    kept, dropped = fitting(turns, most)
    assert list(kept) == turns[dropped:] and sum(len(text) for _, text in kept) <= most
    assert not kept or kept[0][0] == "user" or not dropped and kept[0][0] == "assistant"
    longer = turns[dropped - 1 :] if dropped else []
    assert not dropped or sum(len(text) for _, text in longer) > most or longer[0][0] != "user"


garbage = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "x", "\ud800", "audio", "user"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), garbage, max_size=4)), max_size=4
    )
)
def test_garbage_in_any_field_is_an_error_event_in_both_dialects(events):
    for translate in (lambda event: event, beta.inbound):
        session, watched = Session("k", "fake", LIMITS, calls=True), Watched()
        outs = session.start()
        for kind, fields in events:
            event = {**fields, "type": kind}
            try:
                outs += session.client(translate(event))
            except Refusal as refusal:
                outs += session.refuse(refusal, event)
        for out in outs:
            watched.see(out)
            if isinstance(out, dict):
                assert json.dumps(out)
                assert all(json.dumps(old) for old in beta.outbound(out))
