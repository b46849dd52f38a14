"""Hearing, thinking and speaking on loaded parts, streamed or batched; tensors, not sockets, and no state between calls.

    wave --encoder--> frames --ear (ears.py)--> positions --.
    typed question --embeddings-----------------------------+--> LLM --> tokens, states that predict them
                                                                      |
              segmenter cuts --> echo decoder --> unit words --> units --> vocoder --> samples

Legend: H LLM width, N text positions, S samples, T frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache

from echox.generate.parts import Parts
from echox.generate.pauses import TrimmedSpeech, tail_of, trimmed
from echox.generate.text_stream import TextStream
from echox.generate.types import Piece
from echox.models.llm import token_pieces
from echox.models.ragged import pad_left
from echox.models.s2t import Generated
from echox.models.t2c import TextToCodec, is_over
from echox.text.prompt import encode
from echox.text.segmenter import PhraseSegmenter, cut_text

FIRST_CHUNK, CHUNK = 12, 40  # unit words between two pieces of audio: the first is short, so that speech starts early


@dataclass(frozen=True)
class Limits:
    """Where an answer ends if it does not end itself."""

    new_tokens: int
    samples: int | None = None


def read(parts: Parts, question: str) -> torch.Tensor:
    """Return LLM positions (N, H) of a typed question."""
    return parts.s2t.embed(encode(parts.tokenizer, question))


@torch.inference_mode()
def think(parts: Parts, question_NH: torch.Tensor, limit: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (token, state that predicts it (H,)) greedily until a stop token, which is not yielded, or `limit`."""
    s2t = parts.s2t
    before_NH, after_NH = s2t.embed(parts.prompt.before), s2t.embed(parts.prompt.after)
    inputs_BNH = torch.cat([before_NH, question_NH.to(before_NH.dtype), after_NH])[None]
    cache = DynamicCache(config=s2t.llm.config)
    body = s2t.llm.get_decoder()
    said: list[int] = []
    for _ in range(limit):
        state_H = body(inputs_embeds=inputs_BNH, past_key_values=cache, use_cache=True).last_hidden_state[0, -1]
        token = int(s2t.choose(state_H[None], torch.tensor([said], dtype=torch.long, device=state_H.device)))
        if token in parts.stop:
            return
        yield token, state_H
        said.append(token)
        inputs_BNH = s2t.embed([token])[None]


def answer_stream(parts: Parts, question_NH: torch.Tensor, limits: Limits, speak: bool) -> Iterator[Piece]:
    """Yield text and audio of one answer as they are made; the last piece says why it ended.

    A question without positions is one in which nothing was understood: it gets no answer.
    """
    if not len(question_NH):
        yield Piece(finish="unheard")
        return
    text, segmenter = TextStream(parts.tokenizer), PhraseSegmenter()
    waiting: list[tuple[str, int, torch.Tensor]] = []
    budget, count = Budget(limits.samples), 0
    for token, state_H in think(parts, question_NH, limits.new_tokens):
        count += 1
        spelled = token_pieces(parts.tokenizer, [token])[0]
        if speak and segmenter.push(spelled) and waiting:
            yield from budget.take(speak_states(parts, waiting))
            waiting = []
        waiting.append((spelled, token, state_H.float()))
        if piece := text.push(token):
            yield Piece(piece)
        if budget.spent:
            break
    if piece := text.flush():
        yield Piece(piece)
    if speak and waiting and not budget.spent:
        yield from budget.take(speak_states(parts, waiting))
    length = budget.spent or count == limits.new_tokens
    yield Piece(finish="length" if length else "stop" if count else "empty")


@dataclass
class Budget:
    """Cuts speech at a number of samples."""

    samples: int | None
    spent: bool = False

    def take(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """Yield pieces until the budget is spent, the last one cut to fit."""
        for piece in pieces:
            if self.samples is not None and piece.audio is not None:
                if len(piece.audio) >= self.samples:
                    self.spent = True
                    yield Piece(piece.text, piece.audio[: self.samples], piece.units)
                    return
                self.samples -= len(piece.audio)
            yield piece


def speak_states(parts: Parts, segment: list[tuple[str, int, torch.Tensor]]) -> Iterator[Piece]:
    """Yield the speech of one segment of (token text, token, state that predicts it (H,)) through the echo decoder."""
    pieces, ids, states = (list(column) for column in zip(*segment, strict=True))
    with torch.inference_mode():
        positions_NH = parts.echo.positions(torch.stack(states), parts.s2t.embed(ids).float())
    yield from voice(parts, parts.echo.t2c, positions_NH, pieces)


def voice(parts: Parts, decoder: TextToCodec, positions_NH: torch.Tensor, pieces: list[str]) -> Iterator[Piece]:
    """Yield the speech of text positions (N, H) while the decoder writes it."""
    layout = decoder.layout(pieces)
    speech, said, sent, size = parts.vocoder.stream(), [], 0, FIRST_CHUNK
    heard = TrimmedSpeech(parts.vocoder.config.sample_rate, tail_of("".join(pieces)))
    state, limit = decoder.start([positions_NH], [layout]), decoder.limit(layout)
    while int(state.words_B[0]) != decoder.config.eos_token_id and not is_over(said, limit):
        said.append(int(state.words_B[0]))
        if len(said) - sent == size:
            units = parts.unit_tokenizer.decode(said[sent:])
            yield Piece(audio=heard.push(speech.push(units)), units=tuple(units))
            sent, size = len(said), CHUNK
        decoder.step(state)
    units = parts.unit_tokenizer.decode(said[sent:])
    first = speech.push(units) if units else np.zeros(0, np.float32)
    last = [heard.push(first), heard.push(speech.flush()), heard.flush()]
    yield Piece(audio=np.concatenate(last), units=tuple(units))


def say_stream(parts: Parts, text: str, limits: Limits) -> Iterator[Piece]:
    """Yield the speech of any text through T2C."""
    ids = encode(parts.tokenizer, text)
    pieces = token_pieces(parts.tokenizer, ids)
    budget = Budget(limits.samples)
    for first, end in cut_text(pieces):
        positions_NH = parts.s2t.embed(ids[first:end]).float()
        yield from budget.take(voice(parts, parts.t2c, positions_NH, pieces[first:end]))
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
def answer_batch(parts: Parts, questions: list[torch.Tensor], limits: Limits, speak: bool) -> list[Answer]:
    """Return what `answer_stream` would, for many questions at once."""
    understood = [question for question in questions if len(question)]
    if not understood:
        return [Answer([], "", [], np.zeros(0, np.float32) if speak else None, "unheard") for _ in questions]
    thought = parts.s2t.generate(understood, parts.prompt.before, parts.prompt.after, parts.stop, limits.new_tokens)
    answered = iter(thought)
    made = [next(answered) if len(question) else Generated([], [], True) for question in questions]
    answers = []
    for question, one in zip(questions, made, strict=True):
        finish = "unheard" if not len(question) else "length" if not one.ended else "stop" if one.ids else "empty"
        answers.append(Answer(one.ids, parts.tokenizer.decode(one.ids, skip_special_tokens=True), [], None, finish))
    if speak:
        width = parts.s2t.embeddings_VH.shape[1]
        speak_batch(parts, answers, [one.states_NH(width) for one in made], limits.samples)
    return answers


def answer_states(parts: Parts, questions: list[torch.Tensor], answers: list[list[int]]) -> list[torch.Tensor]:
    """Return the states (N, H) that predict each token of the given answers."""
    s2t = parts.s2t
    before_NH, after_NH = s2t.embed(parts.prompt.before), s2t.embed(parts.prompt.after)
    rows = []
    for question_NH, ids in zip(questions, answers, strict=True):
        rows.append(torch.cat([before_NH, question_NH.to(before_NH.dtype), after_NH, s2t.embed(ids[:-1])]))
    embeds_BNH, mask_BN = pad_left(rows)
    hidden_BNH = s2t.llm.get_decoder()(inputs_embeds=embeds_BNH, attention_mask=mask_BN.long()).last_hidden_state
    longest = hidden_BNH.shape[1]
    return [row[longest - len(ids) :].float() if ids else row[:0] for row, ids in zip(hidden_BNH, answers, strict=True)]


def speak_batch(parts: Parts, answers: list[Answer], states: list[torch.Tensor], samples: int | None) -> None:
    """Fill in units and audio of every answer: all segments of all answers in one batch of the echo decoder."""
    owners, positions, layouts, texts = [], [], [], []
    for owner, (answer, states_NH) in enumerate(zip(answers, states, strict=True)):
        pieces = token_pieces(parts.tokenizer, answer.ids)
        for first, end in cut_text(pieces):
            owners.append(owner)
            embeddings_NH = parts.s2t.embed(answer.ids[first:end]).float()
            positions.append(parts.echo.positions(states_NH[first:end], embeddings_NH))
            layouts.append(parts.echo.t2c.layout(pieces[first:end]))
            texts.append("".join(pieces[first:end]))
    spoken = parts.echo.t2c.generate(positions, layouts) if owners else []
    for owner, text, words in zip(owners, texts, spoken, strict=True):
        answer, units = answers[owner], parts.unit_tokenizer.decode(words)
        wave_S = parts.vocoder.speak(units) if units else np.zeros(0, np.float32)
        wave_S = trimmed(wave_S, parts.vocoder.config.sample_rate, text)
        answer.units += units
        answer.audio = wave_S if answer.audio is None else np.concatenate([answer.audio, wave_S])
    for answer in answers:
        if answer.audio is None:
            answer.audio = np.zeros(0, np.float32)
        if samples is not None and len(answer.audio) >= samples:
            answer.audio, answer.finish = answer.audio[:samples], "length"
