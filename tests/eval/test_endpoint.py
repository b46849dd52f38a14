"""Anybody's server: what is sent, what comes back, and every way in which a server lets one down."""

import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile

from echox.errors import ConfigError, EndpointError
from echox.eval import endpoint
from echox.eval.endpoint import EndpointAssistant, chat_function
from echox.eval.questions import Item
from echox.eval.results import Results, read_results
from echox.eval.scorers.answers import find_scorer
from echox.eval.tasks.latency import measure, run_latency
from echox.eval.tasks.qa import QaRun, run_arms


def wav(seconds: float = 0.5, rate: int = 24_000) -> str:
    """Returns a tone as a base64 WAV file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.3 * np.sin(np.arange(int(seconds * rate)) * 0.1), rate, format="WAV", subtype="PCM_16")
    return base64.b64encode(buffer.getvalue()).decode()


def answer(text: str, audio: str | None = None, finish: str = "stop") -> dict:
    """Returns a chat completion in the vendor's shape."""
    message = {"role": "assistant", "content": None if audio else text, "refusal": None}
    if audio:
        message["audio"] = {"id": "a", "data": audio, "expires_at": 1, "transcript": text}
    return {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }


class Broken(bytes):
    """A stream's first lines, after which the connection ends in the middle of a chunk."""


class Server:
    """A scripted server: each POST takes the next of `script`, the last one for ever; requests are kept."""

    def __init__(self) -> None:
        self.script: list = [answer("Paris")]
        self.seen: list[dict] = []
        self.list_status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args) -> None:
                pass

            def do_GET(self) -> None:
                if outer.list_status != 200:
                    return self._send(outer.list_status, b"no such page")
                self._send(200, json.dumps({"object": "list", "data": [{"id": "m"}]}).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.seen.append({"path": self.path, "key": self.headers["Authorization"], **body})
                step = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                if step == "hang":
                    outer.release.wait(5)
                    return
                if isinstance(step, tuple):
                    self._send(*step)
                elif isinstance(step, Broken):
                    self.send_response(200)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self.wfile.write(b"%x\r\n%s\r\n4000\r\ndata: {" % (len(step), step))  # and no more of it
                    self.close_connection = True
                elif isinstance(step, bytes):
                    self._send(200, step)
                else:
                    self._send(200, json.dumps(step).encode())

            def _send(self, status: int, content: bytes, headers: dict | None = None) -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self.release = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture(scope="module")
def running():
    server = Server()
    yield server
    server.release.set()
    server.server.shutdown()


@pytest.fixture
def server(running):
    running.script, running.seen, running.list_status = [answer("Paris")], [], 200
    return running


def client(server, **options) -> EndpointAssistant:
    """Returns a client of the server's only model."""
    return EndpointAssistant(server.url, "m", **options)


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list:
    """Waits between two tries are noted, not slept."""
    found: list = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


ERROR = json.dumps(
    {"error": {"message": "out of memory", "type": "server_error", "param": None, "code": None}}
).encode()


def test_a_typed_question_asks_for_text_alone(server):
    reply = client(server, system="Be brief.").ask(typed="Capital?", text_only=True, seed=7)
    (sent,) = server.seen
    assert reply.text == "Paris" and reply.audio is None and reply.finish == "stop"
    assert sent["modalities"] == ["text"] and "audio" not in sent and sent["seed"] == 7 and sent["model"] == "m"
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital?"}]


def test_a_spoken_question_is_sent_as_wav_and_speech_comes_back(server):
    server.script = [answer("It is Paris.", wav(), "length")]
    reply = client(server).ask(np.linspace(-0.5, 0.5, 16_000).astype(np.float32))
    (part,) = server.seen[0]["messages"][0]["content"]
    sent, rate = soundfile.read(io.BytesIO(base64.b64decode(part["input_audio"]["data"])))
    assert part["type"] == "input_audio" and part["input_audio"]["format"] == "wav"
    assert (len(sent), rate) == (16_000, 16_000) and abs(sent[-1] - 0.5) < 1e-3
    assert server.seen[0]["modalities"] == ["text", "audio"] and server.seen[0]["audio"]["format"] == "wav"
    assert reply.text == "It is Paris." and reply.finish == "length"
    assert (len(reply.audio), reply.sample_rate) == (12_000, 24_000) and reply.audio_seconds == 0.5


def test_passing_faults_are_tried_again_with_growing_waits(server, waits):
    server.script = [(500, ERROR), (503, ERROR), answer("Paris")]
    assert client(server).ask(typed="q", text_only=True).text == "Paris"
    assert 0 < waits[0] < waits[1] and len(waits) == 2 and len(server.seen) == 3
    waits.clear()
    server.script = [(429, ERROR, {"Retry-After": "7"}), answer("Paris")]
    client(server).ask(typed="q", text_only=True)
    assert waits == [7]


def test_a_lasting_500_is_an_error_with_the_servers_words(server):
    server.script = [(500, ERROR)]
    with pytest.raises(EndpointError, match="500: out of memory"):
        client(server, retries=2).ask(typed="q", text_only=True)
    assert len(server.seen) == 3


def test_a_refusal_is_not_tried_again(server):
    server.script = [(400, b"bad modality")]
    with pytest.raises(EndpointError, match="400: bad modality"):
        client(server).ask(typed="q", text_only=True)
    server.script = [(500, ERROR, {"x-should-retry": "false"})]
    with pytest.raises(EndpointError):
        client(server).ask(typed="q", text_only=True)
    assert len(server.seen) == 2


def test_a_server_that_hangs_times_out(server):
    server.script = ["hang"]
    with pytest.raises(EndpointError, match=r"did not answer within 0\.2 s"):
        client(server, timeout=0.2, retries=1).ask(typed="q", text_only=True)
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (b"<html>", "not JSON"),
        (b"[1]", "a list where an object"),
        ({"choices": []}, "without choices"),
        ({"choices": [{"message": {"audio": {"data": "AAAA"}}}]}, "not a WAV"),
    ],
)
def test_answers_of_another_shape_are_told(server, step, told):
    server.script = [step]
    with pytest.raises(EndpointError, match=told):
        client(server).ask(typed="q", text_only=False)


def test_missing_speech_a_wrong_address_and_an_unknown_model_are_told(server):
    with pytest.raises(EndpointError, match="no audio"):
        client(server).ask(typed="q")
    with pytest.raises(ConfigError, match="http"):
        EndpointAssistant("localhost:1", "m")
    with pytest.raises(EndpointError, match="offers m"):
        EndpointAssistant(server.url, "other").check()
    client(server).check()
    with pytest.raises(EndpointError, match="cannot be reached"):
        EndpointAssistant("http://127.0.0.1:9/v1", "m", retries=0).check()


def test_a_server_that_hangs_is_found_out_before_the_run(server, monkeypatch):
    monkeypatch.setattr(endpoint, "PROBE_SECONDS", 0.2)
    server.script = ["hang"]
    assistant = client(server, timeout=60, retries=5)
    started = time.perf_counter()
    with pytest.raises(EndpointError, match=r"did not answer within 0\.2 s"):
        assistant.check()
    assert time.perf_counter() - started < 3 and len(server.seen) == 1  # one try
    server.script = [(500, ERROR), answer("Paris")]
    assert assistant.ask(typed="q", text_only=True).text == "Paris"  # a run has its retries again


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_without_a_list_of_models_has_only_to_answer(server, status):
    server.list_status = status
    client(server).check()
    server.script = [(404, b"no such model")]
    with pytest.raises(EndpointError, match="404: no such model"):
        client(server).check()


def test_a_list_that_fails_is_an_error(server):
    server.list_status = 403
    with pytest.raises(EndpointError, match="403"):
        client(server).check()


def test_no_words_and_no_sound_are_an_empty_answer(server):
    server.script = [answer("")]
    reply = client(server).ask(typed="q")
    assert reply.text == "" and reply.audio is None


def test_a_server_also_speaks_and_judges(server):
    server.script = [base64.b64decode(wav(0.25))]
    assert client(server).say("hello").audio_seconds == 0.25
    assert server.seen[0]["path"] == "/v1/audio/speech" and server.seen[0]["input"] == "hello"
    server.script = [answer("Yes")]
    scorer = find_scorer("voicebench-qa", chat_function(server.url, "m"))
    server.seen.clear()
    assert scorer.score("Paris", ("Paris",), "Capital?") == 1.0
    assert [sent["seed"] for sent in server.seen] == [0, 1, 2] and server.seen[0]["temperature"] > 0  # three votes


def test_a_stream_is_read_chunk_by_chunk(server):
    pcm = base64.b64encode(np.full(2400, 1000, "<i2").tobytes()).decode()
    deltas = [
        {"audio": {"id": "a", "transcript": "It is"}},
        {"audio": {"data": pcm}},
        {"audio": {"transcript": " Paris"}},
    ]
    lines = [f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta}]})}\n\n" for delta in deltas]
    server.script = ["".join([*lines, "data: [DONE]\n\n"]).encode()]
    found = measure(client(server), "Capital?")
    assert found["text"] == "It is Paris" and found["audio_seconds"] == 0.1 and found["tokens_before_audio"] == 2
    assert server.seen[0]["stream"] is True and server.seen[0]["audio"]["format"] == "pcm16"
    server.script = [b'data: {"error": {"message": "lost"}}\n\n']
    with pytest.raises(EndpointError, match="lost"):
        list(client(server).stream(typed="q"))
    for spoilt in ("AAA", base64.b64encode(b"odd").decode()):  # neither whole base64 nor whole samples
        line = json.dumps({"choices": [{"index": 0, "delta": {"audio": {"data": spoilt}}}]})
        server.script = [f"data: {line}\n\n".encode()]
        with pytest.raises(EndpointError, match="not a chunk"):
            list(client(server).stream(typed="q"))


def test_a_run_goes_on_past_a_500_and_counts_it_wrong(server, tmp_path):
    server.script = [answer("Paris"), (500, ERROR), answer("Paris")]
    questions = [Item(f"q{i}", "Capital?", ("Paris",)) for i in range(3)]
    results = Results(tmp_path / "results.jsonl", {"model": "m"})
    run_arms(
        QaRun(client(server, retries=0), None, [find_scorer("qa-exist-match")], tmp_path), questions, ("t2t",), results
    )
    scores = [results.items["t2t", f"q{i}"] for i in range(3)]
    assert [item["score"] for item in scores] == [1, 0, 1] and "out of memory" in scores[1]["error"]


def test_streams_that_break_off_are_recorded(server, tmp_path):
    line = b'data: {"choices": [{"index": 0, "delta": {"content": "It"}}]}\n\n'
    server.script = [line]
    with pytest.raises(EndpointError, match=r"without \[DONE\]"):
        list(client(server).stream(typed="q"))
    server.script = [Broken(line)]
    with pytest.raises(EndpointError, match="broke off its stream"):
        list(client(server).stream(typed="q"))
    questions = [Item(f"q{i}", "Capital?", ("Paris",)) for i in range(2)]
    run_latency(client(server), "m", questions, tmp_path)  # the warm-up fails, too
    items = read_results(tmp_path / "latency.jsonl")[1]
    assert [("broke off" in item["error"]) for item in items] == [True, True]
