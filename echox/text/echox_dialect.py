"""The released checkpoints' prompts and the token ids behind them (spec sections 3.2, 6.2 and 9), by name; it knows no model.

Every piece that the released code tokenizes brings its own BOS, which stays inside the prompt:

    <bos>
    <start> <bos> system    <end> <bos> \\n <bos> SYSTEM <eot>
    <start> <bos> user      <end> <bos> \\n SOUND <bos> TEXT <eot>               with sounds, each after a newline
    <start> <bos> user      <end> <bos> TEXT <eot>                              text only: no newline
    <start> <bos> assistant <end> <bos> \\n                                      (+ <bos> TEXT <eot> in a past turn)

With sounds in a conversation its end-of-turn tokens are not attended to (spec 2.1 step 7); without, everything is. One number
stays a number, the segment prefix of the T2C: the weights were trained with the row it names, whatever that token spells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from echox.errors import ConfigError, InputError, ModelError
from echox.text.prompt import Prompt, Tool, Turn, check_turns, encode

AUDIO_PATCH, BEGIN = "<audio_patch>", "<|begin_of_text|>"
SEGMENT_PREFIX_ID = 12_800  # see docs/released.md: a slip for 128000 that the T2C was trained with
STOP_NAMES = ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>")
SYSTEM = (
    "You are a helpful language and speech assistant. You are able to understand the speech content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)


@dataclass(frozen=True)
class EchoXTokens:
    """Every id that prompts and speech need; `stops` holds those of STOP_NAMES that the tokenizer has, eot first."""

    tokenizer: Any
    bos: int
    start_header: int
    end_header: int
    eot: int
    newline: tuple[int, ...]
    period: int
    audio_patch: int
    roles: dict[str, tuple[int, ...]]
    stops: tuple[int, ...]
    segment_prefix: int

    @classmethod
    def of(cls, tokenizer: Any, segment_prefix: int = SEGMENT_PREFIX_ID) -> "EchoXTokens":
        """Look every id up by name; ModelError names the token that the tokenizer lacks."""
        vocabulary = tokenizer.get_vocab()

        def named(name: str) -> int:
            if name not in vocabulary:
                raise ModelError(f"the tokenizer has no token {name}: it does not belong to a released model.")
            return vocabulary[name]

        def spelled(text: str) -> tuple[int, ...]:
            ids = tuple(plain_ids(tokenizer, text))
            if not ids:
                raise ModelError(f"the tokenizer has no tokens for {text!r}: it does not belong to a released model.")
            return ids

        bos = named(BEGIN)
        return cls(
            tokenizer=tokenizer,
            bos=bos,
            start_header=named("<|start_header_id|>"),
            end_header=named("<|end_header_id|>"),
            eot=named("<|eot_id|>"),
            newline=spelled("\n"),
            period=spelled(".")[-1],
            audio_patch=named(AUDIO_PATCH),
            roles={role: spelled(role) for role in ("system", "user", "assistant", "speaker")},
            stops=tuple(vocabulary[name] for name in STOP_NAMES if name in vocabulary),
            segment_prefix=segment_prefix,
        )

    def header(self, role: str) -> list[int]:
        """Return the header of a turn as released: a BOS precedes the role's name."""
        return [self.start_header, self.bos, *self.roles[role], self.end_header]

    @property
    def line(self) -> list[int]:
        """The newline after a header, with its BOS."""
        return [self.bos, *self.newline]

    def text(self, text: str) -> list[int]:
        """Return BOS + text ids; InputError when the text spells one of the prompt's own tokens, or a unit token."""
        ids = plain_ids(self.tokenizer, text)
        control = {self.bos, self.start_header, self.end_header, *self.stops}
        spelled = [one for one in ids if one in control or one >= self.audio_patch]  # units come last
        if spelled:
            name = self.tokenizer.convert_ids_to_tokens(min(spelled))
            raise InputError(f"the text contains {name}, which is a control token of the prompt: remove it.")
        return [self.bos, *ids]

    @property
    def around_states(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the T2C reads before and after a segment of states (spec 6.2)."""
        speaker = (*self.header("speaker"), *self.line)
        return (*speaker, self.segment_prefix), (self.eot, *speaker)

    @property
    def around_text(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the T2C reads before and after a text (spec 3.2): an assistant turn, then the speaker's header."""
        speaker = (*self.header("speaker"), *self.line)
        return (*self.header("assistant"), *self.line, self.bos), (self.eot, *speaker)


@dataclass(frozen=True)
class EchoXDialect:
    """The released prompt; `limit` cuts the tail as the released code does at 1024 ids, None keeps everything."""

    tokens: EchoXTokens
    system: str = SYSTEM
    limit: int | None = None

    @property
    def opening(self) -> tuple[int, ...]:
        """See `Dialect.opening`."""
        return (self.tokens.bos,)

    def under(self, system: str) -> "EchoXDialect":
        """See `Dialect.under`."""
        return replace(self, system=system)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """See `Dialect.tools`: none."""
        return ()

    def calling(self, tools: Sequence[Tool]) -> "EchoXDialect":
        """See `Dialect.calling`."""
        raise ConfigError("this model cannot call tools, the released prompt has no place for them: leave them out.")

    def prompt(self, turns: Sequence[Turn]) -> Prompt:
        """See `Dialect.prompt`."""
        check_turns(turns)
        if any(turn.role in ("call", "tool") for turn in turns):
            self.calling(())
        tokens = self.tokens
        ids = [tokens.bos, *tokens.header("system"), *tokens.line, *tokens.text(self.system), tokens.eot]
        for turn in turns:
            ids += self._turn(turn)
        ids += [*tokens.header("assistant"), *tokens.line]
        sounds = tuple(sound for turn in turns for sound in turn.sounds)
        ids = ids[: self.limit]
        if ids.count(tokens.audio_patch) != len(sounds):
            raise InputError(f"the prompt is cut at {self.limit} ids and loses a sound: ask with fewer turns.")
        runs: list[list[int]] = [[]]
        for token in ids:
            if token == tokens.audio_patch:
                runs.append([])
            else:
                runs[-1].append(token)
        unseen = frozenset({tokens.eot}) if sounds else frozenset()
        return Prompt(tuple(map(tuple, runs)), sounds, unseen)

    def _turn(self, turn: Turn) -> list[int]:
        tokens = self.tokens
        if turn.role == "assistant":
            return [*tokens.header("assistant"), *tokens.line, *tokens.text(turn.text), tokens.eot]
        places = [token for _ in turn.sounds for token in (*tokens.newline, tokens.audio_patch)]
        opening = [tokens.bos, *places] if places else []
        return [*tokens.header("user"), *opening, *tokens.text(turn.text), tokens.eot]


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of `text` without the BOS that Llama-3 tokenizers add."""
    return encode(tokenizer, text, controls=True) if text else []
