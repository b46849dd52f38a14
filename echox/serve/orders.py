"""What a session asks of the engine and of the detector of turns; values."""

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


def hearing_of(item: Item) -> Ask:
    """Return the order to write down a recording."""
    return Ask(samples_of(item.sound or b"", item.form), rate_of(item.form), hear_only=True)


@dataclass(frozen=True)
class Answer:
    """Answer this, and say it in this format."""

    response_id: str
    ask: Ask
    form: str
    earlier: tuple[Item, ...] = ()  # whose words are its history, once those that are being written down are known


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
