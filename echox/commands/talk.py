"""`echox talk`: a conversation in a terminal, microphone and loudspeaker of this machine, over the realtime protocol.

microphone ─► append ─► server (one in this process, or --endpoint) ─► deltas ─► loudspeaker, words on the screen
"""

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from echox.commands.options import Device, Dtype, Llm, Model
from echox.commands.sound import device
from echox.errors import EndpointError, InputError, OutputError, require
from echox.realtime import ENDS, RATE, address_of, conversation, event_of

BLOCK = RATE // 25  # samples of the microphone sent at once


def talk(
    model: Model = "mini",
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="A server, http://host/v1; by default one is started.")
    ] = "",
    key: Annotated[str, typer.Option("--key", envvar="ECHOX_API_KEY", help="The server's API key.")] = "",
    headphones: Annotated[
        bool, typer.Option("--headphones", help="Speaking interrupts; without them the answer would interrupt itself.")
    ] = False,
    turns: Annotated[int, typer.Option("--turns", min=0, help="End after so many answers; 0: with Ctrl-C.")] = 0,
    llm: Llm = None,
    device_name: Device = "auto",
    dtype: Dtype = None,
) -> None:
    """Talk with a model: it listens, answers aloud, and listens again."""
    if endpoint and (llm or dtype or device_name != "auto"):
        raise typer.BadParameter("the server at --endpoint has its own: leave out --llm, --device and --dtype.")
    for package in ("fastapi", "websockets"):
        require(package, extra="serve")
    microphone, loudspeaker = device("input", InputError), device("output", OutputError)
    from echox.serve.run import served_here
    from echox.serve.settings import Settings

    settings = Settings((model,), llm, device_name, dtype)
    with nullcontext(endpoint) if endpoint else served_here(settings) as url:
        try:
            talker = Talker(Loudspeaker(loudspeaker), headphones, turns, typer.echo)
            typer.echo("listening; Ctrl-C ends", err=True)
            asyncio.run(talker.run(address_of(url, model), key, microphone))
        except KeyboardInterrupt:
            typer.echo("")
        except microphone.PortAudioError as error:  # in use, or not at this rate
            advice = "choose another in the system's settings"
            raise InputError(f"microphone or loudspeaker cannot be opened ({error}): {advice}.") from error


class Loudspeaker:
    """Plays what is pushed, and knows how much of it was heard."""

    def __init__(self, sounddevice: Any) -> None:
        self.waiting, self.heard = bytearray(), 0  # bytes
        self.stream = sounddevice.RawOutputStream(samplerate=RATE, channels=1, dtype="int16", callback=self._fill)

    def _fill(self, out: Any, frames: int, *_: Any) -> None:
        """Give the device its next samples; called from its own thread."""
        data = bytes(self.waiting[: 2 * frames])
        del self.waiting[: len(data)]
        self.heard += len(data)
        out[:] = data + bytes(2 * frames - len(data))

    def stop(self) -> int:
        """Fall silent and return the milliseconds that were heard of this answer."""
        self.waiting.clear()
        return self.heard // (2 * RATE // 1000)


class Talker:
    """One conversation."""

    def __init__(self, speaker: Loudspeaker, interrupts: bool, turns: int, tell: Callable[..., Any]) -> None:
        self.speaker, self.interrupts, self.turns, self.tell = speaker, interrupts, turns, tell
        self.item, self.answers = "", 0  # the answer that is heard; how many there were

    async def run(self, address: str, key: str, sounddevice: Any) -> None:
        """Talk until the server closes or enough was answered; EndpointError where there is no server."""
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def recorded(data: Any, *_: Any) -> None:
            loop.call_soon_threadsafe(heard.put_nowait, bytes(data))

        options = {"samplerate": RATE, "channels": 1, "dtype": "int16", "blocksize": BLOCK, "callback": recorded}
        try:
            async with conversation(address, key, {"transcription": {"model": "own"}}) as socket:
                with sounddevice.RawInputStream(**options), self.speaker.stream:
                    sending = asyncio.ensure_future(self._send(socket, heard))
                    await self._receive(socket)
                    sending.cancel()
        except OSError as error:
            raise EndpointError(f"{address}: {error}.") from error

    async def _send(self, socket: Any, heard: "asyncio.Queue[bytes]") -> None:
        """Send the microphone; without headphones not while something is played."""
        while True:
            data = await heard.get()
            if self.interrupts or not self.speaker.waiting:
                audio = base64.b64encode(data).decode()
                await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))

    async def _receive(self, socket: Any) -> None:
        async for text in socket:
            event = event_of(text, harmless=lambda said: self.tell(f"({said})", err=True))
            kind = event["type"]
            if kind == "input_audio_buffer.speech_started" and self.item and self.speaker.waiting:
                ms = self.speaker.stop()
                cut = {"item_id": self.item, "content_index": 0, "audio_end_ms": ms}
                await socket.send(json.dumps({"type": "conversation.item.truncate", **cut}))
            elif kind.endswith("input_audio_transcription.completed"):
                self.tell(f"you:   {event['transcript'] or '(nothing understood)'}")
            elif kind == "response.output_item.added":
                self.item, self.speaker.heard = event["item"]["id"], 0
                self.tell("echox: ", nl=False)
            elif kind == "response.output_audio_transcript.delta":
                self.tell(event["delta"], nl=False)
            elif kind == "response.output_audio.delta":
                self.speaker.waiting += base64.b64decode(event["delta"])
            elif kind == "response.done":
                error = (event["response"].get("status_details") or {}).get("error") or {}
                if error.get("code") in ENDS:
                    raise EndpointError(f"the server says: {str(error.get('message')).rstrip('.')}.")
                if event["response"]["output"]:
                    self.tell("")
                    self.answers += 1
                if self.turns and self.answers >= self.turns:
                    while self.speaker.waiting:
                        await asyncio.sleep(0.02)
                    return
