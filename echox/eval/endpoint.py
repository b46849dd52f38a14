"""Anybody's OpenAI-compatible server as the model under test: `/chat/completions` with audio, and `/audio/speech`.

The `openai` client sends, waits and tries passing faults again; what a server says in return is taken apart here, since servers
of speech differ from the vendor's more than its types allow. Every fault is an EndpointError with the server's own words. Knows
nothing about scores.
"""

import base64
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from echox.audio import SAMPLE_RATE, from_pcm16, to_pcm16, wav_header
from echox.errors import ConfigError, EndpointError, InputError, require
from echox.generate.types import Piece, Question, Reply

STREAM_RATE = 24_000  # Hz of raw pcm16, by the vendor's convention
PROBE_SECONDS = 30.0  # the longest wait for the one short answer that shows before a run that a server works
VOICE = "default"  # that a server is asked to speak with
NO_LIST = frozenset({404, 405, 501})  # a server without /models
VOTE_TEMPERATURE = 0.5  # of a judge's votes: at 0 all three would be the same


class EndpointAssistant:
    """A server at `base_url` (ending in /v1) that answers as `model`; the key is read from $OPENAI_API_KEY.

    `timeout` is seconds for one try, `retries` how often a passing fault is tried again, `system` an instruction sent with every
    question. Raises ConfigError when the address is not http or https, MissingDependency without the openai package.
    """

    sample_rate = STREAM_RATE  # of the pieces of a stream

    def __init__(
        self,
        base_url: str,
        model: str,
        timeout: float = 120,
        retries: int = 3,
        system: str = "",
        temperature: float = 0,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(f"--endpoint {base_url!r} must begin with http:// or https://, such as http://host/v1.")
        self.base_url, self.model, self.system = base_url.rstrip("/"), model, system
        self.name, self.temperature, self._timeout = f"{model} at {self.base_url}", temperature, timeout
        self._openai, self._transport = require("openai", "eval"), require("httpx2", "eval")
        key = os.environ.get("OPENAI_API_KEY") or "none"
        self._client = self._openai.OpenAI(base_url=self.base_url, api_key=key, timeout=timeout, max_retries=retries)

    def check(self) -> None:
        """Raise EndpointError when the server does not offer the model at `/models`, or gives no short answer in 30 s.

        Nothing is tried again. A server without `/models` (404, 405) has only to answer.
        """
        seconds = min(self._timeout, PROBE_SECONDS)
        probe = EndpointAssistant(self.base_url, self.model, seconds, retries=0, system=self.system)
        try:
            listed = probe._json(probe._client.models.with_raw_response.list).get("data") or []
        except EndpointError as error:
            if getattr(error.__cause__, "status_code", None) not in NO_LIST:
                raise
            listed = []
        known = [str(entry.get("id")) for entry in listed if isinstance(entry, dict)]
        if known and self.model not in known:
            raise EndpointError(f"{self.base_url} does not serve {self.model!r}: it offers {', '.join(known[:8])}.")
        probe.ask(typed="Answer with the one word yes.", text_only=True)

    def ask(
        self,
        question: Any = None,
        typed: str | None = None,
        text_only: bool = False,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> Reply:
        """Return the server's answer to a wave (float32 at 16 kHz) or a typed text; audio too unless `text_only`."""
        asked, started = Question.of(question, typed), time.perf_counter()
        create = self._client.chat.completions.with_raw_response.create
        answer = self._json(create, **self._body(asked, text_only, seed))
        try:
            choice = answer["choices"][0]
            text, spoken = _content(choice["message"])
            audio, rate = _decode_wav(base64.b64decode(spoken)) if spoken else (None, SAMPLE_RATE)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise EndpointError(f"{self.base_url} answered without choices[0].message: {str(answer)[:120]}.") from error
        if not text_only and audio is None and text.strip():
            raise EndpointError(f"{self.base_url} sent no audio although it was asked for: leave the s2s arm out.")
        wall = time.perf_counter() - started
        first, finish = None if audio is None else wall, str(choice.get("finish_reason") or "stop")
        return Reply(asked.name, text, audio, rate, wall_seconds=wall, first_audio_seconds=first, finish=finish)

    def say(self, text: str, max_seconds: float | None = None) -> Reply:
        """Return a text spoken by the server's `/audio/speech`, which is not told of a limit."""
        started = time.perf_counter()
        with self._faults():
            create = self._client.audio.speech.create
            content = create(model=self.model, input=text, voice=VOICE, response_format="wav").content
        audio, rate = _decode_wav(content)
        wall = time.perf_counter() - started
        return Reply(text, text, audio, rate, wall_seconds=wall, first_audio_seconds=wall)

    def stream(self, question: Any = None, typed: str | None = None, seed: int = 0) -> Iterator[Piece]:
        """Yield the pieces of a streamed answer (pcm16 at 24 kHz); EndpointError when it breaks off or ends without [DONE]."""
        body = self._body(Question.of(question, typed), False, seed)
        body |= {"stream": True, "audio": {"voice": VOICE, "format": "pcm16"}}
        opened = self._client.chat.completions.with_streaming_response.create
        with self._faults("broke off its stream"), opened(**body) as response:
            for line in response.iter_lines():
                data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                if data == "[DONE]":
                    return
                if data:
                    yield from _pieces(data, self.base_url)
        raise EndpointError(f"{self.base_url} ended its stream without [DONE]: the answer may be cut; try again.")

    def _body(self, question: Question, text_only: bool, seed: int) -> dict[str, Any]:
        content: Any = question.typed
        if question.typed is None:
            pcm = to_pcm16(np.asarray(question.sound))
            wav = base64.b64encode(wav_header(SAMPLE_RATE, len(pcm)) + pcm).decode()
            content = [{"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}}]
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": content})
        body = {"model": self.model, "messages": messages, "seed": seed, "temperature": self.temperature}
        spoken = {"modalities": ["text", "audio"], "audio": {"voice": VOICE, "format": "wav"}}
        return body | ({"modalities": ["text"]} if text_only else spoken)

    def _json(self, call: Callable[..., Any], **body: Any) -> dict[str, Any]:
        """Return the object that a call of the client is answered with; EndpointError when it is something else."""
        with self._faults():
            content = call(**body).content
        try:
            answer = json.loads(content)
        except ValueError as error:
            raise EndpointError(f"{self.base_url} answered with what is not JSON: {content[:80]!r}.") from error
        if not isinstance(answer, dict):
            raise EndpointError(f"{self.base_url} sent a {type(answer).__name__} where an object was expected.")
        return answer

    @contextmanager
    def _faults(self, broken: str = "cannot be reached") -> Iterator[None]:
        """Raise the client's errors as EndpointErrors with the server's own words."""
        try:
            yield
        except self._openai.APIStatusError as error:
            words = error.body.get("message") if isinstance(error.body, dict) else None
            said = words or error.response.text.strip()[:120] or error.response.reason_phrase
            fault, cause = f"answered {error.status_code}: {said}", error
        except (self._openai.APITimeoutError, self._transport.TimeoutException) as error:
            fault, cause = f"did not answer within {self._timeout:g} s", error
        except (self._openai.OpenAIError, self._transport.HTTPError, OSError) as error:
            fault, cause = f"{broken} ({error.__cause__ or error})", error
        else:
            return
        raise EndpointError(f"{self.base_url} {fault}; check the server and resume.") from cause


def chat_function(base_url: str, model: str) -> Callable[[str, int], str]:
    """Return `chat(prompt, seed) -> reply` over a server, for the scorers that ask a language model for votes."""
    assistant = EndpointAssistant(base_url, model, temperature=VOTE_TEMPERATURE)
    assistant.check()
    return lambda prompt, seed: assistant.ask(typed=prompt, text_only=True, seed=seed).text


def _content(message: dict[str, Any]) -> tuple[str, str]:
    """Return the text of a message or a delta, and its speech in base 64."""
    spoken = message.get("audio") or {}
    return str(message.get("content") or spoken.get("transcript") or ""), spoken.get("data") or ""


def _pieces(data: str, url: str) -> Iterator[Piece]:
    try:
        chunk = json.loads(data)
        if chunk.get("error"):
            raise EndpointError(f"{url} failed while streaming: {chunk['error'].get('message', chunk['error'])}.")
        found = [_content(choice.get("delta") or {}) for choice in chunk.get("choices") or []]
        pieces = [(text, from_pcm16(base64.b64decode(spoken))) for text, spoken in found]
    except (ValueError, TypeError, AttributeError, InputError) as error:
        raise EndpointError(f"{url} streamed something that is not a chunk: {data[:80]!r}.") from error
    for text, wave in pieces:
        if text:
            yield Piece(text)
        if len(wave):
            yield Piece(audio=wave)


def _decode_wav(content: bytes) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except (ValueError, soundfile.LibsndfileError) as error:
        raise EndpointError(f"the server's audio is not a WAV file ({error}).") from error
    return samples.mean(axis=1), int(rate)
