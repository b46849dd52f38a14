"""Errors in the one shape that the official client reads: `{"error": {message, type, param, code}}`.

Its status decides which exception the client raises and whether it tries again by itself; `x-should-retry` corrects that.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from echox.errors import ConfigError, EchoxError, InputError

INVALID = {
    "missing": "missing_required_parameter",
    "string_too_long": "string_above_max_length",
    "extra_forbidden": "unknown_parameter",
    "none_required": "unsupported_value",
}  # pydantic's name: the protocol's
TRIED = ("body", "str", "constrained-str", "int")  # parts of pydantic's places that name no field
MESSAGES = {
    "extra_forbidden": "not known here; leave it out (for the older protocol send the header OpenAI-Beta: realtime=v1)",
    "none_required": "this server does not do that; leave it out or send null",
}


class Refusal(Exception):
    """Raised where a request ends with an error of its own status and code."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, kind: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.kind = kind or ("server_error" if status >= 500 else "invalid_request_error")

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        return {"error": self.error()}

    def error(self) -> dict[str, Any]:
        """Return the error object alone."""
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}

    def told(self) -> dict[str, Any]:
        """Return the error as part of another event."""
        return {"type": self.kind, "code": self.code, "message": self.message}

    def headers(self) -> dict[str, str]:
        """Return the headers that say whether and when to retry."""
        if self.status in (429, 503):
            return {"Retry-After": "1"}
        return {"x-should-retry": "false"} if self.status >= 500 or self.status in (408, 409) else {}


def invalid(errors: Sequence[Mapping[str, Any]], root: str = "") -> Refusal:
    """Return pydantic's `errors` as one refusal: the most deeply nested, which of several allowed types is the one meant."""
    error = max(errors, key=lambda one: len(one["loc"]))
    kind, place = error["type"], [root] if root else []
    for part in error["loc"]:
        if isinstance(part, int):
            place[-1:] = [f"{''.join(place[-1:])}[{part}]"]
        elif part not in TRIED and ("[" not in part or part.endswith("[]")):  # else a type tried
            place.append(part)
    name = ".".join(place) or None
    code = "invalid_type" if kind.endswith(("_type", "_parsing")) else INVALID.get(kind, "invalid_value")
    message = MESSAGES.get(kind, error["msg"].removeprefix("Value error, "))
    return Refusal(400, f"{name or 'the body'}: {message}.", code, name)


def busy(waiting: int) -> Refusal:
    """Return the refusal of a full queue."""
    message = f"{waiting} answers wait already: try again in a moment."
    return Refusal(429, message, code="queue_full", kind="rate_limit_error")


def stopped() -> Refusal:
    """Return the refusal of a model whose thread has ended."""
    return Refusal(503, "this model has stopped.", code="model_stopped")


def no_tools(param: str) -> Refusal:
    """Return the refusal of a model that cannot call."""
    message = "this model cannot call tools: leave them out, or choose a model whose chat template knows them."
    return Refusal(400, message, "unsupported_value", param)


def no_transcript() -> Refusal:
    """Return the refusal of a model that writes no transcript."""
    return Refusal(400, "this model does not write down what it hears.", "unsupported_value", "model")


def draining() -> Refusal:
    """Return the refusal of a server that is about to end."""
    return Refusal(503, "this server is shutting down: try again, another one will answer.", code="draining")


def refusal_of(error: Exception) -> Refusal:
    """Return any error as a refusal; an internal error shows no details."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, (InputError, ConfigError)):
        return Refusal(400, str(error), code="invalid_value")
    if isinstance(error, TimeoutError):
        return Refusal(504, "the answer took too long and was given up.", code="timeout")
    if isinstance(error, EchoxError):
        return Refusal(500, str(error))
    return Refusal(500, "the server failed at this; its log says why.", code="internal_error")
