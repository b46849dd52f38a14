"""`POST /v1/audio/speech` says a text, `POST /v1/audio/transcriptions` writes down what a recording says."""

import base64
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from echox.audio import SAMPLE_RATE
from echox.generate.engine import Ask
from echox.generate.types import Piece
from echox.serve.answers import STREAMED, begun, event_line, heard_in, while_connected
from echox.serve.house import House
from echox.serve.refusals import Refusal, refusal_of
from echox.serve.sound import MEDIA_TYPES, Speech

UNMEASURED = ("temperature", "avg_logprob", "compression_ratio", "no_speech_prob")  # by this decoder
Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]


class SpeechRequest(BaseModel):
    """What is read of a request; a model has one voice and one speed."""

    model: str
    input: str = Field(min_length=1, max_length=4096)
    response_format: Format = "mp3"
    speed: float = Field(1.0, ge=0.25, le=4.0)
    stream_format: Literal["audio", "sse"] = "audio"


def routes(house: House) -> APIRouter:
    """Return both routes."""
    router = APIRouter()

    @router.post("/audio/speech")
    async def speech(body: SpeechRequest, request: Request) -> Response:
        if body.speed != 1.0:
            raise Refusal(400, "this voice has one speed: leave out speed.", "unsupported_value", "speed")
        answer = house.answer(body.model, Ask(say=body.input))
        said = Speech(house.worker(body.model).sample_rate, body.response_format)
        answer = await while_connected(request, begun(answer))
        if body.stream_format == "sse":
            lines = _events(said, answer, body.input)
            return StreamingResponse(lines, media_type="text/event-stream", headers=STREAMED)
        return StreamingResponse(_sound(said, answer), media_type=MEDIA_TYPES[body.response_format], headers=STREAMED)

    @router.post("/audio/transcriptions")
    async def transcriptions(
        request: Request,
        file: UploadFile,
        model: Annotated[str, Form()],
        response_format: Annotated[Literal["json", "text", "verbose_json", "srt", "vtt"], Form()] = "json",
        stream: Annotated[bool, Form()] = False,
        include: Annotated[list[str] | None, Form(alias="include[]")] = None,
        granularities: Annotated[list[str] | None, Form(alias="timestamp_granularities[]")] = None,
    ) -> Response:
        if include:
            raise Refusal(400, "the scores of tokens are not told: leave out include.", "unsupported_value", "include")
        if "word" in (granularities or ()):
            message = "this model does not say when each word was said: leave out timestamp_granularities."
            raise Refusal(400, message, "unsupported_value", "timestamp_granularities")
        house.worker(model)
        wave = await house.wave_of(await file.read())
        text = await while_connected(request, heard_in(house.answer(model, Ask(wave, hear_only=True))))
        return _written(text, len(wave) / SAMPLE_RATE, "stream" if stream else response_format)

    return router


async def _sound(said: Speech, answer: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
    """Yield the bytes of speech as it is made; an error breaks the stream off."""
    async for piece in answer:
        if piece.audio is not None and (data := said.push(piece.audio)):
            yield data
    yield said.flush()


async def _events(said: Speech, answer: AsyncIterator[Piece], text: str) -> AsyncIterator[str]:
    """Yield the same as server-sent events."""

    async def counted() -> AsyncIterator[Piece]:
        async for piece in answer:
            units.extend(piece.units)
            yield piece

    words, units = len(text.split()), list[int]()
    try:
        async for data in _sound(said, counted()):
            if data:
                yield event_line({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})
        usage = {"input_tokens": words, "output_tokens": len(units), "total_tokens": words + len(units)}
        yield event_line({"type": "speech.audio.done", "usage": usage})
    except (Refusal, TimeoutError) as error:
        yield event_line(refusal_of(error).body())


def _written(text: str, seconds: float, form: str) -> Response:
    """Return a transcript in a format of the protocol; the whole recording is one segment."""
    usage = {"type": "duration", "seconds": round(seconds, 3)}
    if form == "text":
        return PlainTextResponse(text + "\n")
    if form == "srt":
        return PlainTextResponse(f"1\n{_clock(0, ',')} --> {_clock(seconds, ',')}\n{text}\n\n")
    if form == "vtt":
        return PlainTextResponse(f"WEBVTT\n\n{_clock(0, '.')} --> {_clock(seconds, '.')}\n{text}\n\n")
    if form == "stream":
        events = [{"type": "transcript.text.delta", "delta": text}, {"type": "transcript.text.done", "text": text}]
        return StreamingResponse(iter([*map(event_line, events), "data: [DONE]\n\n"]), media_type="text/event-stream")
    body: dict[str, Any] = {"text": text, "usage": usage}
    if form == "verbose_json":
        segment = {"id": 0, "seek": 0, "start": 0.0, "end": seconds, "text": text, "tokens": []}
        segment |= dict.fromkeys(UNMEASURED, 0.0)
        body |= {"task": "transcribe", "language": "english", "duration": seconds, "segments": [segment]}
    return JSONResponse(body)


def _clock(seconds: float, mark: str) -> str:
    whole, part = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{part:03}"
