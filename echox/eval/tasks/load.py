"""`echox eval load`: how a server holds out when many talk to it at once, over the realtime protocol.

    closed: n talkers, each asks, listens to the end, thinks, asks again         open: a new talker every 1/rate s, who asks once

A question is sent whole, or said in real time (`live`), and committed; the clock starts there. Answers are played in simulated
real time (scorers/playback.py), so that an underrun is what a listener would hear. Knows the wire, and nothing of the server's
inside.
"""

import asyncio
import base64
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from echox.audio import load_audio, to_pcm16
from echox.errors import ConfigError, EndpointError
from echox.eval.results import OURS, write_results
from echox.eval.scorers.playback import Chunk, play
from echox.eval.tables import Items, Table
from echox.files import refuse_others, write_text
from echox.prepare.filters import recordings_below
from echox.realtime import RATE, address_of, conversation

SPOKEN_BYTES = RATE // 5  # of a question said in real time, that are sent together: 0.1 s
PATIENCE = 120.0  # seconds without an event after which an answer counts as lost
SHARES = (50, 95, 99)
NOTHING = {"first_audio": None, "underruns": 0, "text": ""}
NOTHING |= dict.fromkeys(("total", "ended", "audio_seconds", "stalled"), 0.0)
UNTIMED = {"turn_detection": None}  # this client ends turns


@dataclass(frozen=True)
class Load:
    """The server and the load: `talkers` at once, or a new one every 1/`rate` seconds, for `answers` in all."""

    endpoint: str  # http://host/v1
    model: str  # its name there
    talkers: int
    answers: int
    key: str = ""
    rate: float = 0.0  # arrivals a second; 0: the talkers stay and go on asking
    think_seconds: float = 0.0
    live: bool = False  # questions are said in real time

    @property
    def address(self) -> str:
        """The address of the server's socket."""
        return address_of(self.endpoint, self.model)


def read_recordings(paths: Sequence[Path], most: int) -> list[bytes]:
    """Return recordings, or those in folders, as PCM for the wire; InputError as in `load_audio`, ConfigError for none."""
    files = [file for path in paths for file in (recordings_below(path) if path.is_dir() else [path])]
    sounds = [to_pcm16(load_audio(file, RATE)) for file in files[:most]]
    if not sounds:
        raise ConfigError("no recordings were given to ask with: name files or folders of WAV, FLAC, OGG or MP3.")
    return sounds


def run_load(load: Load, recordings: Sequence[bytes], out: Path) -> list[Table]:
    """Return the table of a run and write every answer to load.jsonl; EndpointError when no answer came at all."""
    refuse_others(out, ["load.jsonl", "load.md", "load.svg"], "load.jsonl", OURS)
    started = time.perf_counter()
    answers = asyncio.run(_everybody(load, itertools.cycle(recordings)))
    seconds = time.perf_counter() - started
    settings = {"task": "load", **asdict(load), "seconds": seconds}
    del settings["key"]
    items = [{"arm": "load", "id": str(number), **one} for number, one in enumerate(answers)]
    write_results(out / "load.jsonl", settings, items)
    if all(one["error"] for one in answers):
        raise EndpointError(f"{load.address} gave no answer: {answers[0]['error'].rstrip('.')}.")
    tables = load_tables(settings, items)
    write_text(out / "load.md", tables[0].markdown())
    return tables


def load_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return first audio, underruns and errors of a run's answers."""
    good, seconds = [one for one in items if not one["error"]], settings["seconds"]
    first = [one["first_audio"] for one in good if one["first_audio"] is not None]
    times = [f"{np.percentile(first, share):.3f}" if first else "-" for share in SHARES]
    broken, stalled = sum(one["underruns"] > 0 for one in good), sum(one["stalled"] for one in good)
    counts = (str(broken), f"{stalled:.2f}", str(len(items) - len(good)))
    who = f"{settings['rate']:g} a second" if settings["rate"] else f"{settings['talkers']} at once"
    row = (who, str(len(items)), *times, *counts, f"{sum(one['audio_seconds'] for one in good) / seconds:.2f}")
    head = ("talkers", "answers", *(f"first audio p{share}, s" for share in SHARES))
    head += ("answers with underruns", "stalled, s", "errors", "seconds of speech a second")
    note = f"{settings['model']} at {settings['endpoint']}; from the commit of a question that was "
    note += f"{'said in real time' if settings['live'] else 'sent whole'}; {seconds:.0f} s in all."
    return [Table("Load", head, (row,), note)]


async def _everybody(load: Load, sounds: Any) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    with tqdm(desc="load", total=load.answers, unit=" answers", disable=None) as bar:

        def note(one: dict[str, Any]) -> None:
            answers.append(one)
            bar.update()

        if load.rate:
            talkers = [_talker(load, iter([1]), sounds, note, place / load.rate) for place in range(load.answers)]
        else:
            left = iter(range(load.answers))  # one count for all talkers
            talkers = [_talker(load, left, sounds, note) for _ in range(load.talkers)]
        await asyncio.gather(*talkers)
    return answers


async def _talker(load: Load, left: Any, sounds: Any, note: Callable[[dict[str, Any]], None], after: float = 0) -> None:
    """Ask again and again on one connection, which is opened anew where it breaks; whoever asks once leaves at once."""
    if after:
        await asyncio.sleep(after)
    asking = next(left, None) is not None
    while asking:
        try:
            async with conversation(load.address, load.key, UNTIMED) as socket:
                while asking and socket.close_code is None:  # its time is over: the next question opens another
                    one = await _answer(socket, next(sounds), load.live)
                    note(one)
                    if not load.rate:
                        await asyncio.sleep(max(0.0, one["ended"] - one["total"]) + load.think_seconds)
                    asking = next(left, None) is not None
        except (OSError, EndpointError) as error:
            note(NOTHING | {"error": str(error)})
            asking = next(left, None) is not None


async def _answer(socket: Any, sound: bytes, live: bool) -> dict[str, Any]:
    """Return what a listener experiences: times since the commit, and underruns; EndpointError for an error event."""
    began, size = time.perf_counter(), SPOKEN_BYTES if live else 2 * RATE
    for at in range(0, len(sound), size):
        if live:
            said = min(at + size, len(sound)) / (2 * RATE)
            await asyncio.sleep(max(0.0, began + said - time.perf_counter()))
        chunk = base64.b64encode(sound[at : at + size]).decode()
        await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": chunk}))
    await socket.send('{"type": "input_audio_buffer.commit"}')
    started, chunks, text = time.perf_counter(), [], ""
    await socket.send('{"type": "response.create"}')
    while True:
        try:
            event = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))
        except TimeoutError:
            raise EndpointError(f"nothing came for {PATIENCE:g} s.") from None
        now = time.perf_counter() - started
        if event["type"] == "response.output_audio.delta":
            chunks.append(Chunk(now, len(base64.b64decode(event["delta"])) // 2))
        elif event["type"] == "response.output_audio_transcript.delta":
            text += event["delta"]
        elif event["type"] == "error":  # others may follow, so this conversation ends
            raise EndpointError(str(event["error"]["message"]))
        elif event["type"] == "response.done":
            return _met(event["response"], chunks, now, text)


def _met(response: dict[str, Any], chunks: list[Chunk], total: float, text: str) -> dict[str, Any]:
    details = response.get("status_details") or {}
    if response["status"] == "failed":
        return NOTHING | {"error": (details.get("error") or {}).get("message") or "failed"}
    heard = play(chunks, RATE)
    return NOTHING | (asdict(heard) if heard else {}) | {"total": total, "text": text, "error": None}
