"""From the names a user gives to what a run needs, in an order that finds every mistake before a model is loaded."""

import platform
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from echox.errors import ConfigError, InputError, require
from echox.eval.endpoint import EndpointAssistant, chat_function
from echox.eval.judges import Judge, find_judge, load_judge
from echox.eval.scorers.answers import NAMES, Scorer, find_scorer

WER_NORMALISER = "Whisper's English normaliser without its spelling table, jiwer"


@dataclass(frozen=True)
class ModelChoice:
    """Which model to measure: a name or folder for `SpeechAssistant.load`, or a server and the name it answers to."""

    model: str
    endpoint: str = ""
    device: str = "auto"
    llm: str | None = None
    timeout: float = 120.0
    retries: int = 3
    system: str = ""


def choose_scorers(names: str, endpoint: str, model: str, prompt: Path | None) -> list[Scorer]:
    """Return the scorers of a comma-separated list, the first being the one that tables use.

    Raises ConfigError for unknown names or none, InputError for a missing prompt file, EndpointError when the server is away.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise ConfigError(f"--scorer is empty: give at least one of {', '.join(NAMES)}.")
    if prompt is not None and not prompt.is_file():
        raise InputError(f"{prompt} is missing: give --scorer-prompt a text file.")
    chat = chat_function(endpoint, model) if endpoint else None
    text = prompt.read_text(encoding="utf-8") if prompt else None
    return [find_scorer(name, chat, text) for name in wanted]


def choose_judges(
    judge: str, recogniser: str, spoken: bool, cascade: bool, window: int, device: str
) -> tuple[Judge | None, Judge | None]:
    """Return the judge and the cascade's recogniser (the judge when none is named), each only if needed.

    Both folders are checked before either is loaded. Raises ConfigError when a spoken arm has no judge.
    """
    if spoken and not judge:
        raise ConfigError("the arms s2s, teacher and cascade are heard by a judge: give --judge, such as whisper-base.")
    if spoken:
        require("jiwer", "eval")
    for name in (judge if spoken else "", recogniser if cascade else ""):
        if name:
            find_judge(name)
    heard_by = load_judge(judge, device, window) if spoken else None
    if not cascade:
        return heard_by, None
    return heard_by, heard_by if recogniser in ("", judge) else load_judge(recogniser, device, window)


def load_subject(choice: ModelChoice) -> tuple[Any, str]:
    """Return the model under test and its printed name, which changes when its weights do.

    Raises EndpointError when a server is away, ConfigError for a system prompt without a server, ModelError or InputError
    when a local model is not whole.
    """
    if choice.endpoint:
        assistant = EndpointAssistant(
            choice.endpoint, choice.model, choice.timeout, choice.retries, system=choice.system
        )
        assistant.check()
        return assistant, assistant.name
    if choice.system:
        raise ConfigError("--system is sent to a server: give --endpoint, or leave it out.")
    if choice.model == "fake":
        from echox.generate.fake import FakeAssistant

        return FakeAssistant(), "fake"
    from echox.assistant import SpeechAssistant
    from echox.hub import resolve_model

    subject = SpeechAssistant.load(choice.model, device=choice.device, llm=choice.llm)
    return subject, f"{choice.model} ({folder_mark(resolve_model(choice.model))})"


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


def model_folder(choice: ModelChoice) -> Path | None:
    """Return the folder of a local model, None for a server's and the fake."""
    from echox.hub import resolve_model

    return None if choice.endpoint or choice.model == "fake" else resolve_model(choice.model)


def machine() -> str:
    """Return one line about the machine, for tables of times."""
    import os

    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def timed_on(subject: Any) -> dict[str, str]:
    """Return what times depend on besides the model: the machine, which one of its kind, and the device.

    The machine's own name is private; eight digits of its hash tell it from another.
    """
    holders = (getattr(subject, "parts", None), subject, getattr(subject, "model", None))
    device = next((found for found in (getattr(holder, "device", None) for holder in holders) if found), None)
    where = str(device) if device else "server" if hasattr(subject, "base_url") else "cpu"
    if where.startswith("cuda"):
        import torch

        where = f"{where}, {torch.cuda.get_device_name(device)}"
    return {"timed_on": machine(), "host": sha256(platform.node().encode()).hexdigest()[:8], "device": where}
