"""What is measured: a model here or on a server, and how a batch of questions is put to it.

A model has `ask`, of a spoken wave (16 kHz) or a typed text, for what has the fields of `echox.Reply`. It may also have `say`,
`stream`, `ask_many` and what `probes.py` names; nothing else of it is used. `SpeechAssistant`, its fake, and an
`EndpointAssistant` all fit. A question that fails gives a `Failure` in its place: it is
written down and counts as wrong, and the rest of the batch goes on. Knows nothing about scores or files of results.
"""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import SAMPLE_RATE, resample
from echox.errors import ConfigError, EchoxError, EndpointError
from echox.eval.endpoint import EndpointAssistant
from echox.generate.types import Question, Reply
from echox.hub import resolve_model

RECORDED = (EchoxError, RuntimeError, ValueError, OSError)
"""Errors of one question that are recorded; anything else is a fault of the program and stops the run."""
NO_SOUND = np.zeros(0, np.float32)
SILENCE = Reply("", "", None, SAMPLE_RATE, finish="empty")
"""The answer of a model that had nothing to say: it is empty, which is wrong but no failure."""


@dataclass(frozen=True)
class Failure:
    """Stands where an answer should be; `reason` goes into the item's record, and so does the `text`, if known."""

    reason: str
    text: str = ""


@dataclass(frozen=True)
class ModelChoice:
    """Which model to measure: a name or folder for `SpeechAssistant.load`, or a server and the name it answers to."""

    model: str
    endpoint: str = ""
    device: str = "auto"
    llm: str | Path | None = None
    timeout: float = 120.0
    retries: int = 3
    system: str = ""

    @property
    def folder(self) -> Path | None:
        """The folder of a local model, None for a server's and the fake."""
        return None if self.endpoint or self.model == "fake" else resolve_model(self.model)


def load_subject(choice: ModelChoice) -> tuple[Any, str]:
    """Return the model under test and its printed name, which changes when its weights do.

    Raises EndpointError when a server is away, ConfigError for a system prompt without a server or an `llm` with one, ModelError or
    InputError when a local model is not whole.
    """
    from echox.assistant import SpeechAssistant

    if choice.endpoint:
        if choice.llm is not None:
            raise ConfigError("--llm is for a model on this machine: leave it out, or --endpoint.")
        known = EndpointAssistant(choice.endpoint, choice.model, choice.timeout, choice.retries, system=choice.system)
        known.check()
        return known, known.name
    if choice.system:
        raise ConfigError("--system is sent to a server: give --endpoint, or leave it out.")
    if choice.model == "fake":
        return SpeechAssistant.fake(), "fake"
    assistant = SpeechAssistant.load(choice.model, device=choice.device, llm=choice.llm)
    parts = assistant.parts
    around = f" around {parts.llm_folder.name}" if parts.own_reader else ""
    return assistant, f"{choice.model}{around} ({folder_mark(choice.folder or Path())})"


def folder_mark(folder: Path) -> str:
    """Return eight hexadecimal digits over every weight and configuration file of a model folder."""
    digest = sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".safetensors", ".json", ".gguf") and path.is_file():
            digest.update(str(path.relative_to(folder)).encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:8]


def marks_of(models: Sequence[str]) -> str:
    """Return the marks of several models' folders: another run's results are not theirs once weights have changed."""
    return ", ".join(folder_mark(resolve_model(name)) for name in models)


def machine() -> str:
    """Return one line about the machine, for tables of times."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def timed_on(subject: Any) -> dict[str, str]:
    """Return what times depend on besides the model: the machine, which one of its kind, and the device.

    The machine's own name is private; eight digits of its hash tell it from another.
    """
    holders = (getattr(subject, "parts", None), subject, getattr(subject, "model", None))
    device = next(filter(None, (getattr(holder, "device", None) for holder in holders)), None)
    where = str(device or ("server" if hasattr(subject, "base_url") else "cpu"))
    if where.startswith("cuda"):
        import torch

        where = f"{where}, {torch.cuda.get_device_name(device)}"
    return {"timed_on": machine(), "host": sha256(platform.node().encode()).hexdigest()[:8], "device": where}


def ask_all(subject: Any, questions: Sequence[Question], text_only: bool = False, **options: Any) -> list[Any]:
    """Return one answer or Failure for each question (waves: float32 at 16 kHz).

    One call of `subject.ask_many` when it has that; when the call fails, and for other subjects, one `ask` each.
    """
    if hasattr(subject, "ask_many") and len(questions) > 1:
        try:
            return list(subject.ask_many(questions, text_only=text_only, **options))
        except RECORDED:
            pass  # one of them cannot be answered: ask each alone to find which
    ask = partial(subject.ask, text_only=text_only, **options)
    return [attempt(partial(ask, question=one.sound, typed=one.typed)) for one in questions]


def at_16k(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return audio resampled to 16 kHz, float32 [samples]."""
    return resample(audio, sample_rate, SAMPLE_RATE)


def through(found: Sequence[Any], call: Callable[[list[Any]], Sequence[Any]]) -> list[Any]:
    """Return what `call` makes of all that did not fail, each in its place; a Failure stays where it is."""
    whole = [one for one in found if not isinstance(one, Failure)]
    made = iter(call(whole) if whole else ())
    return [one if isinstance(one, Failure) else next(made) for one in found]


def recorded(call: Callable[[], dict[str, Any]], **otherwise: Any) -> dict[str, Any]:
    """Return the record that `call` makes, with an empty `error`; where it fails, `otherwise` with the reason."""
    found = attempt(call)
    return otherwise | {"error": found.reason} if isinstance(found, Failure) else found | {"error": ""}


def sounds_of(found: Sequence[Any]) -> list[np.ndarray]:
    """Return waves for a recogniser, no sound where one could not be had."""
    return [NO_SOUND if isinstance(wave, Failure) else wave for wave in found]


def attempt(call: Callable[[], Any], what: str = "", text: str = "") -> Any:
    """Return the result of `call`, or a Failure that names the error after `what` and bears `text`."""
    try:
        return call()
    except RECORDED as error:
        kind = "endpoint" if isinstance(error, EndpointError) else type(error).__name__
        return Failure(f"{what}{kind}: {error}", text)
