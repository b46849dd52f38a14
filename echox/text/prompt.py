"""The chat template and special tokens, by name, in one place; it knows no model.

A prompt is two runs of token ids around the speech: everything before the user's words and everything after them. Both come
from the tokenizer's own chat template, so a typed question is exactly what the text model was trained on, and a spoken one
differs from it only between the two runs.
"""

from dataclasses import dataclass
from typing import Any

from echox.errors import ModelError

_MARK = "\u241e"  # stands for the user's words while the template is cut in two


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the user's words."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def build_prompt(tokenizer: Any, system: str, history: list[dict[str, str]] | None = None) -> Prompt:
    """Return the prompt around one user turn; ModelError when the tokenizer has no usable chat template.

    `history` holds earlier turns as {"role", "content"}.
    """
    turns = [{"role": "system", "content": system}] if system else []
    turns += [*(history or []), {"role": "user", "content": _MARK}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program of somebody else
        raise ModelError(f"the tokenizer has no chat template ({error}): use an instruction-tuned LLM.") from error
    before, mark, after = text.partition(_MARK)
    if not mark:
        raise ModelError("the tokenizer's chat template drops the user's words: use an instruction-tuned LLM.")
    ids = [tokenizer(part, add_special_tokens=False, split_special_tokens=False).input_ids for part in (before, after)]
    return Prompt(tuple(ids[0]), tuple(ids[1]))


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
