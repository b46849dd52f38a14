import asyncio
import shutil
from contextlib import asynccontextmanager
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import pytest
from serve_players import Failing
from typer.testing import CliRunner

from echox.commands.eval import app
from echox.errors import ConfigError, EndpointError, InputError
from echox.eval.report.page import tables_of
from echox.eval.report.plots import draw_load
from echox.eval.results import read_results
from echox.eval.scorers.playback import Chunk
from echox.eval.tasks import load as load_module
from echox.eval.tasks.load import Load, read_recordings, run_load
from echox.realtime import RATE, event_of
from echox.serve.settings import Limits


def talk(server, out, *options):
    arguments = [
        "load",
        "examples/question.wav",
        "--endpoint",
        f"{server.url}/v1",
        "--model",
        "fake",
        "--out",
        str(out),
    ]
    return CliRunner().invoke(app, [*arguments, "--key", "k", *options])


@pytest.mark.parametrize(
    "options", [("--sessions", "3", "--think", "0"), ("--rate", "20"), ("--sessions", "6", "--live")]
)
def test_many_voices_are_all_answered(start, tmp_path, options):
    server = start(keys=("k",))
    found = talk(server, tmp_path, "--answers", "6", *options)
    assert found.exit_code == 0, found.output
    settings, answers = read_results(tmp_path / "load.jsonl")
    assert len(answers) == 6 and not any(one["error"] for one in answers) and "key" not in settings
    assert {one["text"] for one in answers} == {"You asked about 2.4 seconds."}
    assert all(one["audio_seconds"] == 1.0 and 0 < one["first_audio"] < one["total"] for one in answers)
    assert all(one["ended"] >= one["first_audio"] + one["audio_seconds"] - 1e-6 for one in answers)
    table = (tmp_path / "load.md").read_text()
    assert [shown.markdown() for shown in tables_of(settings, answers)] == [table]  # as `echox eval report` shows it
    assert "first audio p95" in table and "| 6 |" in table and server.settled()
    assert ("said in real time" in table) == ("--live" in options)
    assert (tmp_path / "load.svg").read_text().startswith("<svg") or not find_spec("matplotlib")


def test_the_plot_counts_what_broke_off_and_what_failed():
    pytest.importorskip("matplotlib")
    good, failed = {"first_audio": 0.2, "underruns": 0, "error": None}, {"underruns": 0, "error": "x"}
    answers = [good, good | {"first_audio": 0.6}, good | {"underruns": 2}, failed | {"first_audio": None}]
    drawn = draw_load(answers)
    assert drawn == draw_load(answers)  # the same bytes
    for words in ("in one go: 2", "broke off: 1", "failed: 1", "p50: 0.200 s", "p95: 0.560 s"):
        assert words in drawn, words
    assert "failed: 1" in draw_load([failed | {"first_audio": None}])


def test_what_is_refused_is_counted_as_an_error(start, tmp_path):
    server, sounds = start(limits=Limits(sessions=1)), read_recordings([Path("examples")], 1)
    tables = run_load(Load(f"{server.url}/v1", "fake", 3, 9, "k"), sounds, tmp_path)
    errors = [one["error"] for one in read_results(tmp_path / "load.jsonl")[1]]
    assert any(errors) and not all(errors) and tables[0].rows[0][-2] == str(sum(map(bool, errors)))
    broken = f"{start(Failing(after=0)).url}/v1"
    with pytest.raises(EndpointError, match="gave no answer"):
        run_load(Load(broken, "fake", 1, 2), sounds, tmp_path)
    with pytest.raises(EndpointError, match="gave no answer"):
        run_load(Load("http://127.0.0.1:9/v1", "fake", 1, 1), sounds, tmp_path)


def test_the_errors_of_one_recording_are_not_those_of_the_next(start, tmp_path):
    (sound,) = read_recordings([Path("examples/question.wav")], 1)
    brief = sound[: RATE // 10]  # 50 ms: its commit and its response are both refused
    run_load(Load(f"{start().url}/v1", "fake", 1, 4), [brief, sound], tmp_path)
    answers = read_results(tmp_path / "load.jsonl")[1]
    assert [bool(one["error"]) for one in answers] == [True, False, True, False]
    assert {one["text"] for one in answers} == {"", "You asked about 2.4 seconds."}


def test_a_conversation_whose_time_is_over_is_no_error(start, tmp_path):
    server, sounds = start(limits=Limits(session_seconds=1.0)), read_recordings([Path("examples")], 1)
    run_load(Load(f"{server.url}/v1", "fake", 1, 3, "k", think_seconds=1.2), sounds, tmp_path)
    assert not any(one["error"] for one in read_results(tmp_path / "load.jsonl")[1])


def test_a_plan_and_recordings_must_be_some(tmp_path):
    assert CliRunner().invoke(app, ["load", str(tmp_path), "--sessions", "0"]).exit_code == 2
    with pytest.raises(ConfigError, match="no recordings"):
        read_recordings([tmp_path], 3)
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_recordings([tmp_path / "nowhere"], 3)
    shutil.copyfile(next(Path("examples").rglob("*.wav")), tmp_path / "A.WAV")
    assert len(read_recordings([tmp_path], 3)) == len(read_recordings([tmp_path / "A.WAV"], 3)) == 1


@pytest.mark.parametrize("endpoint", ["http://host:1", "http://host:1/", "http://host:1/v1", "http://host:1/v1/"])
def test_a_server_is_named_by_its_host_or_by_its_v1(endpoint):
    assert Load(endpoint, "mini", 1, 1).address == "ws://host:1/v1/realtime?model=mini"
    assert Load(endpoint.replace("http", "https"), "mini", 1, 1).address == "wss://host:1/v1/realtime?model=mini"


@pytest.mark.parametrize("sent", ["<html>", "[]", "{}", '"x"'])
def test_what_is_no_event_is_told_as_such(sent):
    with pytest.raises(EndpointError, match="no event: is it a realtime server"):
        event_of(sent)


def test_a_talker_asks_again_when_playback_ends_and_not_before(monkeypatch):
    """Sound from 1 s, dry from 2 to 2.5 s, all sent after 2.6 s: heard out at 3.5 s, 0.9 s later."""
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    async def answer(socket, sound, live):
        return load_module._met({"status": "completed"}, [Chunk(1.0, RATE), Chunk(2.5, RATE)], 2.6, "")

    @asynccontextmanager
    async def conversation(*given):
        yield SimpleNamespace(close_code=None)

    monkeypatch.setattr(load_module, "conversation", conversation)
    monkeypatch.setattr(load_module, "_answer", answer)
    monkeypatch.setattr(load_module.asyncio, "sleep", sleep)
    asyncio.run(load_module._talker(Load("http://x", "m", 1, 1), iter([1]), cycle([b""]), lambda one: None))
    assert waited == [pytest.approx(0.9)]
