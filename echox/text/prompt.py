"""Conversations as token ids, special tokens by name, in one place; it knows no model.

A prompt is runs of token ids with the sounds of the conversation between them: ids, sound, ids, sound, ids. The runs come from
the tokenizer's own chat template (`ChatDialect`), so a typed question is exactly what the text model was trained on, and a spoken
one differs from it only in the gap. The released checkpoints speak a dialect of their own (text/echox_dialect.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from echox.errors import InputError, ModelError

_MARK = "\u241e"  # stands for the words of a turn while the template is cut into pieces


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation: `role` user or assistant, its text, and the sounds that a user turn holds."""

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

    def under(self, system: str) -> "Dialect":
        """Return the same dialect under another system text."""
        ...

    def prompt(self, turns: Sequence[Turn]) -> Prompt:
        """Return the prompt of a conversation that ends with a user turn; InputError for other shapes."""
        ...


def check_turns(turns: Sequence[Turn]) -> None:
    """Raise InputError unless a conversation ends with the user, has known roles, and only the user sends sounds."""
    if not turns or turns[-1].role != "user":
        raise InputError("a conversation must end with a user turn: give a question.")
    for turn in turns:
        if turn.role not in ("user", "assistant"):
            raise InputError(f"a turn has role {turn.role!r}: expected user or assistant.")
        if turn.sounds and turn.role == "assistant":
            raise InputError("an assistant turn cannot hold audio: give its text.")


@dataclass(frozen=True)
class ChatDialect:
    """The chat template of an instruction-tuned LLM, under a system text."""

    tokenizer: Any
    system: str = ""
    opening: tuple[int, ...] = ()

    def under(self, system: str) -> "ChatDialect":
        """See `Dialect.under`."""
        return replace(self, system=system)

    def prompt(self, turns: Sequence[Turn]) -> Prompt:
        """See `Dialect.prompt`; ModelError when the tokenizer has no usable chat template."""
        check_turns(turns)
        ids: list[list[int]] = [[]]
        for piece, turn in zip(self._pieces(turns), [*turns, None], strict=True):
            ids[-1] += self.tokenizer(piece, add_special_tokens=False, split_special_tokens=False).input_ids
            if turn is not None:
                ids += [[] for _ in turn.sounds]
                ids[-1] += encode(self.tokenizer, turn.text)
        return Prompt(tuple(map(tuple, ids)), tuple(sound for turn in turns for sound in turn.sounds))

    def _pieces(self, turns: Sequence[Turn]) -> list[str]:
        """Return the template's text around the words of each turn, one piece more than there are turns."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages += [{"role": turn.role, "content": _MARK} for turn in turns]
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program of somebody else
            raise ModelError(f"the tokenizer has no chat template ({error}): use an instruction-tuned LLM.") from error
        pieces = text.split(_MARK)
        if len(pieces) != len(turns) + 1:
            raise ModelError("the tokenizer's chat template drops the user's words: use an instruction-tuned LLM.")
        return pieces


def question_prompt(dialect: Dialect) -> Prompt:
    """Return the prompt around one spoken question."""
    return dialect.prompt([Turn("user", sounds=(None,))])


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of words of a person, nothing added: a typed `<|im_end|>` is ten letters, no control token."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


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
