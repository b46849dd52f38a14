"""The underrun player by hand, against a player moved one sample at a time, and against the mutants it must not be."""

import platform
from types import SimpleNamespace

import numpy as np
import pytest
from eval_fakes import Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from echox.errors import ConfigError, InputError
from echox.eval.questions import Item
from echox.eval.scorers.playback import Chunk, play
from echox.eval.tasks.latency import Live, latency_tables, measure, peak_memory, run_latency


def play_reference(chunks, sample_rate, ticks):
    """Return (first audio, underruns, seconds stalled) of the same player, moved on one sample at a time for `ticks`.

    The obvious twin of `play` for arrivals that fall on sample times.
    """
    waiting = sorted((round(chunk.arrival * sample_rate), chunk.samples) for chunk in chunks if chunk.samples)
    total = sum(samples for _, samples in waiting)
    buffered = heard = stalls = dry_ticks = 0
    first, dry = -1, False
    for tick in range(ticks):
        while waiting and waiting[0][0] <= tick:
            buffered += waiting.pop(0)[1]
            first = tick if first < 0 else first
        if first < 0 or heard == total:
            continue
        if buffered:
            buffered, heard, dry = buffered - 1, heard + 1, False
        else:
            stalls, dry_ticks, dry = stalls + (not dry), dry_ticks + 1, True
    return first / sample_rate, stalls, dry_ticks / sample_rate


RATE = 10  # samples a second, so that every number below can be checked by head


def test_one_chunk_never_stalls():
    heard = play([Chunk(2.0, 30)], RATE)
    assert (heard.first_audio, heard.underruns, heard.stalled, heard.ended, heard.audio_seconds) == (
        2.0,
        0,
        0,
        5.0,
        3.0,
    )


def test_a_late_chunk_is_an_underrun_of_its_lateness():
    heard = play([Chunk(1.0, 10), Chunk(2.5, 10)], RATE)  # dry at 2.0, back at 2.5
    assert (heard.underruns, heard.stalled, heard.delay_needed, heard.ended) == (1, 0.5, 0.5, 3.5)


def test_a_chunk_at_the_very_end_is_in_time_and_one_sample_later_is_not():
    assert play([Chunk(1.0, 10), Chunk(2.0, 10)], RATE).underruns == 0
    assert play([Chunk(1.0, 10), Chunk(2.1, 10)], RATE).underruns == 1


def test_early_chunks_are_saved_up():
    # 1 s and 3 s of audio at once: dry at 5.0 although the third chunk comes 3 s after the second
    assert play([Chunk(1.0, 10), Chunk(1.0, 30), Chunk(4.9, 10)], RATE).underruns == 0


def test_a_stall_moves_everything_after_it():
    # dry at 2, stalls to 4, then plays until 6: a chunk at 5.9 is in time only because of the stall
    heard = play([Chunk(1.0, 10), Chunk(4.0, 20), Chunk(5.9, 10)], RATE)
    assert (heard.underruns, heard.stalled, heard.ended) == (1, 2.0, 7.0)
    # a player that had waited 2 s from the start would have stalled nowhere
    assert heard.delay_needed == pytest.approx(2.0)


def test_two_stalls_and_the_delay_that_saves_both():
    heard = play([Chunk(0.0, 10), Chunk(1.5, 10), Chunk(4.0, 10)], RATE)  # 0.5 late, then 1.5 after 2.5
    assert (heard.underruns, heard.stalled) == (2, 2.0)
    assert heard.delay_needed == pytest.approx(2.0)
    late = [Chunk(0.0, 0), Chunk(2.0, 10), Chunk(2.0, 10), Chunk(4.0, 10)]  # all held back by that delay
    assert play(late, RATE).underruns == 0


def test_empty_chunks_start_nothing():
    assert play([], RATE) is None and play([Chunk(0.5, 0)], RATE) is None
    assert play([Chunk(0.5, 0), Chunk(2.0, 5)], RATE).first_audio == 2.0
    assert play([Chunk(1.0, 10), Chunk(9.0, 0)], RATE).underruns == 0  # nothing was missing any more


def test_arrivals_that_go_back_are_refused():
    with pytest.raises(InputError, match="in order"):
        play([Chunk(2.0, 5), Chunk(1.0, 5)], RATE)
    with pytest.raises(InputError):
        play([Chunk(2.0, -5)], RATE)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 20)), min_size=1, max_size=8))
def test_the_player_agrees_with_one_moved_a_sample_at_a_time(steps):
    arrival, chunks = 0, []
    for wait, samples in steps:
        arrival += wait
        chunks.append(Chunk(arrival / RATE, samples))
    heard = play(chunks, RATE)
    first, underruns, stalled = play_reference(chunks, RATE, ticks=500)
    if heard is None:
        assert first < 0
        return
    assert heard.first_audio == pytest.approx(first) and heard.underruns == underruns
    assert heard.stalled == pytest.approx(stalled)
    delayed = [Chunk(heard.first_audio + heard.delay_needed, 0), *chunks]
    held = [Chunk(max(chunk.arrival, delayed[0].arrival), chunk.samples) for chunk in delayed]
    assert play(held, RATE).underruns == 0  # the delay that it names is enough ...
    if heard.delay_needed > 0.1:  # ... and a tenth of a second (one sample) less is not
        less = heard.first_audio + heard.delay_needed - 0.1
        assert play([Chunk(max(chunk.arrival, less), chunk.samples) for chunk in chunks], RATE).underruns > 0


def streaming(clock: Clock, pieces):
    """Returns a model whose pieces (wait, text, samples) come after their waits."""

    def stream(**asked):
        for wait, text, samples in pieces:
            clock.now += wait
            yield SimpleNamespace(text=text, audio=None if samples is None else np.zeros(samples), sample_rate=RATE)

    return SimpleNamespace(stream=stream)


def test_a_stream_is_timed_and_played():
    clock = Clock()
    model = streaming(
        clock, [(0.5, "It is", None), (0.5, " Paris", None), (1.0, "", 10), (0.1, " now", None), (2.0, "", 10)]
    )
    found = measure(model, "Capital?", clock)
    assert found["first_text"] == 0.5 and found["first_audio"] == 2.0 and found["tokens_before_audio"] == 3
    assert found["underruns"] == 1 and found["stalled"] == pytest.approx(1.1)  # dry at 3.0, back at 4.1
    assert found["total"] == pytest.approx(4.1) and found["real_time_factor"] == pytest.approx(2.05)
    assert found["text"] == "It is Paris now" and found["arrivals"] == [[2.0, 10], [pytest.approx(4.1), 10]]


class Listener:
    """Listens to a tenth of a second in 0.3 s at the fifth push, and answers after 0.2 s."""

    def __init__(self, clock):
        self.clock, self.pushed = clock, []

    def listen(self, rate):
        assert rate == 16_000
        return self

    def push(self, wave):
        self.pushed.append((round(self.clock.now, 6), len(wave)))
        self.clock.now += 0.3 if len(self.pushed) == 5 else 0.0

    def answer(self, wave):
        self.pushed.append((round(self.clock.now, 6), len(wave)))
        self.clock.now += 0.2
        yield SimpleNamespace(text="Yes", audio=np.zeros(10), sample_rate=RATE)


def test_a_question_said_in_real_time_is_timed_from_its_last_sample():
    """0.65 s are said by 0.65 s of the clock; the model, late by listening, has them at 0.8 s and sounds at 1.0 s."""
    clock = Clock()
    model = Listener(clock)
    live = Live(model, clock, sleep=lambda seconds: setattr(clock, "now", clock.now + seconds))
    found = measure(live, np.zeros(10_400, np.float32), clock)
    assert [time for time, _ in model.pushed] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.8, 0.8]
    assert [size for _, size in model.pushed] == [1600] * 6 + [800]
    assert found["first_audio"] == pytest.approx(0.35) and found["text"] == "Yes"
    with pytest.raises(ConfigError, match="cannot listen"):
        Live(SimpleNamespace())


def test_a_model_without_a_stream_is_one_late_chunk():
    clock = Clock()

    def ask(**asked):
        clock.now += 3.0
        return SimpleNamespace(text="Paris", audio=np.zeros(20), sample_rate=RATE)

    found = measure(SimpleNamespace(ask=ask), np.zeros(5), clock)
    assert found["first_audio"] == 3.0 and found["underruns"] == 0 and found["audio_seconds"] == 2.0


def test_the_table_has_percentiles_and_underruns():
    clock = Clock()
    model = streaming(clock, [(1.0, "a b", None), (1.0, "", 10), (3.0, "", 10)])
    records = [measure(model, "q", clock) | {"error": ""} for _ in range(4)]
    (table,) = latency_tables({}, records, {"peak_rss_mib": 12.3})
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["first audio, s"] == ("2.000", "2.000") and rows["answers with underruns"] == ("4 of 4", "4 in all")
    assert rows["text tokens before first audio"] == ("2", "2")
    assert rows["peak rss mib"][0] == "12" and peak_memory()["peak_rss_mib"] > 1


def test_times_of_two_machines_or_devices_never_share_a_file(tmp_path, monkeypatch):
    questions = [Item("q", "Capital?", ("Paris",))]
    model = streaming(Clock(), [(0.0, "a", None), (0.0, "", 10)])
    (table,) = run_latency(model, "m", questions, tmp_path)
    assert "device cpu" in table.note
    run_latency(model, "m", questions, tmp_path)  # the same machine resumes
    model.device = "meta"
    with pytest.raises(ConfigError, match="device was 'cpu' and is 'meta'"):
        run_latency(model, "m", questions, tmp_path)
    del model.device
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    with pytest.raises(ConfigError, match="host was"):
        run_latency(model, "m", questions, tmp_path)
