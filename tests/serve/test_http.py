import base64
import io
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request

import av
import numpy as np
import openai
import pytest
import soundfile
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from serve_players import Calling, Deaf, Failing, Held, Remembering, Unhearing
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from echox.audio import load_audio
from echox.generate.fake import FakeAssistant
from echox.serve.settings import Limits


def wav(seconds=1.0, level=0.3, rate=16_000):
    held = io.BytesIO()
    tone = level * np.sin(2 * np.pi * 300 * np.arange(int(seconds * rate)) / rate)
    soundfile.write(held, tone, rate, format="WAV", subtype="PCM_16")
    return held.getvalue()


def spoken(data=None, text=None):
    sound = {"data": base64.b64encode(data or wav()).decode(), "format": "wav"}
    parts = [{"type": "text", "text": text}] if text else []
    return [{"role": "user", "content": [*parts, {"type": "input_audio", "input_audio": sound}]}]


AUDIO = {"model": "fake", "modalities": ["text", "audio"], "audio": {"voice": "default", "format": "wav"}}
STREAM = AUDIO | {"audio": {"voice": "default", "format": "pcm16"}}
ANSWER = "You asked about 1.0 seconds."
IMAGE = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:"}}]


def pcm_of(data):
    return np.frombuffer(base64.b64decode(data), "<i2")


def test_models(server):
    client = server.client()
    listed = list(client.models.list())
    assert [Model.model_validate(one.model_dump(), strict=True).id for one in listed] == ["fake"]
    assert client.models.retrieve("fake").owned_by == "echox"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other/model")
    assert caught.value.code == "model_not_found" and "choose fake" in caught.value.message


def test_chat_in_text(server):
    reply = server.client().chat.completions.create(model="fake", messages=[{"role": "user", "content": "tea"}])
    ChatCompletion.model_validate(reply.to_dict(), strict=True)
    assert reply.choices[0].message.content == "You asked about tea." and reply.choices[0].message.audio is None
    assert reply.usage.completion_tokens_details.audio_tokens == 0


def test_chat_in_sound(server):
    reply = server.client().chat.completions.create(messages=spoken(), **AUDIO)
    ChatCompletion.model_validate(reply.to_dict(), strict=True)
    message = reply.choices[0].message
    assert message.content is None and message.audio.transcript == ANSWER
    sound = load_audio(base64.b64decode(message.audio.data), 16_000)
    wanted = FakeAssistant().ask(load_audio(wav())).audio
    assert len(sound) == len(wanted) and np.abs(sound - wanted).max() < 0.05
    assert reply.usage.prompt_tokens_details.audio_tokens == 50


def test_the_clients_accumulator_joins_the_stream_to_the_same_answer(server):
    client = server.client()
    asked = {"messages": spoken(), "stream_options": {"include_usage": True}, **STREAM}
    with client.chat.completions.stream(**asked) as stream:
        joined = [event for event in stream][-1] and stream.get_final_completion()
    whole = client.chat.completions.create(messages=spoken(), **STREAM)
    ours, theirs = joined.choices[0].message.audio, whole.choices[0].message.audio
    assert ours.transcript == theirs.transcript and joined.usage == whole.usage
    assert np.array_equal(pcm_of(ours.data), pcm_of(theirs.data))
    follow_up = [*spoken(), {"role": "assistant", "audio": {"id": ours.id}}, *spoken()]
    assert client.chat.completions.create(messages=follow_up, **AUDIO).choices[0].message.audio.transcript == ANSWER
    assert abs(ours.expires_at - theirs.expires_at) < 30


def test_the_order_of_a_stream(server):
    body = json.dumps({"messages": spoken(), "stream": True, **STREAM}).encode()
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions", body, {"Content-Type": "application/json", "Authorization": "Bearer k"}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["X-Accel-Buffering"] == "no" and answer.headers["Cache-Control"] == "no-cache"
        lines = [line[6:].decode() for line in answer.read().split(b"\n\n") if line]
    assert lines.pop() == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate_json(line, strict=True) for line in lines]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    assert deltas[0] == {"role": "assistant", "content": None, "refusal": None} and deltas[-1] == {}
    assert chunks[-1].choices[0].finish_reason == "stop"
    keys = [next(iter(delta["audio"])) for delta in deltas[1:-1]]
    assert keys.index("transcript") < keys.index("data") and keys[-1] == "id" and keys.count("id") == 1
    for delta in deltas[1:-2]:
        if data := delta["audio"].get("data"):
            assert "=" not in data or delta is deltas[-3]


def test_turns_by_text_and_by_the_id_of_a_reply(start):
    client = start(Remembering()).client()
    first = client.chat.completions.create(messages=spoken(text="Say it."), **AUDIO).choices[0].message.audio
    assert first.transcript == "Say it."
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "audio": {"id": first.id}},
        {"role": "user", "content": "And now?"},
    ]
    told = client.chat.completions.create(model="fake", messages=messages).choices[0].message.content
    assert told == "Be brief.|user: Hi|assistant: Say it."
    messages[1] = spoken(text="Hi")[0]
    told = client.chat.completions.create(model="fake", messages=messages).choices[0].message.content
    assert told == "Be brief.|user: Hi\n16000 samples|assistant: Say it."


def test_the_oldest_turns_are_dropped_whole(start):
    client = start(Remembering(), Limits(history_chars=12)).client()
    turns = [("user", "a" * 6), ("assistant", "b" * 6), ("user", "c" * 6), ("assistant", "d" * 6), ("user", "e")]
    messages = [{"role": role, "content": text} for role, text in turns]
    reply = client.chat.completions.create(model="fake", messages=messages)
    assert reply.choices[0].message.content == "|user: cccccc|assistant: dddddd"
    chunks = client.chat.completions.create(model="fake", messages=messages, stream=True)
    assert [reply.metadata, next(iter(chunks)).metadata] == [{"dropped_turns": "2"}] * 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("asked about", "You"),  # over two pieces
        (["tea", " as", "Yo?"], "You"),
        ([" abt", "about te!"], "You asked about tea."),
        (".", "You asked about tea"),
        (None, "You asked about tea."),
    ],
)
def test_a_text_ends_before_a_stop(server, stop, text, stream):
    asked = {"model": "fake", "messages": [{"role": "user", "content": "tea"}], "stop": stop}
    if stream:
        chunks = list(server.client().chat.completions.create(**asked, stream=True))
        told, reason = (
            "".join(one.choices[0].delta.content or "" for one in chunks),
            chunks[-1].choices[0].finish_reason,
        )
    else:
        choice = server.client().chat.completions.create(**asked).choices[0]
        told, reason = choice.message.content, choice.finish_reason
    assert (told.strip(), reason) == (text, "stop") and server.settled()


def test_ids_of_replies_expire_and_are_not_forged(start):
    server = start(limits=Limits(audio_id_seconds=1))
    client = server.client()
    name = client.chat.completions.create(messages=spoken(), **AUDIO).choices[0].message.audio.id
    other = start().client().chat.completions.create(messages=spoken(), **AUDIO).choices[0].message.audio.id
    time.sleep(2.1)
    for wrong in (name, other, name[:-8] + "AAAAAAA=", "audio_abc", "audio_", "x"):
        messages = [*spoken(), {"role": "assistant", "audio": {"id": wrong}}, *spoken()]
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(messages=messages, **AUDIO)
        assert caught.value.code == "audio_not_found"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"model": "no"}, "model_not_found", "choose fake"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "invalid_value", "end with a question"),
        ({"messages": [{"role": "user", "content": " "}]}, "invalid_value", "empty"),
        ({"messages": [{"role": "system", "content": "x" * 20_001}, *spoken()]}, "string_above_max_length", "messages"),
        ({"messages": [{"role": "user", "content": IMAGE}]}, "unsupported_value", "not 'image_url'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "invalid_value",
            "holds no input_audio",
        ),
        ({"messages": spoken(b"not a sound")}, "invalid_value", "cannot be read"),
        ({"messages": spoken(wav(level=0))}, "invalid_value", "silent"),
        ({"messages": spoken(wav(level=0.004))}, "unheard", "nothing was understood"),
        ({"messages": spoken(wav(121))}, "invalid_value", "too long"),
        ({"audio": None}, "missing_audio", "format"),
        ({"audio": {"voice": "x", "format": "tape"}}, "invalid_value", "audio.format"),
        ({"stream": True}, "unsupported_value", "pcm16"),
        ({"n": 2}, "unsupported_value", "one answer"),
        ({"response_format": {"type": "json_object"}}, "unsupported_value", "leave out response_format"),
        ({"logprobs": True}, "unsupported_value", "leave out logprobs"),
        ({"stop": "asked"}, "unsupported_value", "ask for text"),
        ({"stop": [""]}, "invalid_value", "stop"),
        ({"stop": list("abcde"), "modalities": ["text"]}, "invalid_value", "more than 4"),
        ({"messages": [{"role": "user", "content": "x"}] * 1001}, "invalid_value", "messages"),
        (
            {"functions": [{"name": "f", "parameters": {}}]},
            "unsupported_value",
            "functions: this server does not do that",
        ),
        ({"logit_bias": {"50": -100}}, "unsupported_value", "logit_bias"),
        ({"web_search_options": {}}, "unsupported_value", "web_search_options"),
        ({"parallel_tool_calls": False}, "invalid_value", "parallel_tool_calls"),
        ({"messages": spoken(wav(level=0.004)), "stream": True} | STREAM, "unheard", "nothing was understood"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "unsupported_value", "cannot call tools"),
        (
            {"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]},
            "unsupported_value",
            "cannot call tools",
        ),
    ],
)
def test_what_is_refused_of_a_chat(server, change, code, words):
    with pytest.raises(openai.APIStatusError) as caught:
        server.client().chat.completions.create(**{"messages": spoken(), **AUDIO, **change})
    assert caught.value.status_code in (400, 404) and caught.value.code == code and words in caught.value.message


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages[0].content[0].input_audio.data",
            "missing_required_parameter",
        ),
        ({"n": "two"}, "n", "invalid_type"),
        ({"stop": 5}, "stop", "invalid_type"),
    ],
)
def test_what_is_wrong_is_named_as_the_protocols_own_server_names_it(server, change, param, code):
    with pytest.raises(openai.BadRequestError) as caught:
        server.client().chat.completions.create(**{"messages": spoken(), **AUDIO, **change})
    assert (caught.value.param, caught.value.code, caught.value.type) == (param, code, "invalid_request_error")
    assert f"{param}: " in caught.value.message


def test_what_may_be_null_is_as_good_as_left_out(start):
    client, function = start(Calling()).client(), {"name": "weather", "description": None}
    asked = {"model": "fake", "messages": [{"role": "user", "content": "tea"}]}
    nothing = {"stream": None, "logprobs": None, "tools": [{"type": "function", "function": function}]}
    more = {"stream_options": {"include_usage": None}, "response_format": {"type": "text"}}
    assert client.chat.completions.create(**asked, **nothing, **more).choices[0].message.tool_calls


def test_a_stream_in_which_nothing_is_understood_is_refused_before_it_begins(start):
    with pytest.raises(openai.BadRequestError) as caught:
        start(Unhearing()).client().chat.completions.create(messages=spoken(), stream=True, **STREAM)
    assert caught.value.code == "unheard"


def test_a_body_that_is_no_json_is_said_to_be_none(server):
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", b"{no", {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    error = json.load(caught.value)["error"]
    assert (error["message"], error["code"], error["param"]) == ("the body is no JSON.", "invalid_json", None)
    latin = urllib.request.Request(
        f"{server.url}/v1/chat/completions", b'"caf\xe9"', {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(latin)
    assert json.load(caught.value)["error"]["code"] == "invalid_json"
    with pytest.raises(urllib.error.HTTPError) as caught:  # what `curl -d` sends where nobody names a type
        urllib.request.urlopen(f"{server.url}/v1/chat/completions", b'{"model": "fake"}')
    assert "Content-Type: application/json" in json.load(caught.value)["error"]["message"]


def test_tools_are_called_and_what_they_return_is_gone_on_from(start):
    client, tools = start(Calling()).client(), [{"type": "function", "function": {"name": "weather"}}]
    asked = [{"role": "user", "content": "Rome and Oslo"}]
    reply = client.chat.completions.create(model="fake", messages=asked, tools=tools)
    ChatCompletion.model_validate(reply.to_dict(), strict=True)
    long = [{"type": "function", "function": {"name": "weather", "description": "x" * 20_000}}]
    with pytest.raises(openai.BadRequestError, match="tools holds more than 20000 characters"):
        client.chat.completions.create(model="fake", messages=asked, tools=long)
    choice = reply.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content == "Let me look."
    assert [one.function.arguments for one in choice.message.tool_calls] == ['{"city": "Rome"}', '{"city": "Oslo"}']
    with client.chat.completions.stream(model="fake", messages=asked, tools=tools) as stream:
        for event in stream:
            if event.type == "chunk":
                ChatCompletionChunk.model_validate(event.chunk.to_dict(), strict=True)
        joined = stream.get_final_completion().choices[0]
    assert joined.finish_reason == "tool_calls" and joined.message.content == "Let me look."
    same = [(one.type, one.function.name, one.function.arguments) for one in joined.message.tool_calls]
    assert same == [(one.type, one.function.name, one.function.arguments) for one in choice.message.tool_calls]
    spoken_too = client.chat.completions.create(messages=asked, tools=tools, **STREAM).choices[0].message
    assert spoken_too.audio.transcript == "Let me look." and len(spoken_too.tool_calls) == 2
    rome, oslo = choice.message.tool_calls
    returned = [
        {"role": "tool", "tool_call_id": one.id, "content": text} for one, text in ((oslo, "cold"), (rome, "warm"))
    ]
    told = [*asked, choice.message.to_dict(), *returned]
    text = client.chat.completions.create(model="fake", messages=told, tools=tools).choices[0].message.content
    assert text.startswith("You asked about user: Rome and Oslo|assistant: Let me look.|call: ")
    assert text.endswith("|tool: warm|tool: cold.")
    unasked = client.chat.completions.create(model="fake", messages=asked, tools=tools, tool_choice="none").choices[0]
    assert unasked.message.content == "You asked about Rome and Oslo." and unasked.finish_reason == "stop"
    for change, param in (
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": told[:1] + returned[:1]}, "messages"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**{"model": "fake", "messages": asked, "tools": tools} | change)
        assert caught.value.param == param


def test_max_tokens_ends_an_answer_and_frees_its_place(start):
    server = start()
    asked = {"model": "fake", "messages": [{"role": "user", "content": "tea " * 300}]}  # more than lies unread
    for name in ("max_tokens", "max_completion_tokens"):
        choice = server.client().chat.completions.create(**asked, **{name: 2}).choices[0]
        assert choice.message.content == "You asked" and choice.finish_reason == "length"
        assert server.settled()


def test_what_is_within_the_limit_is_said_aloud(start):
    client = start().client()
    reply = client.chat.completions.create(messages=spoken(), max_completion_tokens=2, **STREAM).choices[0]
    assert reply.message.audio.transcript == "You asked" and reply.finish_reason == "length"
    assert len(pcm_of(reply.message.audio.data)) == 2 * 0.2 * 24_000
    reply = client.chat.completions.create(messages=spoken(), max_completion_tokens=5, **STREAM).choices[0]
    assert reply.message.audio.transcript == ANSWER and reply.finish_reason == "stop"


def test_failures_before_and_within_a_stream(start):
    asked = {"model": "fake", "messages": [{"role": "user", "content": "tea"}], "stream": True}
    with pytest.raises(openai.InternalServerError) as caught:
        start(Failing(after=0)).client().chat.completions.create(**asked)
    assert caught.value.code == "internal_error" and "ZeroDivision" not in caught.value.message
    server, said = start(Failing(after=1)), []
    with pytest.raises(openai.APIError, match="log says why"):
        for chunk in server.client().chat.completions.create(**asked):
            said.append(chunk.choices[0].delta.content)
    assert "One " in said and server.settled()


@pytest.mark.parametrize("form", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_speech_in_every_format(server, form):
    with server.client().audio.speech.with_streaming_response.create(
        model="fake", input="one two three four five", voice="any", response_format=form
    ) as answer:
        data = b"".join(answer.iter_bytes())
    if form == "pcm":
        seconds = len(data) / 48_000
    else:
        with av.open(io.BytesIO(data)) as file:
            rate = file.streams[0].rate
            seconds = sum(frame.samples for frame in file.decode(audio=0)) / rate
    if form not in ("pcm", "aac"):
        sound, rate = soundfile.read(io.BytesIO(data))
        assert abs(len(sound) / rate - seconds) < 0.06
    assert abs(seconds - 1) < 0.08 and answer.headers["content-type"].startswith("audio/")


def test_speech_as_events_and_what_is_refused_of_it(server):
    client = server.client()
    asked = {"model": "fake", "voice": "any", "input": "one two three"}
    data = client.audio.speech.create(**asked, response_format="pcm", extra_body={"stream_format": "sse"}).content
    events = [json.loads(line[6:]) for line in data.decode().split("\n\n") if line]
    assert events[-1]["type"] == "speech.audio.done" and events[-1]["usage"]["input_tokens"] == 3
    pcm = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    assert len(pcm) == round(0.6 * 48_000)
    for change in ({"input": ""}, {"input": "x" * 4097}, {"input": "漢字"}, {"speed": 2.0}, {"response_format": "x"}):
        with pytest.raises(openai.BadRequestError):
            client.audio.speech.create(**{**asked, **change})


def test_transcriptions_in_every_form(server):
    create = server.client().audio.transcriptions.create
    asked = {"model": "fake", "file": ("a.wav", wav(2.0))}
    plain = create(**asked)
    assert plain.text == "2.0 seconds" and plain.usage.seconds == 2.0
    assert create(**asked, response_format="text") == "2.0 seconds\n"
    full = create(**asked, response_format="verbose_json")
    assert full.duration == 2.0 and [one.text for one in full.segments] == ["2.0 seconds"]
    assert "00:00:00,000 --> 00:00:02,000" in create(**asked, response_format="srt")
    assert create(**asked, response_format="vtt").startswith("WEBVTT")
    events = list(create(**asked, stream=True))
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert create(model="fake", file=("a.wav", wav(level=0.004))).text == ""
    for change in (
        {"file": ("a.wav", b"")},
        {"timestamp_granularities": ["word"]},
        {"include": ["logprobs"]},
        {"model": "no"},
    ):
        with pytest.raises((openai.BadRequestError, openai.NotFoundError)):
            create(**{**asked, **change})


def test_a_model_that_does_not_write_down_says_so(start):
    with pytest.raises(openai.BadRequestError, match="does not write down"):
        start(Deaf()).client().audio.transcriptions.create(model="fake", file=("a.wav", wav()))
    assert start(Unhearing()).client().audio.transcriptions.create(model="fake", file=("a.wav", wav())).text == ""


def test_keys(start):
    server = start(keys=("right", "also"))
    for key in ("right", "also"):
        assert server.client(key).models.list().data
    for key in ("wrong", "righ"):
        with pytest.raises(openai.AuthenticationError) as caught:
            server.client(key).models.list()
        assert (caught.value.code, caught.value.type) == ("invalid_api_key", "invalid_request_error")
    for path in ("/", "/health", "/metrics"):
        assert urllib.request.urlopen(server.url + path).status == 200
    probe = urllib.request.Request(server.url + "/health", method="HEAD")  # as `wget --spider` and some balancers ask
    assert urllib.request.urlopen(probe).status == 200


def test_nothing_is_read_of_who_has_no_key(start):
    server = start(keys=("right",))
    for path in ("chat/completions", "audio/speech", "audio/transcriptions"):
        with socket.create_connection(("127.0.0.1", server.port), 5) as client:
            head = f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{{"
            client.sendall(head.encode())  # and no more
            assert b" 401 " in client.recv(100)
    assert urllib.request.urlopen(f"{server.url}/health").status == 200


def test_a_key_is_asked_for_wherever_the_server_is_mounted(start):
    outer = Starlette(routes=[Mount("/api", start(keys=("right",)).app)])
    client = TestClient(outer)
    assert client.get("/api/v1/models").status_code == 401
    assert client.get("/api/v1/models", headers={"Authorization": "Bearer right"}).json()["object"] == "list"
    assert client.get("/api/health").status_code == 200
    wrong = client.get("/api/health", headers={"Content-Length": "-1"})
    assert wrong.status_code == 400 and "Content-Length is no number" in wrong.json()["error"]["message"]


def test_rates_and_sizes(start):
    server = start(limits=Limits(requests_a_minute=3, body_bytes=1 << 20), keys=("a", "b"))
    for _ in range(3):
        server.client("a").models.list()
    with pytest.raises(openai.RateLimitError) as caught:
        server.client("a").models.list()
    assert caught.value.code == "rate_limit_exceeded" and caught.value.response.headers["retry-after"] == "1"
    with pytest.raises(openai.APIStatusError) as caught:
        server.client("b").chat.completions.create(messages=spoken(b"x" * (1 << 20)), **AUDIO)
    assert caught.value.status_code == 413 and caught.value.code == "request_too_large"
    assert server.client("b").models.list().data


def test_a_body_of_very_many_values_is_not_read(server):
    many = json.dumps({"model": "fake", "messages": [{"role": "user", "content": [{}] * 60_000}]}).encode()
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", many, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 413 and "50000 brackets and commas" in json.load(caught.value)["error"]["message"]


@pytest.mark.parametrize("path", ["chat/completions", "audio/transcriptions"])
def test_a_body_that_comes_in_pieces_is_measured_too(start, path):
    server = start(limits=Limits(body_bytes=1 << 20))
    kind = "multipart/form-data; boundary=x" if "audio" in path else "application/json"
    pieces = [b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n', *[b" " * (1 << 16)] * 17]
    request = urllib.request.Request(f"{server.url}/v1/{path}", iter(pieces), {"Content-Type": kind})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    error = json.load(caught.value)["error"]
    assert caught.value.code == 413 and error["code"] == "request_too_large" and "1 MiB" in error["message"]


def test_the_bytes_of_a_recording_are_no_values_whatever_they_are(server):
    part = b'--json\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    body = (
        part % (b"model", b"fake")
        + part.replace(b'"\r', b'"; filename="a"\r') % (b"file", b"," * 60_000)
        + b"--json--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=json"}
    request = urllib.request.Request(f"{server.url}/v1/audio/transcriptions", body, kind)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert "cannot be read as audio" in json.load(caught.value)["error"]["message"]


def test_a_wrong_method_is_told_the_right_one(server):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{server.url}/v1/chat/completions")
    assert caught.value.code == 405 and caught.value.headers["Allow"] == "POST"
    assert json.load(caught.value)["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("what", ["chat", "speech"])
def test_a_client_that_hangs_up_while_it_waits_in_the_queue_leaves_it(start, what):
    assistant = Held()
    server = start(assistant, Limits(slots=1))
    tea = {"model": "fake", "messages": [{"role": "user", "content": "tea"}]}
    first = threading.Thread(target=lambda: server.client().chat.completions.create(**tea))
    first.start()
    while not assistant.begun:
        time.sleep(0.005)
    client = server.client().with_options(timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        if what == "chat":
            client.chat.completions.create(**tea, stream=True)
        else:
            client.audio.speech.create(model="fake", voice="any", input="tea")
    end = time.monotonic() + 5
    while server.house.under_way > 1:
        assert time.monotonic() < end
        time.sleep(0.01)
    assistant.go.set()
    first.join()
    assert server.settled() and assistant.begun == 1


def test_a_full_queue_refuses_politely_and_goes_on(start):
    assistant = Held()
    server = start(assistant, Limits(slots=1, waiting=0))
    asked = {"model": "fake", "messages": [{"role": "user", "content": "tea"}]}
    client = server.client()
    waiting = threading.Thread(target=lambda: client.chat.completions.create(**asked))
    waiting.start()
    while not assistant.begun:
        time.sleep(0.005)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**asked)
    assert caught.value.code == "queue_full" and caught.value.response.headers["retry-after"]
    assistant.go.set()
    waiting.join()
    assert server.settled() and client.chat.completions.create(**asked).choices[0].message.content


def test_a_client_that_hangs_up_frees_its_place(start):
    assistant = Held()
    server = start(assistant, Limits(slots=1))
    for streamed in (True, False):
        client = server.client().with_options(timeout=0.3)
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="fake", messages=[{"role": "user", "content": "tea"}], stream=streamed)
        assistant.go.set()
        assert server.settled()
        assistant.go.clear()
    assert assistant.begun == assistant.ended == 2


def test_an_answer_that_takes_too_long_is_given_up(start):
    assistant = Held()
    server = start(assistant, Limits(answer_seconds=0.1))
    with pytest.raises(openai.InternalServerError) as caught:
        server.client().chat.completions.create(model="fake", messages=[{"role": "user", "content": "tea"}])
    assert caught.value.status_code == 504 and caught.value.response.headers["x-should-retry"] == "false"
    assistant.go.set()
    assert server.settled()


def test_a_server_told_to_end_refuses_what_is_new(start):
    server = start()
    server.house.draining = True
    with pytest.raises(openai.InternalServerError) as caught:
        server.client().models.list()
    assert caught.value.status_code == 503 and caught.value.response.headers["retry-after"]
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(server.url + "/health")
    assert json.load(caught.value)["status"] == "draining"


def test_other_origins_and_unknown_paths(start):
    server = start(origins=("https://friend.example",))
    for origin, allowed in (("https://friend.example", True), ("https://other.example", False)):
        request = urllib.request.Request(
            f"{server.url}/v1/models",
            method="OPTIONS",
            headers={"Origin": origin, "Access-Control-Request-Method": "GET"},
        )
        try:
            headers = urllib.request.urlopen(request).headers
        except urllib.error.HTTPError as error:
            headers = error.headers
        assert (headers.get("Access-Control-Allow-Origin") == origin) == allowed
    with pytest.raises(openai.NotFoundError, match="/v1/nothing: .*/v1/chat/completions"):
        server.client().get("/nothing", cast_to=object)


def test_what_is_counted(start):
    server = start()
    server.client().chat.completions.create(messages=spoken(), **AUDIO)
    with pytest.raises(openai.NotFoundError):
        server.client().models.retrieve("no")
    page = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
    assert 'echox_answers_total{finish="stop"} 1.0' in page and "echox_first_audio_seconds_count 1.0" in page
    assert 'echox_refused_total{code="model_not_found"} 1.0' in page
    assert float(re.search(r"^echox_audio_seconds_total (\S+)", page, re.M)[1]) == pytest.approx(1.0)
    assert json.load(urllib.request.urlopen(f"{server.url}/health"))["models"] == {"fake": {"active": 0, "waiting": 0}}
