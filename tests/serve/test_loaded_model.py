"""A loaded model behind the real server: clients that hang up in mid-answer, and questions that are heard while they are asked."""

import asyncio
import base64
import copy
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import soxr
import torch
from test_realtime import Talker, b64, sound_of, talking, text_of

from echox import SpeechAssistant
from echox.generate.batched import Batched
from echox.models.decoding import alone
from echox.serve import realtime
from echox.text.prompt import encode
from echox.train import toy
from tests.toy_model import CALL, CALLING, WEATHER, toy_model  # noqa: F401 - a fixture

QUESTION = "What is the capital of France?"
ENDS = ("completed", "incomplete")  # said to the end, or to the limit of tokens


@pytest.fixture(scope="module")
def assistant(toy_model):  # noqa: F811
    return SpeechAssistant.load(str(toy_model), device="cpu", dtype="float32")


class Gated(Batched):
    """Makes a step where it is let to, and counts what it was asked to overhear."""

    def __init__(self, assistant):
        super().__init__(assistant, keep=4)
        self.gate, self.overheard = threading.Semaphore(0), 0

    def open(self, ask):
        self.overheard += ask.so_far
        return super().open(ask)

    def step(self):
        if self.gate.acquire(timeout=0.02):  # else who waits is asked again, and who comes may join
            super().step()

    def rows(self):
        """Return how many rows hold keys and values."""
        return sum(len(batch.slots or ()) for batch in self.batches.values())


async def until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def asks(talk: Talker):
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}
    await talk.ws.conversation.item.create(item=message)
    await talk.ws.response.create()
    await talk.until("response.created", 60)


async def posts(server):
    """Ask for a stream of chat on a bare connection; return it when the answer has begun."""
    body = {"model": "fake", "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await reader.readuntil(b'"role": "assistant"')
    return writer


def test_clients_that_hang_up_in_mid_answer_free_their_rows_and_the_others_go_on(start, assistant):
    """One on a socket and one on a stream of chat leave after their first token; who stays is told what is told alone."""
    engine = Gated(assistant)
    server = start(engine=engine)

    async def story():
        async with talking(server) as staying, talking(server) as leaving:
            await asks(staying)
            await asks(leaving)
            posted = await posts(server)
            await until(lambda: sum(len(batch.joining) for batch in engine.batches.values()) == 3)
            engine.gate.release()
            await until(lambda: engine.rows() == 3)
            leaving.ws._connection.transport.abort()
            posted.transport.abort()
            await until(lambda: server.house.under_way == 1)
            engine.gate.release()
            await until(lambda: engine.rows() == 1)  # freed with the next step, not with the end of the answers
            engine.gate.release(10_000)
            together = await staying.until("response.done", 60)
        async with talking(server) as talk:
            await asks(talk)
            alone = await talk.until("response.done", 60)
        assert together[-1]["response"]["status"] == alone[-1]["response"]["status"] in ENDS
        assert text_of(together) == text_of(alone) and sound_of(together) == sound_of(alone) != b""
        await until(lambda: not server.house.sessions)

    asyncio.run(asyncio.wait_for(story(), 240))
    assert server.settled()
    assert engine.rows() == 0 and not engine.unread and not any(batch.joining for batch in engine.batches.values())


def test_an_answer_that_is_cut_short_is_said_to_its_last_word(start, assistant):
    engine = Gated(assistant)
    engine.gate.release(10_000)
    server, alone = start(engine=engine), assistant.at_most(2).ask(typed=QUESTION)
    assert alone.finish == "length" and len(alone.audio)
    asked = {"model": "fake", "modalities": ["text", "audio"], "audio": {"voice": "x", "format": "pcm16"}}
    asked["messages"] = [{"role": "user", "content": QUESTION}]
    client = server.client().with_options(timeout=60)
    choice = client.chat.completions.create(**asked, max_completion_tokens=2).choices[0]
    assert choice.finish_reason == "length" and choice.message.audio.transcript == alone.text
    assert abs(len(base64.b64decode(choice.message.audio.data)) / 48_000 - alone.audio_seconds) < 0.01

    async def story():
        async with talking(server) as talk:
            await talk.ws.session.update(session={"type": "realtime", "max_output_tokens": 2})
            await talk.until("session.updated", 60)
            await asks(talk)
            events = await talk.until("response.done", 60)
            assert events[-1]["response"]["status_details"]["reason"] == "max_output_tokens"
            assert text_of(events).strip() == alone.text
            assert abs(len(sound_of(events)) / 48_000 - alone.audio_seconds) < 0.01

    asyncio.run(asyncio.wait_for(story(), 240))


def test_words_before_a_call_are_spoken_and_the_call_is_not(start, assistant):
    tokenizer = copy.deepcopy(assistant.parts.tokenizer)
    tokenizer.chat_template = CALLING
    parts = replace(assistant.parts, tokenizer=tokenizer, dialect=replace(assistant.parts.dialect, tokenizer=tokenizer))

    def scripted(model, line):
        """Let the text model say what stands here, and the decoder of unit words what it likes."""
        if model is not parts.s2t:
            yield from alone(model, line)
            return
        for token in encode(tokenizer, f"The king is red. {CALL}"):
            line.said.append(token)
            yield token, torch.zeros(parts.s2t.embeddings_VH.shape[1])

    async def story(server):
        async with talking(server) as talk:
            tool = {"type": "function", **WEATHER["function"]}
            await talk.ws.session.update(session={"type": "realtime", "tools": [tool]})
            await talk.until("session.updated", 60)
            await asks(talk)
            events = await talk.until("response.done", 60)
            said, called = events[-1]["response"]["output"]
            assert text_of(events) == said["content"][0]["transcript"] == "The king is red." and sound_of(events)
            assert (called["name"], called["arguments"]) == ("weather", '{"city": "Paris"}')

    asyncio.run(asyncio.wait_for(story(start(SpeechAssistant(parts, decoding=scripted))), 240))


def test_a_question_heard_while_it_is_asked_is_answered_as_one_that_comes_whole(start, assistant, monkeypatch):
    wave = soxr.resample(toy.sound_of(QUESTION), 16_000, 24_000).astype(np.float32)

    async def answered(server, engine, slices):
        async with talking(server) as talk:
            await talk.manual()
            for one in slices:
                await talk.ws.input_audio_buffer.append(audio=b64(one))
                await asyncio.sleep(0.05)
            await until(lambda: engine.overheard or len(slices) == 1)
            await talk.ws.input_audio_buffer.commit()
            await talk.ws.response.create()
            events = await talk.until("response.done", 60)
            return text_of(events), sound_of(events), events[-1]["response"]["status"]

    found = []
    for slices, patience in (([wave], 1000.0), (np.array_split(wave, 6), 0.0)):
        monkeypatch.setattr(realtime, "OVERHEAR_AFTER", patience)
        engine = Gated(assistant)
        engine.gate.release(10_000)
        found.append(asyncio.run(asyncio.wait_for(answered(start(engine=engine), engine, slices), 240)))
        assert bool(engine.overheard) == (not patience)
    assert found[0] == found[1] and found[0][1] and found[0][2] in ENDS
