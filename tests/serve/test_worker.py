import asyncio
import inspect
import queue
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from serve_players import Failing, Held, Remembering, Stepped

from echox.generate.engine import Ask, InTurn, pieces_of
from echox.generate.fake import FakeAssistant
from echox.generate.types import WAIT, Piece
from echox.serve.house import House
from echox.serve.refusals import Refusal
from echox.serve.settings import Settings
from echox.serve.worker import UNREAD, Worker
from echox.train.toy import sound_of
from tests.toy_model import toy_model  # noqa: F401 - a fixture


@pytest.fixture
def working():
    workers = []

    def make(assistant, engine=None, **options):
        workers.append(Worker(engine or InTurn(assistant), **options))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()
        assert not worker.alive()


def submit(worker, ask, read=True):
    arrived = queue.Queue()
    box = {}

    def deliver(piece):
        arrived.put(piece)
        if read and piece is not None and not isinstance(piece, Exception):
            box["job"].taken()

    ready = threading.Event()
    box["job"] = worker.submit(ask, lambda piece: (ready.wait(5), deliver(piece)))
    ready.set()
    return box["job"], arrived


def until(true):
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def drained(arrived):
    pieces = []
    while (piece := arrived.get(timeout=60)) is not None:
        pieces.append(piece)
        if isinstance(piece, Exception):
            break
    return pieces


def test_an_answer_is_what_the_assistant_streams(working):
    _, arrived = submit(working(FakeAssistant()), Ask(typed="tea"))
    pieces = drained(arrived)
    wanted = list(FakeAssistant().stream(typed="tea"))
    assert [piece.text for piece in pieces] == [piece.text for piece in wanted] and pieces[-1].finish == "stop"


def test_nobody_waits_for_somebody_elses_whole_answer(working):
    assistant = Stepped()
    worker = working(assistant)
    with worker.changed:  # the thread waits until both are queued
        submitted = [submit(worker, Ask(typed=name, text_only=True)) for name in ("first question here", "second")]
    for _, arrived in submitted:
        drained(arrived)
    turns = [name for name, _ in assistant.made]
    last_of_first = len(turns) - 1 - turns[::-1].index("first question here")
    assert turns.index("second") < 3 and turns.index("second") < last_of_first


def test_who_has_heard_nothing_goes_before_who_has_sound_to_spare(working):
    """The clock stands still: whoever has sound has it to spare, so the second answer sounds before the first goes on."""
    assistant = Stepped()
    worker = working(assistant, clock=lambda: 0.0)
    with worker.changed:
        submitted = [submit(worker, Ask(typed=name)) for name in ("first", "second")]
    for _, arrived in submitted:
        drained(arrived)
    sounds = [name for name, kind in assistant.made if kind == "sound"]
    assert sounds[:6] == ["first", "second", "first", "second", "first", "second"]


class Unequal:
    """An engine whose answer `rich` has ten seconds of sound at once; others need three steps to sound."""

    sample_rate, calls = 10, False

    def __init__(self):
        self.made = []

    def open(self, ask):
        rich = ask.typed == "rich"
        yield Piece(audio=np.zeros(100 if rich else 0, np.float32))
        for number in range(6):
            self.made.append((ask.typed, number))
            yield WAIT
            yield Piece(audio=np.zeros(0 if rich or number < 2 else 10, np.float32))
        yield Piece(finish="stop")

    def step(self):
        self.made.append("step")


def test_who_has_sound_to_spare_stands_still_while_somebody_hears_nothing(working):
    engine = Unequal()
    worker = working(None, engine, clock=lambda: 0.0)
    with worker.changed:
        rich, poor = (submit(worker, Ask(typed=name)) for name in ("rich", "poor"))
    for _, arrived in (rich, poor):
        drained(arrived)
    poor_sounds = engine.made.index(("poor", 2)) + 2  # and the step after it
    assert [one for one in engine.made[:poor_sounds] if one != "step"] == [("poor", number) for number in range(3)]
    assert [one for one in engine.made if one != "step"].count(("rich", 5)) == 1  # it goes on afterwards


def test_a_full_queue_refuses_and_a_place_that_is_freed_is_taken(working):
    assistant = Held()
    worker = working(assistant, slots=1, waiting=1)
    first, _ = submit(worker, Ask(typed="a"))
    until(lambda: assistant.begun)
    _, second = submit(worker, Ask(typed="b"))
    with pytest.raises(Refusal) as caught:
        submit(worker, Ask(typed="c"))
    assert caught.value.status == 429 and caught.value.code == "queue_full"
    first.cancel()
    assistant.go.set()
    assert drained(second)[-1].finish == "stop"
    until(lambda: assistant.ended == assistant.begun == 2)
    assert worker.load() == (0, 0)


def test_an_answer_nobody_reads_waits_for_its_reader(working):
    assistant = Stepped()
    worker = working(assistant)
    job, arrived = submit(worker, Ask(typed="word " * 100), read=False)
    other, answered = submit(worker, Ask(typed="other"))
    assert drained(answered)[-1].finish == "stop"
    until(lambda: len([name for name, _ in assistant.made if name != "other"]) == UNREAD)
    assert arrived.qsize() == UNREAD and worker.load() == (1, 0)
    for _ in range(UNREAD):
        job.taken()
    for _ in range(UNREAD + 1):
        arrived.get(timeout=5)


def test_a_failure_ends_one_answer_only(working):
    worker = working(Failing())
    for _ in range(2):
        pieces = drained(submit(worker, Ask(typed="x"))[1])
        assert isinstance(pieces[-1], ZeroDivisionError) and worker.alive()


def test_a_text_is_said_sentence_by_sentence_and_hearing_ends_with_what_was_heard(working):
    worker = working(FakeAssistant())
    long = "This is a sentence that takes its time to be said aloud. " * 6
    pieces = drained(submit(worker, Ask(say=long))[1])
    assert len([piece for piece in pieces if piece.audio is not None]) >= 2
    assert sum(len(piece.text.split()) for piece in pieces) == len(long.split())
    tone = FakeAssistant().say("one two three").audio
    heard = drained(submit(worker, Ask(tone, hear_only=True))[1])
    assert [piece.heard for piece in heard] == ["0.6 seconds"]


def test_many_at_once_on_a_loaded_model_say_what_each_says_alone(working, toy_model):  # noqa: F811
    """Two slots, a queue of two, somebody who leaves in mid-answer, and somebody who finds no place."""
    from echox.assistant import SpeechAssistant
    from echox.generate.batched import Batched

    assistant = SpeechAssistant.load(str(toy_model), device="cpu", dtype="float32")
    engine, asks = (
        Batched(assistant, 2),
        [Ask(sound_of("Who is the king?")), Ask(typed="Is it?"), Ask(say="A big red city.")],
    )
    worker = working(assistant, engine, slots=2, waiting=2)
    with worker.changed:  # the thread waits until all are queued
        leaving, left = submit(worker, Ask(typed="What is the capital of France?"), read=False)
        submitted = [submit(worker, ask) for ask in asks]
        with pytest.raises(Refusal, match="wait already"):
            submit(worker, asks[0])
    left.get(timeout=20)
    leaving.cancel()
    for ask, (_, arrived) in zip(asks, submitted, strict=True):
        pieces, alone = drained(arrived), list(pieces_of(assistant, ask))
        for name in ("text", "units"):
            assert [getattr(one, name) for one in pieces] == [getattr(one, name) for one in alone]
        waves = [[one.audio for one in some if one.audio is not None] for some in (pieces, alone)]
        assert np.array_equal(*map(np.concatenate, waves))
    until(lambda: worker.load() == (0, 0) and not engine.unread)
    assert all(batch.slots is None and not batch.joining for batch in engine.batches.values())


class Overhearing(InTurn):
    """An engine that listens ahead for ever, and notes what it was asked and what it gave up."""

    def __init__(self, assistant):
        super().__init__(assistant)
        self.asked, self.given_up, self.steps = [], 0, 0

    def open(self, ask):
        self.asked.append(ask)
        if not ask.so_far:
            yield from super().open(ask)
            return
        try:
            while True:
                yield WAIT
        finally:
            self.given_up += 1

    def step(self):
        self.steps += 1


def test_a_question_is_overheard_while_nothing_else_is_to_be_done(working):
    engine = Overhearing(FakeAssistant())
    worker, ask = working(engine.assistant, engine, slots=1, waiting=0), Ask(typed="tea", so_far=True)
    job = worker.overhear(ask)
    until(lambda: engine.steps > 2)
    assert worker.load() == (0, 0)  # it takes nobody's place
    assert drained(submit(worker, Ask(typed="tea"))[1])[-1].finish == "stop" and not engine.given_up
    job.cancel()
    until(lambda: engine.given_up == 1)
    steps = engine.steps
    assistant = Held()
    engine.assistant = assistant
    submit(worker, Ask(typed="tea"))
    until(lambda: assistant.begun)
    assert worker.overhear(ask) is None and engine.steps == steps
    assistant.go.set()


def test_history_goes_to_a_model_that_takes_it_and_to_no_other(working):
    ask = Ask(typed="And now?", history=(("user", "Hi"), ("assistant", "Hello")), instructions="Be brief.")
    told = drained(submit(working(Remembering()), ask)[1])
    assert told[0].text == "Be brief.|user: Hi|assistant: Hello"
    assert drained(submit(working(FakeAssistant()), ask)[1])[-1].finish == "stop"


def test_closing_ends_what_is_under_way():
    assistant = Held()
    assistant.go.set()
    worker = Worker(InTurn(assistant))
    submit(worker, Ask(typed="word " * 300), read=False)
    worker.close()
    assert not worker.alive() and assistant.ended == assistant.begun
    with pytest.raises(Refusal):
        submit(worker, Ask(typed="late"))


def test_an_answer_that_is_given_up_as_a_piece_arrives_is_given_up():
    class Handed:
        sample_rate = 16_000

        def submit(self, ask, deliver):
            self.deliver, self.given_up = deliver, False
            return SimpleNamespace(taken=lambda: None, cancel=lambda: setattr(self, "given_up", True))

    async def story(ticks):
        async def read():
            async for _ in house.answer("m", Ask(typed="x")):
                pass

        worker = Handed()
        house = House({"m": worker}, Settings())
        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0.01)
        worker.deliver(Piece("one"))
        for _ in range(ticks):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading}, timeout=0.5)
        assert reading.cancelled() and worker.given_up

    for ticks in range(6):
        asyncio.run(story(ticks))


class Broken(InTurn):
    """An engine whose step fails as only a bug can."""

    def open(self, ask):
        yield WAIT

    def step(self):
        raise ZeroDivisionError("a bug")


def test_a_model_that_breaks_tells_everybody_and_takes_nobody_more(working, caplog):
    worker = working(FakeAssistant(), Broken(FakeAssistant()), slots=1)
    with worker.changed:  # the thread waits until both are queued
        submitted = [submit(worker, Ask(typed=name)) for name in ("active", "waiting")]
    for _, arrived in submitted:
        told = arrived.get(timeout=10)
        assert isinstance(told, Refusal) and (told.status, told.code) == (503, "model_stopped")
    worker.thread.join(10)
    assert not worker.alive() and worker.load() == (0, 0) and "a model has stopped" in caplog.text
    with pytest.raises(Refusal) as caught:
        submit(worker, Ask(typed="late"))
    assert (caught.value.status, caught.value.code) == (503, "model_stopped")


def test_memory_is_given_back_once_when_nobody_has_asked_for_a_while(working, monkeypatch):
    monkeypatch.setattr("echox.serve.worker.REST_SECONDS", 0.05)
    rested = queue.Queue()

    def give_back(before, growth=0):
        if growth:  # between answers
            return before
        rested.put((len(worker.active), before))
        return before + 1

    monkeypatch.setattr("echox.serve.worker.give_back", give_back)
    worker = working(FakeAssistant())
    for number in range(2):
        drained(submit(worker, Ask(typed="Hi"))[1])
        assert rested.get(timeout=10) == (0, number)  # what was held after the last time
        with pytest.raises(queue.Empty):
            rested.get(timeout=0.2)


def test_a_loaded_models_own_stream_takes_what_the_worker_gives():
    """The real class, not a player: a parameter of another name or kind would fail every second turn of a conversation."""
    from echox.assistant import SpeechAssistant, _read_turn
    from echox.text.prompt import Turn

    taken = set(inspect.signature(SpeechAssistant.stream).parameters)
    assert {"question", "typed", "text_only", "sample_rate", "history"} <= taken
    spy = Spy()
    list(pieces_of(spy, Ask(typed="x", history=(("user", "Hi"), ("assistant", "Hello")))))
    seen = [_read_turn(turn) for turn in spy.history]
    assert seen == [Turn("user", "Hi"), Turn("assistant", "Hello")]


class Spy:
    """Keeps the history that it is given."""

    def stream(self, question, typed, *, history, **options):
        self.history = history
        return []
