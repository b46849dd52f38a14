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
from itertools import chain, islice, repeat, zip_longest
from typing import Any

import numpy as np
import torch

from echox.errors import InputError
from echox.generate.calls import sorted_calls
from echox.generate.ears import Heard, Hearing, at_once
from echox.generate.parts import Parts
from echox.generate.pauses import TrimmedSpeech, tail_of, trimmed, within
from echox.generate.text_stream import TextStream
from echox.generate.types import WAIT, Call, Piece
from echox.models.decoding import Decoding, Generated, IsOver, Line, Said, alone, at_most
from echox.models.llm import text_of_pieces, token_pieces
from echox.models.slots import Row
from echox.models.spelling import TextLayout
from echox.text.prompt import Prompt, Turn, encode
from echox.text.segmenter import cut_text, cuts, ends_sentence
from echox.units.tokenizer import UnitTokenizer

CHUNKS = (12, 12, 40)  # unit words to the next piece of audio, the last for all after it
LAST_WORD = 8  # tokens at the end of an answer that tell a full stop from the dot of a number or an abbreviation
AHEAD = 8  # tokens of an answer that are made before the question has ended: about what its first segment takes
Written = tuple[int, torch.Tensor | None]  # a unit word, and the state (W,) that predicts it where that is known


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
    budget, first = Budget(limits.samples, parts.vocoder.config.sample_rate if speak else 0), 0
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
        end = segmenter.push(said.pieces[-1], parts.score(state_H)) if speak else None
        if end is not None:
            yield from budget.take(speak_states(parts, said.cut(first, end), decoding))
            first = end
        if budget.spent:
            break
    if piece := text.flush():
        yield Piece(piece)
    if speak and first < len(said) and not budget.spent:
        yield from budget.take(speak_states(parts, said.cut(first, len(said)), decoding))
    yield from (Piece(call=call) for call in calls)
    length = budget.spent or len(line.said) == limits.new_tokens
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


@dataclass
class Budget:
    """Cuts speech at a number of samples, before which it fades out."""

    samples: int | None
    sample_rate: int
    spent: bool = False

    def take(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """Yield pieces until the budget is spent, the last one cut to fit."""
        for piece in pieces:
            if self.samples is not None and piece.audio is not None:
                audio = within(piece.audio, self.samples, self.sample_rate)
                piece, self.samples = replace(piece, audio=audio), self.samples - len(audio)
                self.spent = self.samples == 0
            yield piece
            if self.spent:
                return


def speak_states(parts: Parts, segment: _Segment, decoding: Decoding) -> Iterator[Piece]:
    """Yield the speech of one segment of an answer through the echo decoder."""
    t2c = parts.echo.t2c
    words = decoding(t2c, t2c.line(*_read(parts, segment)))
    yield from voice(parts, words, text_of_pieces(segment.pieces))


@torch.inference_mode()
def _read(parts: Parts, segment: _Segment) -> tuple[torch.Tensor, TextLayout]:
    """Return what the echo decoder reads of a segment, (N, H), and its layout.

    One that reads tokens alone may be given others: those of the LLM that it learnt with, where it spells those of the text as
    it is said.
    """
    text, echo = text_of_pieces(segment.pieces), parts.echo
    said = echo.t2c.said(text) if parts.reads_text else text
    if said != text or parts.own_reader is not None:
        ids, pieces = _tokens(parts, said)
        return echo.t2c.embed_text(ids, parts.reader.embeddings_VH).float(), echo.layout(pieces)
    embeddings_NH = parts.s2t.embed(segment.ids).float()
    return echo.positions(torch.stack(segment.states), embeddings_NH), echo.layout(segment.pieces)


def _tokens(parts: Parts, text: str) -> tuple[list[int], list[str]]:
    """Return the tokens in which the voice reads a text, and their own texts; InputError for one that spells unit tokens."""
    reader = parts.reader
    ids = encode(reader.tokenizer, text)
    if unknown := [one for one in ids if one >= len(reader.embeddings_VH)]:
        name = reader.tokenizer.convert_ids_to_tokens(unknown[0])
        raise InputError(f"the text contains {name}, which no voice can say: remove it.")
    return ids, token_pieces(reader.tokenizer, ids)


def voice(parts: Parts, words: Iterator[Written | None], text: str) -> Iterator[Piece]:
    """Yield the speech of a text while its unit words are written."""
    units_of, speech, trimmer = parts.unit_tokenizer, parts.vocoder.stream(), _trimmer(parts, text)
    said = Generated([], [])
    sizes = chain(CHUNKS, repeat(CHUNKS[-1]))
    sent, size = 0, next(sizes)
    for made in words:
        if made is None:
            yield WAIT
            continue
        if units_of.wordwise and len(said.ids) - sent == size:  # others spell a segment as a whole
            units, states_UW = units_said(parts, said, sent)
            yield Piece(audio=trimmer.push(speech.push(units, states_UW)), units=tuple(units))
            sent, size = len(said.ids), next(sizes)
        word, state_W = made
        said.ids.append(word)
        if parts.vocoder.state_width and state_W is not None:
            said.states.append(state_W)
    units, states_UW = units_said(parts, said, sent)
    first = speech.push(units, states_UW) if units else np.zeros(0, np.float32)
    last = [trimmer.push(first), trimmer.push(speech.flush()), trimmer.flush()]
    yield Piece(audio=np.concatenate(last), units=tuple(units))


def units_said(parts: Parts, words: Generated, first: int = 0) -> tuple[list[int], torch.Tensor | None]:
    """Return the units of the words from `first` on, and for a vocoder that reads any the state behind each, (U, W)."""
    units_of, ids = parts.unit_tokenizer, words.ids[first:]
    if not (parts.vocoder.state_width and ids and isinstance(units_of, UnitTokenizer)):
        return units_of.decode(ids), None
    spelt = [units_of.word(word) for word in ids]
    lengths = torch.tensor([len(word) for word in spelt], device=parts.device)
    return list(chain.from_iterable(spelt)), torch.stack(words.states[first:]).repeat_interleave(lengths, dim=0)


def _trimmer(parts: Parts, text: str) -> TrimmedSpeech:
    return TrimmedSpeech(parts.vocoder.config.sample_rate, tail_of(text) if parts.trims else None)


def say_stream(parts: Parts, text: str, limits: Limits, decoding: Decoding = alone) -> Iterator[Piece]:
    """Yield the speech of any text through T2C."""
    t2c = parts.t2c
    ids, pieces = _tokens(parts, t2c.said(text))
    budget = Budget(limits.samples, parts.vocoder.config.sample_rate)
    for first, end in cut_text(pieces, parts.segmenter) if parts.trims else [(0, len(ids))]:
        positions_NH = t2c.embed_text(ids[first:end], parts.reader.embeddings_VH).float()
        words = decoding(t2c, t2c.line(positions_NH, t2c.layout(pieces[first:end])))
        yield from budget.take(voice(parts, words, text_of_pieces(pieces[first:end])))
        if budget.spent:
            break
    yield Piece(text, finish="length" if budget.spent else "stop")


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

    Under a limit of `samples` a batch is the next segment of each, and an answer ends, its text too, where its stream would.
    """
    scores = [[parts.score(state_H) for state_H in one.states] for one in said]
    left = [cuts(one.pieces, parts.segmenter, of_one) for one, of_one in zip(said, scores, strict=True)]
    budgets = [Budget(samples, parts.vocoder.config.sample_rate) for _ in said]
    waves, most = [[np.zeros(0, np.float32)] for _ in said], None if samples is None else 1
    while turn := [(n, cut) for n, one in enumerate(left) if not budgets[n].spent for cut in islice(one, most)]:
        segments = [said[n].cut(first, end) for n, (first, end, _) in turn]
        positions, layouts = map(list, zip(*(_read(parts, segment) for segment in segments), strict=True))
        spoken = parts.echo.t2c.generate(positions, layouts, states=parts.vocoder.state_width > 0)
        for (n, (_, _, known)), segment, words in zip(turn, segments, spoken, strict=True):
            for piece in _voiced(parts, words, text_of_pieces(segment.pieces), budgets[n]):
                waves[n] += [] if piece.audio is None else [piece.audio]
                answers[n].units += piece.units
            if budgets[n].spent:
                answers[n].ids, answers[n].finish = answers[n].ids[:known], "length"
                answers[n].text = _decoded(parts, answers[n].ids)
    for answer, wave in zip(answers, waves, strict=True):
        answer.audio = np.concatenate(wave)


def _voiced(parts: Parts, words: Generated, text: str, budget: Budget) -> Iterator[Piece]:
    """Yield the speech of a text's unit words: whole, or under a limit in the pieces of `voice`."""
    if budget.samples is not None:
        yield from budget.take(voice(parts, zip_longest(words.ids, words.states), text))
        return
    units, states_UW = units_said(parts, words)
    wave_S = parts.vocoder.speak(units, states_UW=states_UW) if units else np.zeros(0, np.float32)
    yield Piece(audio=trimmed(wave_S, budget.sample_rate, text) if parts.trims else wave_S, units=tuple(units))


def _decoded(parts: Parts, ids: list[int]) -> str:
    return parts.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
