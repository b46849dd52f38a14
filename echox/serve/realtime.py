"""`WS /v1/realtime`: carries events between a socket and a session, which decides whose turn it is and what is answered.

socket ─► JSON ─► (beta.py) ─► Session ─► events ─► outbox ─► (beta.py) ─► socket
                                 │  ▲
                          orders ▼  │ pieces
                        worker, ear (turns.py)
"""

import asyncio
import base64
import json
import logging
import secrets
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from echox.errors import EchoxError
from echox.generate.engine import Ask
from echox.generate.types import Call, Piece
from echox.serve import beta
from echox.serve.answers import heard_in
from echox.serve.conversation import history_of
from echox.serve.house import House
from echox.serve.orders import Answer, Hear, Listen, Overhear, Stop
from echox.serve.refusals import Refusal, draining, refusal_of
from echox.serve.session import Out, Session
from echox.serve.settings import MOST_VALUES
from echox.serve.sound import Speech
from echox.serve.turns import Detectors, Ear, Found
from echox.serve.wire import bytes_of, decoded, ms_of
from echox.serve.worker import Job

log = logging.getLogger("echox.serve")
KEY_PROTOCOL = "openai-insecure-api-key."  # how a browser, which cannot set headers, sends its key
SLICE_MS = 100  # of sound given to the session at once
HEAR_AFTER = 0.2  # seconds in which an answer may be asked for, which brings the transcript with it
OVERHEAR_AFTER = 0.05  # seconds in which a turn may end, so that nobody waits who sends it at once
OVERHEARD = "overheard"  # the name of that task
SLOW_CLIENT = 256  # events that may wait for a client before its answers and what it sends wait, too
LEAVE_SECONDS = 5.0  # in which a client may take its last events
POLICY, AGAIN, OVER = 1008, 1013, 1000  # close codes: refused, come back later, the end


def routes(house: House, detectors: Detectors) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.websocket("/realtime")
    async def realtime(socket: WebSocket) -> None:
        offered = socket.scope.get("subprotocols") or []
        await socket.accept("realtime" if "realtime" in offered else None)
        key = next((one.removeprefix(KEY_PROTOCOL) for one in offered if one.startswith(KEY_PROTOCOL)), None)
        model = socket.query_params.get("model") or next(iter(house.workers))
        talk = Talk(socket, house, detectors, model)
        try:
            _admit(house, socket, model, key)
        except Refusal as refusal:
            house.metrics.refused.labels(refusal.code or "none").inc()
            await talk.turn_away(refusal)
            return
        house.sessions += 1
        try:
            with house.metrics.sessions.track_inprogress():
                await talk.run()
        finally:
            house.sessions -= 1

    return router


def _admit(house: House, socket: WebSocket, model: str, key: str | None) -> None:
    """Raise a Refusal for a wrong key or rate, a page of another origin, an unknown model, or too many sessions."""
    house.admit(socket, key)
    origin, host = socket.headers.get("origin"), socket.headers.get("host")
    known = {"*", origin} & set(house.settings.origins)
    if origin is not None and origin.partition("://")[2] != host and not known:
        raise Refusal(403, f"pages of {origin} may not talk here: start with --origin {origin}.", "origin_not_allowed")
    house.worker(model)
    if house.sessions >= house.settings.limits.sessions:
        message = f"{house.sessions} conversations are open already: try again in a moment."
        raise Refusal(429, message, "too_many_sessions", kind="rate_limit_error")


class Talk:
    """One connection."""

    def __init__(self, socket: WebSocket, house: House, detectors: Detectors, model: str) -> None:
        self.socket, self.house, self.detectors, self.model = socket, house, detectors, model
        self.limits = house.settings.limits
        offered = socket.scope.get("subprotocols") or []
        self.old = "realtime=v1" in socket.headers.get("openai-beta", "") or "openai-beta.realtime-v1" in offered
        expires = int(time.time() + self.limits.session_seconds)
        calls = model in house.workers and house.workers[model].calls
        self.session = Session(secrets.token_hex(8), model, self.limits, expires, calls)
        self.outbox: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.tasks: dict[str, asyncio.Task[None]] = {}  # answers and transcripts under way
        self.listen: Listen | None = None
        self.ear: Ear | None = None
        self.ahead: Job | None = None  # what is found out of the turn under way
        self.half = b""  # of a sample, whose other half is still to come
        self.over = False  # its time is: nothing new is begun

    async def turn_away(self, refusal: Refusal) -> None:
        """Send the reason why the session is refused, and close."""
        self._apply(self.session.refuse(refusal))
        self.outbox.put_nowait(None)
        await self._send()
        await self._close(AGAIN if refusal.status in (429, 503) else POLICY)

    async def run(self) -> None:
        """Serve the session until the client disconnects, its time is over, or it has been idle too long."""
        sending = asyncio.ensure_future(self._send())
        try:
            self._apply(self.session.start())
            async with asyncio.timeout(self.limits.session_seconds):
                await self._receive()
        except WebSocketDisconnect:
            pass
        except TimeoutError:
            await self._end_answers()
            over = Refusal(408, "this conversation has lasted, or rested, as long as it may.", "session_expired")
            self._apply(self.session.refuse(over))
        finally:
            self._hush()
            for task in self.tasks.values():
                task.cancel()
            self._forget_ear()
            self.outbox.put_nowait(None)
            await asyncio.wait({sending}, timeout=LEAVE_SECONDS)
            sending.cancel()
            await self._close(OVER)

    async def _receive(self) -> None:
        while True:
            async with asyncio.timeout(None if self.over else self.limits.idle_seconds):
                while self.outbox.qsize() > SLOW_CLIENT:
                    await asyncio.sleep(0.02)
                message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            event: dict[str, Any] | None = None
            try:
                event = _parsed(message)
                await self._client(beta.inbound(event) if self.old else event)
            except Refusal as refusal:
                self._apply(self.session.refuse(refusal, event))
            await asyncio.sleep(0)  # else nobody else has a turn while one client's events are at hand

    async def _end_answers(self) -> None:
        """Let answers under way finish within `drain_seconds`, unless the client cancels them or disconnects."""
        self._hush()
        self.over, receiving = True, asyncio.ensure_future(self._receive())
        try:
            async with asyncio.timeout(self.limits.drain_seconds):
                while self.tasks and not receiving.done():
                    await asyncio.wait({receiving, *self.tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            log.debug("answers took too long")
        finally:
            receiving.cancel()

    async def _client(self, event: dict[str, Any]) -> None:
        if self.over and event.get("type") != "response.cancel":
            return
        if event.get("type") == "input_audio_buffer.append":
            await self._append(decoded(event.get("audio"), "audio"))
            return
        if event.get("type") in ("input_audio_buffer.commit", "input_audio_buffer.clear"):
            self.half = b""
        self._apply(self.session.client(event))

    async def _append(self, data: bytes) -> None:
        """Pass sound to the session in slices, with the turns detected in each; yields to other tasks in between."""
        form = self.session.sound.form
        if form == "pcm16":
            data = self.half + data
            self.half = data[len(data) & ~1 :]
            data = data[: len(data) & ~1]
        finding = self.listen is not None and self.listen.turns is not None
        size = bytes_of(SLICE_MS, form) if finding else max(1, len(data))
        for at in range(0, len(data), size):
            one = data[at : at + size]
            self._apply(self.session.append(one))
            for happened, ms in await self._found(one):
                told = self.session.speech_started if happened == "started" else self.session.speech_stopped
                self._apply(told(ms))
            if at:
                await asyncio.sleep(0)

    async def _found(self, data: bytes) -> list[Found]:
        listen = self.listen
        if listen is None or listen.turns is None:
            return []
        if self.ear is None:
            try:
                detector = await asyncio.to_thread(self.detectors.take)
            except EchoxError as error:
                self.listen = None
                raise Refusal(400, f"{error} Or set turn_detection to null.", "turn_detection_unavailable") from error
            self.ear = Ear(listen.turns, listen.form, listen.at_ms, detector)
        return self.ear.push(data)

    def _forget_ear(self) -> None:
        if self.ear is not None:
            self.detectors.give(self.ear.likelihood)
            self.ear = None

    def _apply(self, outs: Iterable[Out]) -> None:
        """Send a session's events and carry out its orders."""
        for out in outs:
            if isinstance(out, dict):
                self.outbox.put_nowait(out)
            elif isinstance(out, Answer):
                self._hush()
                self._begin(out.response_id, self._answer(out))
            elif isinstance(out, Hear):
                self._begin(out.item_id, self._hear(out))
            elif isinstance(out, Overhear):
                self._hush()
                self._begin(OVERHEARD, self._overhear(out))
            elif isinstance(out, Stop):
                if task := self.tasks.pop(out.id, None):
                    task.cancel()
            else:
                self.listen = out
                self._forget_ear()

    def _begin(self, name: str, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks[name] = task
        task.add_done_callback(lambda done: self.tasks.pop(name, None) if self.tasks.get(name) is done else None)

    async def _answer(self, order: Answer) -> None:
        """Run an answer and report its pieces to the session."""
        session, name, finish = self.session, order.response_id, "stop"
        calls: list[Call] = []
        try:
            if self.house.draining:
                raise draining()
            speech = Speech(self.house.worker(self.model).sample_rate, order.form)
            async for piece in self.house.answer(self.model, await self._remembering(order)):
                self._piece(order, piece, speech)
                finish = piece.finish or finish
                calls += [piece.call] if piece.call else []
                while self.outbox.qsize() > SLOW_CLIENT:
                    await asyncio.sleep(0.02)
            self._sound(order, speech.flush(), 0)
            for call in calls:
                self._apply(session.called(name, call.name, call.arguments))
            self._apply(session.ended(name, finish))
        except (Refusal, TimeoutError) as error:
            self._apply(session.failed(name, refusal_of(error)))

    async def _remembering(self, order: Answer) -> Ask:
        """Return the question with all that was said before it, once all of it is written down."""
        asked = order.asked if order.ask.typed is not None else None
        items = [*order.earlier, *filter(None, [asked])]
        if not (writing := [self.tasks[one.id] for one in items if one.id in self.tasks]):
            return order.ask
        await asyncio.wait(writing)
        typed = asked.words() if asked else order.ask.typed
        return replace(order.ask, typed=typed, history=history_of(order.earlier, self.limits.history_chars)[0])

    def _piece(self, order: Answer, piece: Piece, speech: Speech) -> None:
        if piece.heard:
            self._apply(self.session.heard(order.response_id, piece.heard))
        if piece.text:
            self._apply(self.session.said(order.response_id, piece.text))
        if piece.audio is not None:
            self._sound(order, speech.push(piece.audio), len(piece.units))

    def _sound(self, order: Answer, data: bytes, units: int) -> None:
        if data and not order.ask.text_only:
            ms = ms_of(len(data), order.form)
            self._apply(self.session.spoke(order.response_id, base64.b64encode(data).decode(), ms, units))

    async def _overhear(self, order: Overhear) -> None:
        await asyncio.sleep(OVERHEAR_AFTER)
        if not self.house.draining:
            self.ahead = self.house.worker(self.model).overhear(order.ask)

    def _hush(self) -> None:
        """Stop processing the unfinished turn; what was computed so far is kept."""
        if task := self.tasks.pop(OVERHEARD, None):
            task.cancel()
        if self.ahead is not None:
            self.ahead.cancel()
            self.ahead = None

    async def _hear(self, order: Hear) -> None:
        """Transcribe an item and report it to the session, unless an answer to it is asked for meanwhile."""
        await asyncio.sleep(HEAR_AFTER)
        try:
            text = await heard_in(self.house.answer(self.model, order.ask))
            self._apply(self.session.transcribed(order.item_id, text))
        except (Refusal, TimeoutError) as error:
            self._apply(self.session.not_transcribed(order.item_id, refusal_of(error)))

    async def _send(self) -> None:
        """Send the events of the outbox until None; nothing more once the client has disconnected."""
        gone = False
        while (event := await self.outbox.get()) is not None:
            for one in beta.outbound(event) if self.old else [event]:
                try:
                    if not gone:
                        await self.socket.send_text(json.dumps(one))
                except (WebSocketDisconnect, RuntimeError):
                    gone = True

    async def _close(self, code: int) -> None:
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self.socket.close(code)
        except (WebSocketDisconnect, RuntimeError, TimeoutError):
            log.debug("the client closed first, or reads nothing")


def _parsed(message: Any) -> dict[str, Any]:
    """Return the event in a frame; Refusal when it holds none."""
    if message.get("text") is None:
        raise Refusal(400, "events are text frames: this one is binary.", "invalid_value")
    if sum(map(message["text"].count, "{[,")) > MOST_VALUES:
        raise Refusal(400, f"an event holds at most {MOST_VALUES} brackets and commas: send less.", "invalid_value")
    try:
        event = json.loads(message["text"])
    except (ValueError, RecursionError):
        raise Refusal(400, "this frame is no JSON.", "invalid_json") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise Refusal(400, "an event is an object with a type.", "invalid_value", "type")
    return event
