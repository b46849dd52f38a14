"""The settings of a server: models, keys, limits; worker processes get them as JSON in an environment variable."""

import secrets
from dataclasses import dataclass, field, fields

from pydantic import TypeAdapter

from echox.errors import ConfigError

VARIABLE = "ECHOX_SERVE"  # settings of a worker process, as JSON
MOST_VALUES = 50_000  # in one JSON: what is many small values is not read in a moment, and everybody waits meanwhile


@dataclass(frozen=True)
class Limits:
    """Limits on load, sizes and times (in seconds)."""

    slots: int = 8  # answers made at once, a model: rows of its batches (docs/serving.md says why so many)
    waiting: int = 32  # answers that may wait for a place, a model
    sessions: int = 64  # open realtime connections
    requests_a_minute: int = 0  # of one key, or one address where there are no keys; 0: any number
    body_bytes: int = 25 << 20
    question_seconds: float = 120.0  # of sound in one turn
    answer_seconds: float = 120.0  # without a new piece of the answer
    idle_seconds: float = 600.0  # without a word from a realtime client
    session_seconds: float = 1800.0
    drain_seconds: float = 30.0  # for answers under way when a conversation's time is over, or the server's
    audio_id_seconds: int = 3600  # for which a spoken reply can be referred to
    history_chars: int = 2000  # of earlier turns that a model is given; older ones are dropped whole

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value < 0 or (value == 0 and one.name not in ("requests_a_minute", "waiting", "history_chars")):
                raise ConfigError(f"{one.name} is {value:g}: give a positive number.")


@dataclass(frozen=True)
class Settings:
    """Everything a server is started with."""

    models: tuple[str, ...] = ("mini",)
    llm: str | None = None
    device: str = "auto"
    dtype: str | None = None
    keys: tuple[str, ...] = ()  # none: everybody is let in
    origins: tuple[str, ...] = ()  # web pages of other hosts that may ask
    secret: str = field(default_factory=lambda: secrets.token_hex(16))  # signs the ids of spoken replies
    limits: Limits = Limits()


SETTINGS = TypeAdapter(Settings)  # as JSON, for worker processes
