"""Conversations as token ids, special tokens by name, in one place; it knows no model.

A prompt is runs of token ids with the sounds of the conversation between them: ids, sound, ids, sound, ids. The runs come from
the tokenizer's own chat template (`ChatDialect`), so a typed question is exactly what the text model was trained on, and a spoken
one differs from it only in the gap. The released checkpoints speak a dialect of their own (text/echox_dialect.py).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Protocol

from echox.errors import ConfigError, InputError, ModelError, clipped

_ENCODING = Lock()  # a tokenizer keeps whether it splits control tokens: threads would read by each other's rule
_MARK = re.compile("\u241e(\\d+)\u241e")  # stands for words, by number, while the template is cut into pieces
ROLES = ("user", "assistant", "call", "tool")
Tool = dict[str, Any]  # as templates take it: {"type": "function", "function": {"name", "description", "parameters"}}


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation: `role` user or assistant, its text, and the sounds that a user turn holds.

    A model that calls tools says a `call`, its text JSON of name and arguments, and then reads what a `tool` returned.
    """

    role: str
    text: str = ""
    sounds: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """Runs of token ids, one more than there are sounds; ids of `unseen` tokens may not be attended to."""

    runs: tuple[tuple[int, ...], ...]
    sounds: tuple[Any, ...] = ()
    unseen: frozenset[int] = frozenset()

    @property
    def before(self) -> tuple[int, ...]:
        """The ids before the first sound."""
        return self.runs[0]

    @property
    def after(self) -> tuple[int, ...]:
        """The ids after the last sound."""
        return self.runs[-1]


class Dialect(Protocol):
    """Turns conversations into prompts."""

    @property
    def opening(self) -> tuple[int, ...]:
        """The tokens that every answer starts with, which the LLM says itself."""
        ...

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What may be called."""
        ...

    def under(self, system: str) -> "Dialect":
        """Return the same dialect under another system text."""
        ...

    def calling(self, tools: Sequence[Tool]) -> "Dialect":
        """Return the same dialect for a model that may call `tools`; ConfigError when it does not know how."""
        ...

    def prompt(self, turns: Sequence[Turn]) -> Prompt:
        """Return the prompt of a conversation that ends with the user or a tool; InputError for other shapes."""
        ...


def check_turns(turns: Sequence[Turn]) -> None:
    """Raise InputError unless a conversation ends with the user or a tool, has known roles, and only the user sends sounds."""
    if not turns or turns[-1].role not in ("user", "tool"):
        raise InputError("a conversation must end with a user turn: give a question.")
    for turn in turns:
        if turn.role not in ROLES:
            raise InputError(f"a turn has role {turn.role!r}: expected {', '.join(ROLES)}.")
        if turn.sounds and turn.role != "user":
            raise InputError(f"a turn of role {turn.role} cannot hold audio: give its text.")
        if turn.role == "call":
            try:
                called = json.loads(turn.text)
            except ValueError:
                called = None
            if not isinstance(called, dict):
                raise InputError(f"a call reads {clipped(turn.text, 60)!r}: give it as JSON of a name and arguments.")


@dataclass(frozen=True)
class ChatDialect:
    """The chat template of an instruction-tuned LLM, under a system text."""

    tokenizer: Any
    system: str = ""
    opening: tuple[int, ...] = ()
    tools: tuple[Tool, ...] = ()

    def under(self, system: str) -> "ChatDialect":
        """See `Dialect.under`."""
        return replace(self, system=system)

    def calling(self, tools: Sequence[Tool]) -> "ChatDialect":
        """See `Dialect.calling`: a chat template knows how if it tells the model their names."""
        for tool in tools:
            if not isinstance(tool.get("function"), dict) or not isinstance(tool["function"].get("name"), str):
                raise ConfigError('a tool names no function: give {"type": "function", "function": {"name": ...}}.')
        told = replace(self, tools=tuple(tools))
        try:
            text = told._text(_Marked([Turn("user")]).messages)
        except ModelError:
            text = ""
        if not all(tool["function"]["name"] in text for tool in tools):
            raise ConfigError("this model cannot call tools, its chat template knows none: leave them out.")
        return told

    def prompt(self, turns: Sequence[Turn]) -> Prompt:
        """See `Dialect.prompt`; ModelError when the tokenizer has no usable chat template."""
        check_turns(turns)
        marked = _Marked(turns)
        pieces = _MARK.split(self._text(marked.messages))  # text, number, text, ..., text
        if sorted(pieces[1::2], key=int) != [str(number) for number in range(len(marked.words))]:
            raise ModelError("the tokenizer's chat template drops the user's words: use an instruction-tuned LLM.")
        ids: list[list[int]] = [[]]
        sounds: list[Any] = []
        for place, piece in enumerate(pieces):
            if place % 2 == 0:
                ids[-1] += encode(self.tokenizer, piece, controls=True)
            else:
                turn = marked.words[int(piece)]
                ids += [[] for _ in turn.sounds]
                ids[-1] += encode(self.tokenizer, turn.text)
                sounds += turn.sounds
        return Prompt(tuple(map(tuple, ids)), tuple(sounds))

    def _text(self, messages: list[dict[str, Any]]) -> str:
        """Return what the template makes of messages; one that refuses a system text finds it in front of the first message."""
        options: dict[str, Any] = {"tools": list(self.tools)} if self.tools else {}
        told = [messages]
        if self.system:
            first = messages[0] | {"content": f"{self.system}\n\n{messages[0]['content']}"}
            told = [[{"role": "system", "content": self.system}, *messages], [first, *messages[1:]]]
        if messages[0]["role"] == "assistant":  # a greeting, before which the user has said nothing
            told.append([{"role": "user", "content": self.system}, *messages])
        failed: Exception | None = None
        for some in told:
            try:
                return self.tokenizer.apply_chat_template(some, tokenize=False, add_generation_prompt=True, **options)
            except Exception as error:  # noqa: BLE001 - a template is a program of somebody else
                failed = failed or error
        raise ModelError(f"the tokenizer has no chat template ({failed}): use an instruction-tuned LLM.") from failed


class _Marked:
    """Turns as the messages of a template, a mark in place of all that somebody said; `words` are what the marks stand for."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self.words: list[Turn] = []
        self.messages: list[dict[str, Any]] = []
        calls, returned = 0, 0
        for turn in turns:
            if turn.role == "call":
                if not self.messages or self.messages[-1]["role"] != "assistant":
                    self.messages.append({"role": "assistant", "content": ""})
                call = {"id": _call_id(calls), "type": "function", "function": self._json(json.loads(turn.text))}
                self.messages[-1].setdefault("tool_calls", []).append(call)
                calls += 1
            else:
                self.messages.append({"role": turn.role, "content": self._mark(turn)})
            if turn.role == "tool":
                self.messages[-1]["tool_call_id"] = _call_id(returned)
                returned += 1

    def _mark(self, turn: Turn) -> str:
        self.words.append(turn)
        return f"\u241e{len(self.words) - 1}\u241e"

    def _json(self, value: Any) -> Any:
        """Return a JSON value with a mark for each text in it, names included."""
        if isinstance(value, dict):
            keys = ("name", "arguments")
            return {name if name in keys else self._json(name): self._json(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._json(one) for one in value]
        if not isinstance(value, str):
            return value
        return self._mark(Turn("call", json.dumps(value, ensure_ascii=False)[1:-1]))


def _call_id(number: int) -> str:
    return f"call{number:05}"  # nine letters and digits: what the strictest templates take


def question_prompt(dialect: Dialect) -> Prompt:
    """Return the prompt around one spoken question."""
    return dialect.prompt([Turn("user", sounds=(None,))])


def encode(tokenizer: Any, text: str, controls: bool = False) -> list[int]:
    """Return the token ids of words of a person, nothing added: a typed `<|im_end|>` is ten letters, no control token.

    With `controls`, for a template's own words, it is one.
    """
    with _ENCODING:
        return list(tokenizer(text, add_special_tokens=False, split_special_tokens=not controls).input_ids)


def stop_ids(tokenizer: Any, llm: Any) -> set[int]:
    """Return every id that ends a turn: the tokenizer's and the generation config's."""
    configured = getattr(getattr(llm, "generation_config", None), "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return {i for i in map(_plain, [*ids, tokenizer.eos_token_id]) if i is not None}


def _plain(token: Any) -> int | None:
    """Return a token id of a settings file as it is; ModelError when it is none."""
    if token is not None and (type(token) is not int or token < 0):
        raise ModelError(
            f"the LLM's settings end a turn with {str(token)[:60]!r}, which is no token: fetch the model again."
        )
    return token
