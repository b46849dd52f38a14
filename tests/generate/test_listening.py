"""A question that is heard while it is asked: the answer to it is that to the whole, and nothing is made twice."""

import random

import numpy as np
import pytest

from echox import InputError, SpeechAssistant
from echox.generate.batched import Batched
from echox.generate.ears import EDGE, Drafts
from echox.generate.engine import Ask, made_by
from echox.generate.listening import EVERY_SECONDS, Pace
from echox.generate.types import WAIT
from echox.train.toy import sound_of
from tests.toy_model import listening_model, toy_model  # noqa: F401 - fixtures

QUESTIONS = ("What is the capital of France?", "Who is the king?", "What is the capital of France?")


@pytest.fixture(scope="module", params=["toy_model", "listening_model"])
def assistant(request):
    return SpeechAssistant.load(str(request.getfixturevalue(request.param)), device="cpu", dtype="float32")


def told(pieces):
    """Return all that a listener is told: words heard, words said, units, samples, why it ended."""
    pieces = list(pieces)
    waves = [np.zeros(0, np.float32), *(piece.audio for piece in pieces if piece.audio is not None)]
    text, heard = ("".join(getattr(piece, name) for piece in pieces) for name in ("text", "heard"))
    return text, heard, [unit for piece in pieces for unit in piece.units], np.concatenate(waves), pieces[-1].finish


def assert_same(pieces, wanted):
    found, wanted = told(pieces), told(wanted)
    assert [*found[:3], found[4]] == [*wanted[:3], wanted[4]]
    np.testing.assert_allclose(found[3], wanted[3], atol=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_however_a_question_comes_it_is_answered_as_a_whole(assistant, seed):
    listening, chance = assistant.listen(), random.Random(seed)
    for question in QUESTIONS:
        wave, at, opened = sound_of(question), 0, []
        ask = listening._ask
        listening._ask = lambda so_far=False, ask=ask, opened=opened: opened.append(so_far) or ask(so_far)
        while len(wave) - at > 6400:
            size = chance.randrange(800, 6400)
            listening.push(wave[at : at + size])
            at += size
        assert_same(listening.answer(wave[at:]), assistant.stream(wave))
        assert opened.count(True) >= int(len(wave) / 16_000 / EVERY_SECONDS) // 2 and opened[-1] is False
        listening._ask = ask


def test_what_was_found_before_the_end_is_not_made_again(assistant, monkeypatch):
    """The same samples twice: the text model goes on from the words that were begun, one position at a time."""
    body, read = assistant.parts.s2t.body, []
    forward, wave = body.forward, sound_of(QUESTIONS[0])

    def counted(*given, **options):
        read.append(options["inputs_embeds"].shape[1])
        return forward(*given, **options)

    monkeypatch.setattr(body, "forward", counted)
    wanted = list(assistant.stream(wave, text_only=True))
    alone = list(read)
    engine = Batched(assistant, keep=1)
    assert list(made_by(engine, Ask(wave, so_far=True))) == []
    read.clear()
    assert_same(made_by(engine, Ask(wave, text_only=True)), wanted)
    assert max(alone) > 8 and max(read) == 1 and len(read) < len(alone)


def test_one_that_is_given_up_leaves_nothing_behind(assistant):
    engine, wave = Batched(assistant, keep=1), sound_of(QUESTIONS[1])
    ahead = engine.open(Ask(wave, so_far=True))
    assert next(ahead) is WAIT
    engine.step()
    ahead.close()
    assert not engine.unread and all(not len(batch) and batch.slots is None for batch in engine.batches.values())
    assert_same(made_by(engine, Ask(wave)), assistant.stream(wave))
    assert list(Batched(assistant).open(Ask(wave, so_far=True))) == []  # who keeps nothing need not listen


def test_a_quiet_beginning_is_no_error_and_silence_is(assistant):
    listening, wave = assistant.listen(), sound_of(QUESTIONS[1])
    for _ in range(6):
        listening.push(np.zeros(1600, np.float32))
    with pytest.raises(InputError, match="silent"):
        list(listening.answer())
    assert_same(listening.answer(wave), assistant.stream(wave))


def test_an_assistant_without_weights_listens_too():
    listening = SpeechAssistant.fake().listen(8_000)
    listening.push(np.full(4_000, 0.1, np.float32))
    assert told(listening.answer(np.full(4_000, -0.1, np.float32)))[0] == "You asked about 1.0 seconds."


def due(*sounds, rate=1000):
    """Return the times, in seconds, at which a sound of pieces (seconds, level) is worth hearing again."""
    pace, now, found = Pace(), 0.0, []
    for seconds, level in sounds:
        now += seconds
        pace.push(level * np.array([1, -1] * round(seconds * rate / 2)), rate)
        found += [round(now, 3)] if pace.is_due(now) else []
    return found


def test_listening_is_due_by_time_for_long_questions_by_share_and_at_once_in_a_pause():
    speech, pause, step = 0.5, 0.02, 0.1
    assert due(*[(step, speech)] * 12) == [0.4, 0.8, 1.2]
    assert due((18.0, speech), *[(0.25, speech)] * 9) == [18.0, 20.0]
    assert due(*[(step, speech)] * 5, *[(step, pause)] * 3) == [0.4, 0.7]  # 0.2 s of pause, not 0.3 s later
    assert due(*[(step, speech)] * 5, *[(step, pause)] * 8) == [0.4, 0.7, 1.1]  # once a pause
    assert due((step, speech), *[(step, pause)] * 2) == []  # a click is no question
    assert due(*[(step, 0.3 * speech)] * 6) == [0.4] and due(*[(step, 0.0)] * 6) == [0.4]


def test_drafts_are_found_by_their_samples():
    wave = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    drafts = Drafts(2)
    assert drafts.begun(wave) == [] and drafts.whole(wave) is None
    drafts.put(wave[:4000], [1])
    drafts.put(wave[:8000], [1, 2])
    assert drafts.begun(wave) == [1, 2] and drafts.whole(wave) is None and drafts.whole(wave[:4000]) == [1]
    resampled = wave.copy()
    resampled[8000 - EDGE // 2 :] += 0.1  # the end of what was heard first has changed
    assert drafts.begun(resampled) == [1, 2]
    other = wave.copy()
    other[100] += 0.1
    assert drafts.begun(other) == [] and drafts.begun(wave[:2000]) == []
    drafts.put(wave[:12_000], [1, 2, 3])
    assert drafts.whole(wave[:4000]) is None and len(drafts.found) == 2
    assert not any(
        isinstance(held, np.ndarray) for one in drafts.found for held in one
    )  # no sound outlives its question
    empty = Drafts(0)
    empty.put(wave, [1])
    assert empty.whole(wave) is None
