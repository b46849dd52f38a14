"""The session object of the realtime protocol: validated, and updated field by field.

Unsupported and unknown fields are refused by name, as the protocol's own server does.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from echox.serve.refusals import Refusal, invalid, no_tools
from echox.serve.wire import FORMS

MOST_TOOLS = 128
MOST_CHARS = 20_000  # of a text that is kept
MOST_NAME = 512  # characters of a name or an id that is only shown again
EAGERNESS_MS = {"low": 1000, "medium": 500, "high": 300, "auto": 500}  # of silence, for `semantic_vad`


def short(text: str, param: str) -> str:
    """Return `text`; Refusal where reading it would keep the model from others for too long, or where it is no Unicode."""
    if len(text) > MOST_CHARS:
        message = f"{param} holds more than {MOST_CHARS} characters: send less."
        raise Refusal(400, message, "string_above_max_length", param)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refusal(
            400, f"{param} holds half a surrogate pair: send whole characters.", "invalid_value", param
        ) from None
    return text


def written(tools: Sequence[Any], param: str) -> None:
    """Raise a Refusal where `tools` are too long, nested too deeply, or hold what JSON cannot say."""
    try:
        text = json.dumps(tools, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        message = f"{param} are nested too deeply, or hold a number that is not finite: send simpler ones."
        raise Refusal(400, message, "invalid_value", param) from None
    short(text, param)


class Known(BaseModel):
    """Base of objects that refuse unknown fields."""

    model_config = ConfigDict(extra="forbid")


class PcmFormat(Known):
    """Raw sound; PCM has one rate."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: Literal[24000] | None = None

    @property
    def form(self) -> str:
        """Our name of it."""
        return FORMS[self.type]


class ServerVad(Known):
    """Turn detection by the server."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(default=0.5, ge=0.0, le=1.0)
    prefix_padding_ms: int = Field(default=300, ge=0, le=5000)
    silence_duration_ms: int = Field(default=500, ge=32, le=10_000)
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: None = None


class Transcription(BaseModel):
    """That transcripts are asked for; how they are made is not the client's to say, and of that only `model` is shown."""

    model: str | None = Field(default=None, max_length=MOST_NAME)


class Input(Known):
    """The input side: format, transcription, turn detection."""

    format: PcmFormat = PcmFormat()
    transcription: Transcription | None = None
    noise_reduction: None = None
    turn_detection: ServerVad | None = ServerVad()

    @field_validator("noise_reduction", mode="before")
    @classmethod
    def heard_as_it_is(cls, _: Any) -> None:
        """Accept any value and show null: clients that ask for it work without."""

    @field_validator("turn_detection", mode="before")
    @classmethod
    def found_by_sound(cls, value: Any) -> Any:
        """Turn `semantic_vad` into `server_vad`, with a longer silence for less eagerness; the session shows the latter."""
        if not isinstance(value, dict) or value.get("type") != "semantic_vad":
            return value
        eagerness = value.get("eagerness", "auto")
        if not isinstance(eagerness, str) or eagerness not in EAGERNESS_MS:
            raise ValueError(f"eagerness is one of {', '.join(EAGERNESS_MS)}")
        kept = {name: one for name, one in value.items() if name != "eagerness"}
        return {**kept, "type": "server_vad", "silence_duration_ms": EAGERNESS_MS[eagerness]}


class Output(Known):
    """The output side; a model has one voice and one speed."""

    format: PcmFormat = PcmFormat()
    voice: str = Field(default="default", max_length=MOST_NAME)
    speed: Literal[1] = 1

    @field_validator("voice", mode="before")
    @classmethod
    def named(cls, voice: Any) -> Any:
        """Return a voice's name, also where an object gives it as its id."""
        return voice.get("id") if isinstance(voice, dict) else voice


class Audio(Known):
    """Input and output."""

    input: Input = Input()
    output: Output = Output()


class Tool(BaseModel):
    """A function that the model may call."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] = {}

    def shown(self) -> dict[str, Any]:
        """Return it as chat templates take it."""
        known = {"name": self.name, "description": self.description or "", "parameters": self.parameters}
        return {"type": "function", "function": known}


class NamedTool(Tool):
    """A tool as the realtime protocol writes it."""

    type: Literal["function"]


class SessionConfig(Known):
    """The session object."""

    type: Literal["realtime"] = "realtime"
    model: str = ""
    instructions: str = Field(default="", max_length=MOST_CHARS)
    output_modalities: list[Literal["audio", "text"]] = Field(default=["audio"], min_length=1)
    max_output_tokens: int | Literal["inf"] = "inf"
    tools: list[NamedTool] = Field(default=[], max_length=MOST_TOOLS)
    tool_choice: Literal["auto", "none"] = "auto"
    parallel_tool_calls: Literal[True] = True
    truncation: Literal["auto"] = "auto"
    prompt: None = None
    include: None = None
    audio: Audio = Audio()

    @field_validator("max_output_tokens")
    @classmethod
    def some_tokens(cls, most: int | str) -> int | str:
        """Refuse a limit below 1."""
        if isinstance(most, int) and most < 1:
            raise ValueError("give 1 or more, or inf")
        return most

    @property
    def most_tokens(self) -> int | None:
        """How much an answer may say, None without a limit."""
        return self.max_output_tokens if isinstance(self.max_output_tokens, int) else None

    @property
    def callable(self) -> tuple[dict[str, Any], ...]:
        """What may be called now, as chat templates take it."""
        return tuple(tool.shown() for tool in self.tools if self.tool_choice == "auto")

    @property
    def text_only(self) -> bool:
        """Whether answers are written and not said."""
        return "audio" not in self.output_modalities


OWN = ("conversation", "input", "metadata")  # fields of a response that are none of the session
TOLD = ("id", "object", "expires_at", "tracing")  # fields of a session that the server tells: one that is sent is taken
NULLABLE = {"transcription", "noise_reduction", "turn_detection"}


def updated(config: SessionConfig, change: object, param: str = "session", calls: bool = False) -> SessionConfig:
    """Return `config` with the fields that `change` holds; null clears; Refusal that names the first field that is wrong.

    Tools are for a model that `calls`.
    """
    if not isinstance(change, dict):
        raise Refusal(400, f"{param} is missing or no object.", "invalid_value", param)
    if change.get("model") not in (None, config.model):
        message = f"this conversation is with {config.model!r}: connect with ?model= for another."
        raise Refusal(400, message, "cannot_update_model", f"{param}.model")
    change = {name: value for name, value in change.items() if name not in TOLD}
    try:
        found = SessionConfig.model_validate(_merged(config.model_dump(), change) | {"model": config.model})
    except ValidationError as error:
        raise invalid(error.errors(), param) from None
    if found.tools and not calls:
        raise no_tools(f"{param}.tools")
    written([tool.shown() for tool in found.tools], f"{param}.tools")
    return found


def _merged(values: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for name, value in change.items():
        if value is None and name not in NULLABLE:
            merged.pop(name, None)
        elif isinstance(value, dict) and isinstance(merged.get(name), dict) and name != "format":
            merged[name] = _merged(merged[name], value)
        else:
            merged[name] = value
    return merged


def as_session(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a response that override the session's."""
    return {name: value for name, value in asked.items() if name not in OWN and value is not None}


def shown(config: SessionConfig, session_id: str, expires_at: int) -> dict[str, Any]:
    """Return the session object as it is sent."""
    values = config.model_dump()
    for side in ("input", "output"):
        form = values["audio"][side]["format"]
        form["rate"] = 24_000 if form["type"] == "audio/pcm" else None
        values["audio"][side]["format"] = {name: value for name, value in form.items() if value is not None}
    return {"object": "realtime.session", "id": session_id, **values, "tracing": None, "expires_at": expires_at}
