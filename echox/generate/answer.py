"""Hearing, thinking and speaking on loaded parts, streamed or batched; tensors, not sockets, and no state between calls.

A stream is told how its rows decode (`Decoding`) and its sounds are heard (`Hearing`): alone, or in company (generate/batched.py).
Where that takes a step of the whole company, it yields WAIT.

    turns --ear, dialect--> prompt (ids, positions) --> LLM --> tokens, states that predict them
                                                             |
     segmenter cuts --> echo decoder --> unit words --> units --> vocoder --> samples

Legend: B rows, H LLM width, N text positions, S samples.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from typing import Any

import numpy as np
import torch

from echox.errors import InputError
from echox.generate.calls import sorted_calls
from echox.generate.ears import Heard, Hearing, at_once
from echox.generate.parts import Parts
from echox.generate.speech import Speech
from echox.generate.text_stream import TextStream
from echox.generate.types import WAIT, Call, Piece
from echox.models.decoding import Decoding, IsOver, Line, Said, alone, at_most
from echox.models.llm import text_of_pieces, token_pieces
from echox.models.slots import Row
from echox.models.spelling import TextLayout
from echox.text.prompt import Prompt, Turn, encode
from echox.text.segmenter import cut_text, cuts, ends_sentence

LAST_WORD = 8  # tokens at the end of an answer that tell a full stop from the dot of a number or an abbreviation
AHEAD = 8  # tokens of an answer that are made before the question has ended: about what its first segment takes


@dataclass(frozen=True)
class Limits:
    """Where an answer ends if it does not end itself, and the seed of what is drawn."""

    new_tokens: int
    samples: int | None = None
    seed: int = 0
    enough_tokens: int | None = None  # after so many it ends with its sentence, so that it is hardly ever cut

    def is_over(self, tokenizer: Any) -> IsOver:
        """Return the rule that ends an answer of this tokenizer's tokens."""

        def rule(said: list[int]) -> bool:
            if self.enough_tokens is None or not self.enough_tokens <= len(said) < self.new_tokens:
                return len(said) >= self.new_tokens
            end = token_pieces(tokenizer, said[-LAST_WORD:])
            return ends_sentence(end[-1]) and ends_sentence(text_of_pieces(end))

        return rule


@dataclass(frozen=True)
class Asked:
    """A conversation as the LLM reads it, what its last sounds were taken for, and whether anything was understood."""

    row: Row
    heard: str = ""
    understood: bool = True


def read(parts: Parts, question: str) -> torch.Tensor:
    """Return LLM positions (N, H) of a typed question."""
    return parts.s2t.embed(encode(parts.tokenizer, question))


def understand(parts: Parts, conversations: Sequence[Sequence[Turn]], system: str = "") -> list[Asked]:
    """Return conversations as the LLM reads them; their sounds, waves at 16 kHz, are heard together.

    `system` stands in place of the model's own system text if it is given. InputError for a conversation that does not end with
    the user.
    """
    prompts = _prompts(parts, conversations, system)
    waves = [wave for prompt in prompts for wave in prompt.sounds]
    return _asked(parts, conversations, prompts, parts.ear.hear(waves) if waves else [])


def understanding(
    parts: Parts, turns: Sequence[Turn], system: str = "", hearing: Hearing = at_once
) -> Generator[Piece, None, Asked]:
    """Return what `understand` does of one conversation; yield WAIT while its sounds wait to be heard by `hearing`."""
    [prompt] = _prompts(parts, [turns], system)
    heard = (yield from hearing(parts.ear, list(prompt.sounds))) if prompt.sounds else []
    return _asked(parts, [turns], [prompt], heard)[0]


def _prompts(parts: Parts, conversations: Sequence[Sequence[Turn]], system: str) -> list[Prompt]:
    dialect = parts.dialect.under(system) if system else parts.dialect
    return [dialect.prompt(turns) for turns in conversations]


@torch.inference_mode()
def _asked(
    parts: Parts, conversations: Sequence[Sequence[Turn]], prompts: list[Prompt], sounds: list[Heard]
) -> list[Asked]:
    heard, asked = iter(sounds), []
    for turns, prompt in zip(conversations, prompts, strict=True):
        found = [next(heard) for _ in prompt.sounds]
        last = found[len(found) - len(turns[-1].sounds) :]
        told = turns[-1].role == "tool" or bool(turns[-1].text.strip())
        understood = told or any(len(one.positions_NH) for one in last)
        text = " ".join(one.text for one in last if one.text)
        asked.append(Asked(parts.s2t.row(prompt, [one.positions_NH for one in found]), text, understood))
    return asked


def answer_stream(
    parts: Parts, asked: Asked, limits: Limits, speak: bool, decoding: Decoding = alone
) -> Iterator[Piece]:
    """Yield text and audio of one answer as they are made; the last piece says why it ended.

    A question in which nothing was understood gets no answer; calls of tools come last, when all words are said.
    """
    if not asked.understood:
        yield Piece(finish="unheard")
        return
    text, segmenter, said = TextStream(parts.tokenizer), parts.segmenter.fresh(), _Said()
    speech, first = Speech(parts, parts.echo.t2c, limits.samples) if speak else None, 0
    sampling = replace(parts.sampling, seed=limits.seed)
    is_over = limits.is_over(parts.tokenizer)
    line = Line(asked.row, parts.stop, is_over, sampling, opening=parts.opening, recurs=True)
    made_of: Iterator[Said | Call | None] = decoding(parts.s2t, line)
    if parts.dialect.tools:
        made_of = sorted_calls(parts.tokenizer, parts.dialect.tools, parts.prompt.after, made_of)
    calls: list[Call] = []
    for made in made_of:
        if made is None:
            yield WAIT
            continue
        if isinstance(made, Call):
            calls.append(made)
            continue
        token, state_H = made
        said.add(token_pieces(parts.tokenizer, [token])[0], token, state_H.float())
        if piece := text.push(token):
            yield Piece(piece)
        end = segmenter.push(said.pieces[-1], parts.score(state_H)) if speech else None
        if speech and end is not None:
            yield from speech.say(*_read(parts, said.cut(first, end)), decoding)
            first = end
            if speech.spent:
                break
    if piece := text.flush():
        yield Piece(piece)
    if speech:
        if first < len(said) and not speech.spent:
            yield from speech.say(*_read(parts, said.cut(first, len(said))), decoding)
        yield from speech.end()
    yield from (Piece(call=call) for call in calls)
    length = (speech and speech.spent) or len(line.said) == limits.new_tokens
    yield Piece(finish="length" if length else "stop" if len(said) or calls else "empty")


def begin_stream(parts: Parts, asked: Asked, decoding: Decoding) -> Iterator[Piece]:
    """Begin an answer in silence, to be gone on with by whoever keeps what is read (`Batch.begun`); yield WAIT as it goes."""
    if asked.understood:
        opening, is_over = parts.opening, at_most(AHEAD)
        line = Line(asked.row, parts.stop, is_over, parts.sampling, opening=opening, recurs=True, draft=True)
        yield from (WAIT for made in decoding(parts.s2t, line) if made is None)


@dataclass
class _Segment:
    pieces: list[str]
    ids: list[int]
    states: list[torch.Tensor]


class _Said(_Segment):
    """The answer so far: each token's text, its id and the state that predicts it."""

    def __init__(self) -> None:
        super().__init__([], [], [])

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, piece: str, token: int, state_H: torch.Tensor) -> None:
        self.pieces.append(piece)
        self.ids.append(token)
        self.states.append(state_H)

    def cut(self, first: int, end: int) -> _Segment:
        return _Segment(self.pieces[first:end], self.ids[first:end], self.states[first:end])


@torch.inference_mode()
def _read(parts: Parts, segment: _Segment) -> tuple[torch.Tensor, TextLayout, str]:
    """Return what the echo decoder reads of a segment, (N, H), its layout, and its text.

    One that reads tokens alone may be given others: those of the LLM that it learnt with, where it spells those of the text as
    it is said.
    """
    text, echo = text_of_pieces(segment.pieces), parts.echo
    said = echo.t2c.said(text) if parts.reads_text else text
    if said != text or parts.own_reader is not None:
        ids, pieces = _tokens(parts, said)
        return echo.t2c.embed_text(ids, parts.reader.embeddings_VH).float(), echo.layout(pieces), text
    embeddings_NH = parts.s2t.embed(segment.ids).float()
    return echo.positions(torch.stack(segment.states), embeddings_NH), echo.layout(segment.pieces), text


def _tokens(parts: Parts, text: str) -> tuple[list[int], list[str]]:
    """Return the tokens in which the voice reads a text, and their own texts; InputError for one that spells unit tokens."""
    reader = parts.reader
    ids = encode(reader.tokenizer, text)
    if unknown := [one for one in ids if one >= len(reader.embeddings_VH)]:
        name = reader.tokenizer.convert_ids_to_tokens(unknown[0])
        raise InputError(f"the text contains {name}, which no voice can say: remove it.")
    return ids, token_pieces(reader.tokenizer, ids)


def say_stream(parts: Parts, text: str, limits: Limits, decoding: Decoding = alone) -> Iterator[Piece]:
    """Yield the speech of any text through T2C."""
    t2c = parts.t2c
    ids, pieces = _tokens(parts, t2c.said(text))
    speech = Speech(parts, t2c, limits.samples)
    for first, end in cut_text(pieces, parts.segmenter) if parts.trims else [(0, len(ids))]:
        positions_NH = t2c.embed_text(ids[first:end], parts.reader.embeddings_VH).float()
        yield from speech.say(positions_NH, t2c.layout(pieces[first:end]), text_of_pieces(pieces[first:end]), decoding)
        if speech.spent:
            break
    yield from speech.end()
    yield Piece(text, finish="length" if speech.spent else "stop")


@dataclass
class Answer:
    """One answer of a batch."""

    ids: list[int]
    text: str
    units: list[int]
    audio: np.ndarray | None
    finish: str


@torch.inference_mode()
def answer_batch(parts: Parts, asked: Sequence[Asked], limits: Limits, speak: bool) -> list[Answer]:
    """Return what `answer_stream` would, for many questions at once."""
    rows = [one.row for one in asked if one.understood]
    sampling = replace(parts.sampling, seed=limits.seed)
    thought = iter(parts.s2t.generate(rows, parts.stop, limits.is_over(parts.tokenizer), sampling) if rows else ())
    answers, said = [], []
    for one in asked:
        segment = _Said()
        if one.understood:
            made = next(thought)
            pieces = token_pieces(parts.tokenizer, made.ids)
            for piece, token, state_H in zip(pieces, made.ids, made.states, strict=True):
                segment.add(piece, token, state_H.float())
        finish = "length" if len(segment) == limits.new_tokens else "stop" if len(segment) else "empty"
        finish = finish if one.understood else "unheard"
        answers.append(Answer(segment.ids, _decoded(parts, segment.ids), [], None, finish))
        said.append(segment)
    if speak:
        speak_batch(parts, answers, said, limits.samples)
    return answers


def answer_states(parts: Parts, questions: list[torch.Tensor], answers: list[list[int]]) -> list[torch.Tensor]:
    """Return the states (N, H) that predict each token of the given answers to questions (N, H) each."""
    prompts = [parts.s2t.row(parts.prompt, [question_NH]) for question_NH in questions]
    return [states_NH.float() for states_NH in parts.s2t.states_under(prompts, answers)]


def speak_batch(parts: Parts, answers: list[Answer], said: list[_Said], samples: int | None) -> None:
    """Fill in units and audio of every answer: all segments of all answers in one batch of the echo decoder.

    Where segments go on from one another, or under a limit of `samples`, a batch is the next segment of each; an answer ends at
    the limit, its text too, where its stream would.
    """
    t2c = parts.echo.t2c
    scores = [[parts.score(state_H) for state_H in one.states] for one in said]
    left = [cuts(one.pieces, parts.segmenter, of_one) for one, of_one in zip(said, scores, strict=True)]
    speeches = [Speech(parts, t2c, samples, at_once=samples is None) for _ in said]
    waves = [[np.zeros(0, np.float32)] for _ in said]
    most = None if samples is None and not t2c.config.past_words else 1

    def take(n: int, pieces: Iterator[Piece]) -> None:
        for piece in pieces:
            waves[n] += [] if piece.audio is None else [piece.audio]
            answers[n].units += piece.units

    while turn := [(n, cut) for n, one in enumerate(left) if not speeches[n].spent for cut in islice(one, most)]:
        segments = [_read(parts, said[n].cut(first, end)) for n, (first, end, _) in turn]
        positions, layouts, texts = map(list, zip(*segments, strict=True))
        past = [speeches[n].past for n, _ in turn]
        spoken = t2c.generate(positions, layouts, states=parts.vocoder.state_width > 0, past=past)
        for (n, (_, _, known)), text, words in zip(turn, texts, spoken, strict=True):
            take(n, speeches[n].voice(text, zip_longest(words.ids, words.states)))
            if speeches[n].spent:
                answers[n].ids, answers[n].finish = answers[n].ids[:known], "length"
                answers[n].text = _decoded(parts, answers[n].ids)
    for n, (answer, speech) in enumerate(zip(answers, speeches, strict=True)):
        take(n, speech.end())
        answer.finish = "length" if speech.spent else answer.finish
        answer.audio = np.concatenate(waves[n])


def _decoded(parts: Parts, ids: list[int]) -> str:
    return parts.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
