"""`POST /v1/chat/completions`: text and sound in, text and sound out, whole or as a stream of chunks.

Clients concatenate the fields of chunks, so an id and an expiry are sent once and sound in multiples of 6 bytes.

The id of a spoken reply holds its transcript, signed: no process stores it, and any that shares the secret can read it.

    audio_ + base64url( mac[16] + expires[4] + deflated transcript )
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import time
import uuid
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from echox.generate.engine import Ask
from echox.generate.types import Piece
from echox.serve.answers import STREAMED, before, begun, event_line, heard_in, while_connected
from echox.serve.conversation import MOST_ITEMS, call_of, fitting, in_order
from echox.serve.house import House
from echox.serve.refusals import Refusal, no_tools, refusal_of
from echox.serve.response import size_of
from echox.serve.session_config import MOST_TOOLS, Tool, short, written
from echox.serve.sound import Speech, whole

WHOLE_SAMPLES = 6  # bytes: three samples, which are whole characters of base64
MAC, STAMP, LONGEST = 16, 4, 16_000  # bytes, bytes, characters
PARTS = ("text", "input_audio", "refusal")  # of a message; the last is an assistant's, of other servers

Stop = Annotated[str, Field(min_length=1)]
MOST_STOPS = 4  # as the protocol has it


class AudioOptions(BaseModel):
    """`audio` of a request."""

    format: Literal["wav", "mp3", "flac", "opus", "aac", "pcm16"] = "wav"


class ReplyReference(BaseModel):
    """`audio` of an earlier message of the assistant."""

    id: str


class Sound(BaseModel):
    """`input_audio` of a part."""

    data: str
    format: str = "wav"


class Part(BaseModel):
    """A part of a message."""

    type: str
    text: str | None = None
    input_audio: Sound | None = None


class Function(BaseModel):
    """`function` of a call."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A call in an earlier message of the assistant."""

    id: str
    function: Function


class Message(BaseModel):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    audio: ReplyReference | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str = ""


class ToolOption(BaseModel):
    """One of the `tools` of a request."""

    type: Literal["function"]
    function: Tool


class StreamOptions(BaseModel):
    """`stream_options` of a request."""

    include_usage: bool | None = False


class ChatRequest(BaseModel):
    """What is read of a request; unknown fields are ignored, and so is sampling, since decoding is greedy.

    What would change an answer and is not done here has the type None.
    """

    model: str
    messages: list[Message] = Field(min_length=1, max_length=MOST_ITEMS)
    modalities: list[Literal["text", "audio"]] | None = None
    audio: AudioOptions | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = None
    tools: list[ToolOption] | None = Field(None, max_length=MOST_TOOLS)
    tool_choice: Literal["auto", "none"] | None = None
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    stop: Stop | list[Stop] | None = None
    parallel_tool_calls: Literal[True] | None = None
    functions: None = None
    function_call: None = None
    logit_bias: None = None
    web_search_options: None = None


def routes(house: House) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post("/chat/completions")
    async def completions(body: ChatRequest, request: Request) -> Response:
        _check(body, house.worker(body.model).calls)
        await while_connected(request, _write_down_earlier(body, house))
        ask, dropped = asked(body, house)
        if isinstance(ask.question, bytes):
            ask = replace(ask, question=await house.wave_of(ask.question))
        reply = Completion(body, ask, house, dropped)
        answer = before(house.answer(body.model, ask), [body.stop] if isinstance(body.stop, str) else body.stop or [])
        if body.stream:
            first = await while_connected(request, begun(reply.taken(answer)))
            return StreamingResponse(reply.stream(first), media_type="text/event-stream", headers=STREAMED)
        return JSONResponse(await while_connected(request, reply.whole(answer)))

    return router


def _check(body: ChatRequest, calls: bool) -> None:
    """Raise a Refusal for what no model here supports."""
    if "audio" in (body.modalities or ()) and body.audio is None:
        raise Refusal(400, "modalities ask for audio: say its format in `audio`.", "missing_audio", "audio")
    if body.stream and body.audio is not None and "audio" in (body.modalities or ()) and body.audio.format != "pcm16":
        message = f"'audio.format' cannot be {body.audio.format!r} when stream is true: use 'pcm16'."
        raise Refusal(400, message, "unsupported_value", "audio.format")
    if body.n not in (None, 1):
        raise Refusal(400, "one answer a request: leave out n.", "unsupported_value", "n")
    if (body.response_format or {}).get("type", "text") != "text":
        message = "answers are free text, in no format that was asked for: leave out response_format."
        raise Refusal(400, message, "unsupported_value", "response_format")
    if body.stop and "audio" in (body.modalities or ()):
        raise Refusal(400, "stop ends text, not speech: leave it out, or ask for text.", "unsupported_value", "stop")
    if isinstance(body.stop, list) and len(body.stop) > MOST_STOPS:
        raise Refusal(400, f"stop holds more than {MOST_STOPS} texts: leave some out.", "invalid_value", "stop")
    if body.logprobs:
        raise Refusal(400, "the scores of tokens are not told: leave out logprobs.", "unsupported_value", "logprobs")
    if other := next((part.type for one in body.messages for part in _parts(one) if part.type not in PARTS), None):
        message = f"a message holds text or input_audio, not {other!r}."
        raise Refusal(400, message, "unsupported_value", "messages")
    if any(part.type == "input_audio" and part.input_audio is None for one in body.messages for part in _parts(one)):
        message = "a part of type input_audio holds no input_audio: send its data and its format."
        raise Refusal(400, message, "invalid_value", "messages")
    known = {call.id for message in body.messages for call in message.tool_calls or ()}
    if calls and any(message.role == "tool" and message.tool_call_id not in known for message in body.messages):
        raise Refusal(400, "a message's tool_call_id is that of no call before it.", "invalid_value", "messages")
    if not calls and (body.tools or any(one.tool_calls or one.role == "tool" for one in body.messages)):
        raise no_tools("tools" if body.tools else "messages")


async def _write_down_earlier(body: ChatRequest, house: House) -> None:
    """Transcribe the recordings of earlier turns, which a model is given as text."""
    for part in (part for message in body.messages[:-1] for part in _parts(message)):
        if part.input_audio is not None:
            wave = await house.wave_of(_decoded(part.input_audio.data))
            part.text = await heard_in(house.answer(body.model, Ask(wave, hear_only=True)))


def asked(body: ChatRequest, house: House) -> tuple[Ask, int]:
    """Return the question of a request with its history, and how many old turns were dropped; Refusal where nothing is asked."""
    last = body.messages[-1]
    if last.role not in ("user", "tool"):
        raise Refusal(400, "the last message is not the user's: end with a question.", "invalid_value", "messages")
    earlier = body.messages[:-1] if last.role == "user" else body.messages
    system = [_text(message) for message in earlier if message.role in ("system", "developer")]
    turns = [turn for message in earlier for turn in _turns(message, house.settings.secret)]
    history, dropped = fitting(in_order(turns), house.settings.limits.history_chars)
    text, text_only = _text(last), "audio" not in (body.modalities or ())
    tools = [one.function.shown() for one in body.tools or () if body.tool_choice != "none"]
    written(tools, "tools")
    most = body.max_completion_tokens or body.max_tokens
    sound = [part.input_audio for part in _parts(last) if part.input_audio is not None]
    told = short("\n".join([*system, text] if sound else system).strip(), "messages")
    ask = Ask(text_only=text_only, history=history, instructions=told, tools=tuple(tools), most_tokens=most)
    if last.role == "tool":
        return ask, dropped
    if len(sound) > 1:
        raise Refusal(400, "the last message holds several recordings: send one.", "invalid_value", "messages")
    if sound:
        return replace(ask, question=_decoded(sound[0].data)), dropped
    return replace(ask, typed=text), dropped


def _turns(message: Message, secret: str) -> list[tuple[str, str, str]]:
    """Return the (role, text, call id) turns of a message; a system message has none."""
    if message.role in ("system", "developer"):
        return []
    text = reply_text(message.audio.id, secret) if message.audio else _text(message)
    calls = [(one.id, one.function) for one in message.tool_calls or ()]
    param = "messages.tool_calls"
    called = [("call", short(call_of(one.name, one.arguments, param), param), name) for name, one in calls]
    return [(message.role, text, message.tool_call_id), *called]


def _parts(message: Message) -> list[Part]:
    content = message.content or []
    return [Part(type="text", text=content)] if isinstance(content, str) else content


def _text(message: Message) -> str:
    return "\n".join(part.text for part in _parts(message) if part.text)


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise Refusal(400, "input_audio.data is not base64: encode the file.", "invalid_value", "messages") from None


class Completion:
    """One answer in the shape of the protocol, whole or in chunks."""

    def __init__(self, body: ChatRequest, ask: Ask, house: House, dropped: int) -> None:
        self.body, self.ask, self.settings = body, ask, house.settings
        self.rate = house.worker(body.model).sample_rate
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
        if dropped:
            self.head |= {"metadata": {"dropped_turns": str(dropped)}}
        self.expires = int(time.time()) + house.settings.limits.audio_id_seconds
        self.most = ask.most_tokens
        self.text, self.finish, self.words, self.units = "", "stop", 0, 0
        self.calls: list[dict[str, Any]] = []

    async def taken(self, answer: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
        """Yield the pieces up to the request's token limit and count them; Refusal when nothing was understood."""
        async for piece in answer:
            text = piece.text if self.text else piece.text.lstrip()
            if self.most is not None and self.words + bool(text or piece.call) > self.most:
                self.finish = "length"
                return
            self.text, self.words, self.units = self.text + text, self.words + bool(text), self.units + len(piece.units)
            self.finish = piece.finish or self.finish
            if piece.call:
                self.words += 1
                function = {"name": piece.call.name, "arguments": piece.call.arguments}
                self.calls.append({"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function})
            if self.finish == "unheard":
                raise Refusal(400, "nothing was understood in the recording: speak up, or record it again.", "unheard")
            empty = not piece.heard and not text and piece.audio is None
            if not empty or self.ask.question is None:  # else it may be unheard yet
                yield replace(piece, text=text)

    async def whole(self, answer: AsyncIterator[Piece]) -> dict[str, Any]:
        """Return the body of a whole answer."""
        waves = [np.zeros(0, np.float32)]
        async for piece in self.taken(answer):
            if piece.audio is not None:
                waves.append(piece.audio)
        text = self.text.strip()
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self.calls:
            message |= {"content": text or None, "tool_calls": self.calls}
        if self.body.audio is not None and not self.ask.text_only and (text or not self.calls):
            data = await asyncio.to_thread(whole, np.concatenate(waves), self.rate, self.body.audio.format)
            sound = {"data": base64.b64encode(data).decode(), "transcript": text}
            message |= {"content": None, "audio": self._named(text) | sound}
        choice = {"index": 0, "finish_reason": self._reason(), "logprobs": None, "message": message}
        return self.head | {"object": "chat.completion", "choices": [choice], "usage": self._usage()}

    async def stream(self, taken: AsyncIterator[Piece]) -> AsyncIterator[str]:
        """Yield the lines of an answer as its pieces are `taken`; an error ends them as the client expects."""
        try:
            yield self._chunk({"role": "assistant", "content": None, "refusal": None})
            speech, rest = Speech(self.rate, "pcm16"), b""
            async for piece in taken:
                if piece.text:
                    said = {"content": piece.text} if self.ask.text_only else {"audio": {"transcript": piece.text}}
                    yield self._chunk(said)
                if piece.audio is not None:
                    rest += speech.push(piece.audio)
                    even = len(rest) - len(rest) % WHOLE_SAMPLES
                    if even:
                        yield self._sound(rest[:even])
                    rest = rest[even:]
            if not self.ask.text_only:
                if rest := rest + speech.flush():
                    yield self._sound(rest)
                if self.text or not self.calls:
                    yield self._chunk({"audio": self._named(self.text.strip())})
            for index, call in enumerate(self.calls):
                yield self._chunk({"tool_calls": [{"index": index, **call}]})
            yield self._chunk({}, self._reason())
            if self.body.stream_options and self.body.stream_options.include_usage:
                yield event_line(self._chunk_head() | {"choices": [], "usage": self._usage()})
        except (Refusal, TimeoutError) as error:
            yield event_line(refusal_of(error).body())
        yield "data: [DONE]\n\n"

    def _named(self, text: str) -> dict[str, Any]:
        """Return id and expiry; the id holds the transcript, so it exists only at the end and is sent once."""
        return {"id": reply_id(text, self.settings.secret, self.expires), "expires_at": self.expires}

    def _reason(self) -> str:
        return "length" if self.finish == "length" else "tool_calls" if self.calls else "stop"

    def _chunk_head(self) -> dict[str, Any]:
        return self.head | {"object": "chat.completion.chunk"}

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> str:
        return event_line(self._chunk_head() | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    def _sound(self, data: bytes) -> str:
        return self._chunk({"audio": {"data": base64.b64encode(data).decode()}})

    def _usage(self) -> dict[str, Any]:
        """Return counts, not prices: words read, 20 ms frames heard, pieces of text and units said."""
        read, heard = size_of(self.ask)
        return {
            "prompt_tokens": read + heard,
            "completion_tokens": self.words + self.units,
            "total_tokens": read + heard + self.words + self.units,
            "prompt_tokens_details": {"audio_tokens": heard, "text_tokens": read, "cached_tokens": 0},
            "completion_tokens_details": {"audio_tokens": self.units, "text_tokens": self.words},
        }


def reply_id(text: str, secret: str, expires: int) -> str:
    """Return the id of a reply whose transcript is `text`, good until `expires` (seconds of the epoch)."""
    body = expires.to_bytes(STAMP, "big") + zlib.compress(text.encode())
    return "audio_" + base64.urlsafe_b64encode(_mac(secret, body) + body).decode()


def reply_text(name: str, secret: str, now: float | None = None) -> str:
    """Return the transcript in a reply's id; Refusal (audio_not_found) when it is not signed by us or has expired."""
    message = f"the spoken reply {name[:40]!r} is unknown or expired: send its text."
    gone = Refusal(400, message, "audio_not_found", "messages")
    try:
        data = base64.b64decode(name.removeprefix("audio_"), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise gone from None
    mac, body = data[:MAC], data[MAC:]
    ours = hmac.compare_digest(mac, _mac(secret, body))
    if not ours or int.from_bytes(body[:STAMP], "big") < (time.time() if now is None else now):
        raise gone
    return zlib.decompressobj().decompress(body[STAMP:], LONGEST).decode(errors="replace")


def _mac(secret: str, body: bytes) -> bytes:
    return hmac.new(secret.encode(), body, hashlib.sha256).digest()[:MAC]
