"""What a session asks of the engine and of the detector of turns; values."""

from dataclasses import dataclass

from echox.generate.engine import Ask
from echox.serve.session_config import ServerVad


@dataclass(frozen=True)
class Answer:
    """Answer this, and say it in this format."""

    response_id: str
    ask: Ask
    form: str


@dataclass(frozen=True)
class Overhear:
    """Listen to a turn as far as it has come, if there is time; a later one, or an answer, takes its place."""

    ask: Ask


@dataclass(frozen=True)
class Stop:
    """Give up an answer, or a transcript."""

    id: str


@dataclass(frozen=True)
class Hear:
    """Write down what was said, unless an answer to it is asked for at once."""

    item_id: str
    ask: Ask


@dataclass(frozen=True)
class Listen:
    """Find turns like this in what comes from `at_ms` on; None: the client says where turns end."""

    turns: ServerVad | None
    form: str
    at_ms: float
