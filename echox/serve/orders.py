"""What a session orders from the engine and the turn detector; values."""

from dataclasses import dataclass, replace

from echox.generate.engine import Ask
from echox.serve.conversation import Item, Question
from echox.serve.session_config import ServerVad, SessionConfig
from echox.serve.wire import rate_of, samples_of


def ask_of(question: Question, config: SessionConfig) -> Ask:
    """Return a question of a conversation as an engine takes it."""
    ask = Ask(
        typed=question.typed,
        text_only=config.text_only,
        history=question.before,
        instructions=question.system,
        tools=config.callable,
        most_tokens=config.most_tokens,
    )
    item = question.item
    if question.typed is not None or item is None or item.sound is None:
        return ask
    return replace(ask, question=samples_of(item.sound, item.form), sample_rate=rate_of(item.form))


@dataclass(frozen=True)
class Answer:
    """Answer this, and say it in this format."""

    response_id: str
    ask: Ask
    form: str
    earlier: tuple[Item, ...] = ()  # whose words are its history, once those that are being written down are known
    asked: Item | None = None  # whose words are the question, likewise, where its sound is no longer there


@dataclass(frozen=True)
class Overhear:
    """Process an unfinished turn ahead of its end while the engine is idle; a later order or an answer replaces this one."""

    ask: Ask


@dataclass(frozen=True)
class Stop:
    """Cancel an answer or a transcript."""

    id: str


@dataclass(frozen=True)
class Hear:
    """Transcribe an item, unless an answer to it is asked for at once."""

    item_id: str
    ask: Ask


@dataclass(frozen=True)
class Listen:
    """Detect turns with these settings from `at_ms` on; None: the client ends turns."""

    turns: ServerVad | None
    form: str
    at_ms: float
