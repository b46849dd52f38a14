"""Anybody's OpenAI-compatible server as the model under test: `/chat/completions` with audio, and `/audio/speech`.

Only the standard library's urllib is used, so nothing has to be installed to measure a server. Passing faults
(time-outs, 408, 409, 429, 5xx) are tried again with growing waits; everything else is an EndpointError with the
server's own words. Wire format: the chat completions reference of the openai SDK 3.x. Knows nothing about scores.
"""

import base64
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any

import numpy as np

from echox.errors import ConfigError, EndpointError

PASSING = frozenset({408, 409, 429, 500, 502, 503, 504})
STREAM_RATE = 24_000  # Hz of raw pcm16, by the vendor's convention
QUESTION_RATE = 16_000
LONGEST_WAIT = 30.0  # seconds between two tries
PROBE_SECONDS = 30.0  # the longest wait for the one short answer that shows before a run that a server works
NO_LIST = frozenset({404, 405, 501})  # a server without /models
VOTE_TEMPERATURE = 0.5  # of a judge's votes: at 0 all three would be the same


@dataclass(frozen=True)
class EndpointReply:
    """One answer of a server; fields as in `echox.Reply`."""

    question: str | None
    text: str
    audio: np.ndarray | None
    sample_rate: int
    wall_seconds: float
    first_audio_seconds: float | None
    finish: str
    units: None = None

    @property
    def audio_seconds(self) -> float:
        """Length of the answer's audio in seconds, 0 without audio."""
        return 0.0 if self.audio is None else len(self.audio) / self.sample_rate


@dataclass(frozen=True)
class EndpointPiece:
    """A piece of a streamed answer: text, or float32 audio at `sample_rate`."""

    text: str
    audio: np.ndarray | None
    sample_rate: int = STREAM_RATE


class EndpointAssistant:
    """A server at `base_url` (ending in /v1) that answers as `model`; the key is read from $OPENAI_API_KEY.

    `timeout` is seconds for one try, `retries` how often a passing fault is tried again, `system` an instruction sent
    with every question. Raises ConfigError when the address is not http or https.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        timeout: float = 120.0,
        retries: int = 3,
        voice: str = "default",
        system: str = "",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(f"--endpoint {base_url!r} must begin with http:// or https://, such as http://host/v1.")
        self.base_url, self.model, self.voice, self.system = base_url.rstrip("/"), model, voice, system
        self.name = f"{model} at {self.base_url}"
        self.temperature = 0.0
        self._timeout, self._retries, self._sleep = timeout, retries, sleep

    def check(self) -> None:
        """Raise EndpointError when the server does not offer the model at `/models`, or gives no short answer in 30 s.

        Nothing is tried again. A server without `/models` (404, 405) has only to answer.
        """
        own = self._timeout, self._retries
        self._timeout, self._retries = min(self._timeout, PROBE_SECONDS), 0
        try:
            known = self._offered()
            if known and self.model not in known:
                raise EndpointError(f"{self.base_url} does not serve {self.model!r}: it offers {', '.join(known[:8])}.")
            self.ask(typed="Answer with the one word yes.", text_only=True)
        finally:
            self._timeout, self._retries = own

    def _offered(self) -> list[str]:
        """Return the names of the server's models, none when it has no list of them."""
        try:
            answer = self._json(self._request("models"))
        except EndpointError as error:
            if isinstance(error.__cause__, urllib.error.HTTPError) and error.__cause__.code in NO_LIST:
                return []
            raise
        return [str(entry.get("id")) for entry in answer.get("data") or [] if isinstance(entry, dict)]

    def ask(
        self,
        question: Any = None,
        typed: str | None = None,
        text_only: bool = False,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> EndpointReply:
        """Return the server's answer to a wave (float32 at 16 kHz) or a typed text; audio too unless `text_only`."""
        body = self._body(question, typed, text_only, seed)
        started = time.perf_counter()
        answer = self._json(self._request("chat/completions", body))
        try:
            choice = answer["choices"][0]
            message = choice["message"]
            spoken = message.get("audio") or {}
            text = message.get("content") or spoken.get("transcript") or ""
            audio, rate = _decode_wav(spoken["data"]) if spoken.get("data") else (None, QUESTION_RATE)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise EndpointError(f"{self.base_url} answered without choices[0].message: {str(answer)[:120]}.") from error
        if not text_only and audio is None and str(text).strip():
            raise EndpointError(f"{self.base_url} sent no audio although it was asked for: leave the s2s arm out.")
        wall = time.perf_counter() - started
        finish = str(choice.get("finish_reason") or "stop")
        return EndpointReply(typed, str(text), audio, rate, wall, wall if audio is not None else None, finish)

    def say(self, text: str) -> EndpointReply:
        """Return a text spoken by the server's `/audio/speech`."""
        body = {"model": self.model, "input": text, "voice": self.voice, "response_format": "wav"}
        started = time.perf_counter()
        audio, rate = _decode_wav(base64.b64encode(self._request("audio/speech", body)).decode())
        wall = time.perf_counter() - started
        return EndpointReply(None, text, audio, rate, wall, wall, "stop")

    def stream(self, question: Any = None, typed: str | None = None, seed: int = 0) -> Iterator[EndpointPiece]:
        """Yield the pieces of a streamed answer as they arrive (server-sent events, raw pcm16 at 24 kHz).

        Raises EndpointError when the stream breaks off or ends without its [DONE].
        """
        body = self._body(question, typed, False, seed)
        body |= {"stream": True, "audio": {"voice": self.voice, "format": "pcm16"}}
        with self._open("chat/completions", body) as response:
            for line in self._lines(response):
                data = line.decode("utf-8", "replace").strip().removeprefix("data:").strip()
                if not data or not line.startswith(b"data:"):
                    continue
                if data == "[DONE]":
                    return
                yield from _pieces(data, self.base_url)
        raise EndpointError(f"{self.base_url} ended its stream without [DONE]: the answer may be cut; try again.")

    def _lines(self, response: HTTPResponse) -> Iterator[bytes]:
        """Yield the lines of a stream; raise EndpointError when the connection breaks off."""
        try:
            yield from response
        except (OSError, HTTPException) as error:
            raise EndpointError(f"{self.base_url} broke off its stream ({error!r}); try again.") from error

    def _body(self, question: Any, typed: str | None, text_only: bool, seed: int) -> dict[str, Any]:
        content: Any = typed
        if typed is None:
            wav = {"data": _encode_wav(np.asarray(question, dtype=np.float32)), "format": "wav"}
            content = [{"type": "input_audio", "input_audio": wav}]
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": content})
        body: dict[str, Any] = {"model": self.model, "messages": messages, "seed": seed}
        body["temperature"] = self.temperature
        body["modalities"] = ["text"] if text_only else ["text", "audio"]
        if not text_only:
            body["audio"] = {"voice": self.voice, "format": "wav"}
        return body

    def _json(self, content: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(content)
        except ValueError as error:
            raise EndpointError(
                f"{self.base_url} answered with something that is not JSON: {content[:80]!r}."
            ) from error
        if not isinstance(answer, dict):
            raise EndpointError(
                f"{self.base_url} answered with a {type(answer).__name__} where an object was expected."
            )
        return answer

    def _request(self, path: str, body: dict[str, Any] | None = None) -> bytes:
        with self._open(path, body) as response:
            try:
                return response.read()
            except (OSError, HTTPException) as error:
                raise EndpointError(f"{self.base_url}/{path} broke off its answer ({error}); try again.") from error

    def _open(self, path: str, body: dict[str, Any] | None) -> HTTPResponse:
        """Return an open response, trying passing faults again; raise EndpointError with the last fault."""
        url = f"{self.base_url}/{path}"
        headers = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
        headers["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body).encode()
        fault, cause = "", None
        for attempt in range(self._retries + 1):
            wait = min(2.0**attempt, LONGEST_WAIT)
            try:
                request = urllib.request.Request(url, data, headers)
                return urllib.request.urlopen(request, timeout=self._timeout)
            except urllib.error.HTTPError as error:
                fault, cause = f"answered {error.code}: {_server_words(error)}", error
                if error.code not in PASSING or error.headers.get("x-should-retry") == "false":
                    break
                after = error.headers.get("Retry-After", "")
                wait = min(float(after), LONGEST_WAIT) if after.replace(".", "", 1).isdigit() else wait
            except TimeoutError:
                fault = f"did not answer within {self._timeout:g} s"
            except (urllib.error.URLError, OSError, HTTPException) as error:
                slow = isinstance(getattr(error, "reason", None), TimeoutError)
                fault = f"did not answer within {self._timeout:g} s" if slow else f"cannot be reached ({error})"
            if attempt < self._retries:
                self._sleep(wait)
        raise EndpointError(f"{url} {fault}; check the server and resume.") from cause


def chat_function(base_url: str, model: str, timeout: float = 120.0, retries: int = 3) -> Callable[[str, int], str]:
    """Return `chat(prompt, seed) -> reply` over a server, for the scorers that ask a language model for votes."""
    assistant = EndpointAssistant(base_url, model, timeout, retries)
    assistant.temperature = VOTE_TEMPERATURE
    assistant.check()
    return lambda prompt, seed: assistant.ask(typed=prompt, text_only=True, seed=seed).text


def _pieces(data: str, url: str) -> Iterator[EndpointPiece]:
    try:
        chunk = json.loads(data)
        if chunk.get("error"):
            raise EndpointError(f"{url} failed while streaming: {chunk['error'].get('message', chunk['error'])}.")
        deltas = [choice.get("delta") or {} for choice in chunk.get("choices", [])]
    except (ValueError, AttributeError) as error:
        raise EndpointError(f"{url} streamed something that is not a chunk: {data[:80]!r}.") from error
    for delta in deltas:
        spoken = delta.get("audio") or {}
        text = delta.get("content") or spoken.get("transcript") or ""
        if text:
            yield EndpointPiece(text, None)
        if spoken.get("data"):
            pcm = np.frombuffer(base64.b64decode(spoken["data"]), dtype="<i2")
            yield EndpointPiece("", pcm.astype(np.float32) / 32768.0)


def _encode_wav(samples: np.ndarray) -> str:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), QUESTION_RATE, format="WAV", subtype="PCM_16")
    return base64.b64encode(buffer.getvalue()).decode()


def _decode_wav(data: str) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32", always_2d=True)
    except (ValueError, soundfile.LibsndfileError) as error:
        raise EndpointError(f"the server's audio is not a WAV file ({error}).") from error
    return samples.mean(axis=1), int(rate)


def _server_words(error: urllib.error.HTTPError) -> str:
    try:
        content = error.read()[:2000].decode("utf-8", "replace")
    except (OSError, HTTPException):
        return error.reason
    try:
        return str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return content.strip()[:120] or error.reason
