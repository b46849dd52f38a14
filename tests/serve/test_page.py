"""The page in headless Chromium, a recording as its microphone: spoken to, interrupted, typed to, looked at."""

import json
import shutil
import subprocess
import time
import urllib.request
from base64 import b64decode
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import websockets.sync.client
from serve_players import Loud

from echox.audio import load_audio, save_wav
from echox.generate.fake import FakeAssistant
from echox.serve.settings import Limits
from echox.serve.turns import Detectors

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="install Chromium to run the page's tests")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --mute-audio --autoplay-policy=no-user-gesture-required "
    "--use-fake-ui-for-media-stream --use-fake-device-for-media-stream --remote-debugging-port=0"
).split()


class Long(FakeAssistant):
    """Answers for ten seconds."""

    def _speak(self, text, text_only, left):
        yield from super()._speak(f"{text} " + "And so on. " * 15, text_only, left)


class Page:
    """A tab, driven over Chromium's own protocol."""

    def __init__(self, socket):
        self.socket, self.count, self.problems = socket, 0, []

    def call(self, method, **params):
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv(timeout=20))
            if answer.get("method") == "Runtime.exceptionThrown":
                self.problems.append(answer["params"]["exceptionDetails"])
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.problems.append(answer["params"]["entry"]["text"])
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, code):
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, code, seconds=20):
        end = time.monotonic() + seconds
        while not (value := self.run(code)):
            assert time.monotonic() < end, (code, self.run("document.body.innerText"), self.problems)
            time.sleep(0.03)
        return value

    def key(self, key, code=None):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key)

    def picture(self, path):
        Path(path).write_bytes(b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browsing(url, folder, microphone, width=900, height=760, dark=False, locked=False):
    """Open the page with a recording as its microphone; no exception and no console error may be left behind."""
    flags = [*FLAGS, f"--user-data-dir={folder}/profile", f"--use-file-for-fake-audio-capture={microphone}"]
    process = subprocess.Popen([CHROMIUM, *flags, "about:blank"], stderr=subprocess.PIPE, text=True)
    try:
        line = ""
        while "DevTools listening on" not in line:
            line = process.stderr.readline()
            assert line, "Chromium ended"
        port = line.partition("127.0.0.1:")[2].partition("/")[0]
        tabs = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        with websockets.sync.client.connect(address, max_size=None) as socket:
            page = Page(socket)
            for domain in ("Runtime", "Log", "Page"):
                page.call(f"{domain}.enable")
            phone = width < 500
            page.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
            )
            scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
            page.call("Emulation.setEmulatedMedia", features=scheme)
            page.call("Page.navigate", url=url)
            page.until(
                "document.querySelector('#ask-key')?.open" if locked else "document.querySelector('#model')?.value"
            )
            yield page
            expected = "status of 401" if locked else "nothing"  # Chromium itself logs it
            assert [problem for problem in page.problems if expected not in problem] == []
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def microphone(tmp_path_factory):
    """The example question and a pause, again and again: what Chromium plays as a microphone."""
    path = tmp_path_factory.mktemp("microphone") / "question.wav"
    question = load_audio("examples/question.wav", 48_000)
    save_wav(path, np.concatenate([question, np.zeros(2 * 48_000, np.float32)]), 48_000)
    return path


BUBBLES = "[...document.querySelectorAll('#log .{}')].map((one) => one.innerText).join('\\n')"


def test_press_ask_and_hear_then_type(server, tmp_path, microphone):
    with browsing(server.url, tmp_path, microphone) as page:
        page.run("document.body.focus()")
        page.key(" ", "Space")
        page.until("document.body.dataset.state === 'listening'")
        page.until("Number(document.body.dataset.level) > 0.02")
        page.until("talk.heard.length >= 50")
        page.key(" ", "Space")
        page.until("Number(document.body.dataset.played) > 0.9")
        page.until("document.body.dataset.state === 'idle'")
        answer = page.run(BUBBLES.format("assistant"))
        assert "You asked about" in answer and "first sound after" in answer
        assert "seconds" in page.run(BUBBLES.format("user"))
        played = page.run("speaker.played")
        page.run("document.querySelector('#log .user button').click()")
        page.until(f"speaker.played > {played} + 1.5")
        page.run("document.querySelector('#text').focus()")
        page.call("Input.insertText", text="tea")
        page.run("document.querySelector('#type').requestSubmit()")
        page.until(f"({BUBBLES.format('assistant')}).includes('You asked about tea.')")
        assert page.run("talk.errors") == 0 and page.run("document.querySelector('#save').disabled") is False
    assert server.settled()


def test_just_speak_and_interrupt_by_speaking(start, tmp_path, microphone):
    server = start(Long(), detectors=Detectors(Loud))
    with browsing(server.url, tmp_path, microphone) as page:
        page.run("document.querySelector('input[value=free]').click()")
        page.run("talk.listen()")
        page.until("document.body.dataset.state === 'speaking'")
        assert page.run("speaker.busy()")
        page.until("!!document.querySelector('#log .cut')")  # the recording has begun again
        assert not page.run(
            "document.querySelector('#log .cut').closest('li') === document.querySelector('#log li:last-child') && speaker.busy()"
        )
        page.until("document.querySelectorAll('#log .assistant').length >= 2")
        page.run("talk.quiet(true)")
        page.key("Escape")
        assert not page.run("speaker.busy()") and page.run("talk.errors") == 0
    assert server.settled()


HEARD = """new Promise(async (resolve) => {
  const context = new OfflineAudioContext(1, RATE_, RATE_), code = new Blob([CAPTURE], { type: "text/javascript" });
  await context.audioWorklet.addModule(URL.createObjectURL(code));
  const node = new AudioWorkletNode(context, "capture"), tone = new OscillatorNode(context); let count = 0;
  node.port.onmessage = ({ data }) => { count += data.length; };
  tone.connect(node).connect(context.destination); tone.start();
  await context.startRendering(); setTimeout(() => resolve(count), 200);
})"""


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_microphone_of_any_rate_is_brought_to_that_of_the_wire(server, tmp_path, microphone, rate):
    with browsing(server.url, tmp_path, microphone) as page:
        assert 24_000 - 1100 <= page.run(HEARD.replace("RATE_", str(rate))) <= 24_000  # the last piece is not full


def test_who_is_turned_away_is_told_why(start, tmp_path, microphone):
    server = start(limits=Limits(sessions=1))
    server.house.sessions = 1
    with browsing(server.url, tmp_path, microphone) as page:
        page.run("talk.listen()")
        status = page.run("document.querySelector('#status').innerText")
        assert "conversations are open" in status and "microphone" not in status
        page.run("navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error('none')); talk.socket = null")
        server.house.sessions = 0
        page.run("talk.listen()")
        assert page.run("document.querySelector('#status').innerText") == "No microphone: none"


def test_presses_in_quick_succession_and_the_clock_of_the_server(server, tmp_path, microphone):
    with browsing(server.url, tmp_path, microphone) as page:
        page.run("asked = 0; ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices)")
        page.run("navigator.mediaDevices.getUserMedia = (what) => { asked++; return ask(what); }")
        page.run(
            "seen = []; taken = talk.take.bind(talk); talk.take = (event) => { seen.push(event.type); taken(event); }"
        )
        page.run("Promise.all([talk.listen(), talk.listen()])")
        assert page.run("asked") == 1
        page.until("talk.heard.length >= 5")
        page.run("talk.finish(); talk.listen()")  # a change of mind within the last moment of a turn
        page.until("talk.heard.length >= 10")
        assert page.run("talk.capturing && !document.querySelector('#log .user')")
        assert page.run("talk.heardFrom >= 5 * 960")
        page.run("seen.length = 0")
        page.key("Escape")
        page.until("seen.includes('input_audio_buffer.cleared')")
        assert page.run("!talk.capturing && document.body.dataset.state") == "idle"


def test_what_is_written_for_a_screen_reader_is_written_once(server, tmp_path, microphone):
    with browsing(server.url, tmp_path, microphone) as page:
        page.run("talk.type('tea')")
        page.until("document.body.dataset.state === 'speaking'")
        assert page.run("document.querySelector('#talk-name').textContent") == "Interrupt and speak"
        page.run(
            "written = 0; new MutationObserver((all) => written += all.length).observe($('status'), { childList: true })"
        )
        page.run("for (let i = 0; i < 9; i++) show('speaking', 'As it was')")
        assert page.run("new Promise((resolve) => setTimeout(() => resolve(written), 50))") <= 2
        page.call("Accessibility.enable")
        nodes = [one for one in page.call("Accessibility.getFullAXTree")["nodes"] if not one.get("ignored")]
        roles = [one["role"]["value"] for one in nodes]
        assert roles.count("listitem") == 2 and roles.count("log") == 1 and {"Canvas", "img", "image"}.isdisjoint(roles)


LOOK = """[...document.querySelectorAll('#talk svg')].filter((one) => getComputedStyle(one).display !== 'none')
    .map((one) => one.classList.value).join() + ', ' + $('talk-name').textContent + ', ' + $('status').textContent"""


def test_the_button_shows_and_says_what_a_press_does(start, tmp_path, microphone):
    with browsing(start(Long()).url, tmp_path, microphone) as page:
        assert page.run(LOOK) == "mic, Speak, Press to speak"
        page.run("talk.listen()")
        page.until("document.body.dataset.state === 'listening'")
        assert page.run(LOOK) == "send, Send, Listening. Press again to send"
        page.key("Escape")
        for mode in ("press", "free"):
            page.run(f"document.querySelector('input[value={mode}]').click(); talk.type('tea')")
            page.until("document.body.dataset.state === 'speaking'")
            assert page.run(LOOK) == "mic, Interrupt and speak, Press to interrupt"  # nobody listens
            page.run("document.querySelector('#log .assistant button').click()")  # heard again: the answer is over
            assert page.run(LOOK) == "mic, Speak, Press to speak"
        page.run("talk.listen()")
        page.until("talk.capturing")
        assert page.run(LOOK) == "stop, Stop listening, Listening. Just speak"


def test_a_key_is_asked_for_and_remembered(start, tmp_path, microphone):
    server = start(keys=("right",))
    with browsing(server.url, tmp_path, microphone, locked=True) as page:
        page.run("document.querySelector('#key').value = 'right'; document.querySelector('#ask-key').close()")
        page.until("document.querySelector('#model').options.length === 1")
        page.run("talk.type('tea')")
        page.until(f"({BUBBLES.format('assistant')}).includes('You asked about tea.')")


def test_everything_has_a_name_for_a_screen_reader(server, tmp_path, microphone):
    with browsing(server.url, tmp_path, microphone, width=390, height=780, dark=True) as page:
        page.call("Accessibility.enable")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        for node in nodes:
            role = node.get("role", {}).get("value")
            if role in ("button", "combobox", "textbox", "radio") and not node.get("ignored"):
                assert node["name"]["value"], node
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        fetched = page.run("performance.getEntriesByType('resource').map((one) => one.name)")
        assert all(name.startswith((server.url, "data:", "blob:")) for name in fetched)


if __name__ == "__main__":  # pictures to look at: python tests/serve/test_page.py URL FOLDER
    import sys
    import tempfile

    url, out = sys.argv[1:]
    with tempfile.TemporaryDirectory() as home:
        sound = Path(home) / "question.wav"
        question = load_audio("examples/question.wav", 48_000)
        save_wav(sound, np.concatenate([question, np.zeros(48_000, np.float32)]), 48_000)
        for name, width, height, dark in (
            ("light", 900, 760, False),
            ("dark", 900, 760, True),
            ("phone", 390, 780, False),
        ):
            with browsing(url, f"{home}/{name}", sound, width, height, dark) as shown:
                shown.picture(f"{out}/{name}-idle.png")
                shown.key(" ", "Space")
                shown.until("talk.heard.length >= 30")
                shown.picture(f"{out}/{name}-listening.png")
                shown.until("talk.heard.length >= 62")
                shown.key(" ", "Space")
                shown.until("document.body.dataset.state === 'speaking'", 60)
                time.sleep(0.3)
                shown.picture(f"{out}/{name}-speaking.png")
                shown.until("document.body.dataset.state === 'idle'", 60)
                shown.run("talk.type('What is the largest ocean?')")
                shown.until("document.querySelectorAll('#log .assistant').length === 2", 60)
                shown.until("document.body.dataset.state === 'idle'", 60)
                shown.picture(f"{out}/{name}-done.png")
