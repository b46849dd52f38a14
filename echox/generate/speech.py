"""Unit words to samples, segment by segment: the speech of one answer as it grows, within a budget of samples.

    segments     The answer | is Paris. | It lies | on the Seine.
    T2C             `- past ^              `- past ^          last unit words of the sentence, for a decoder that reads them
    vocoder      [ . . . . . . . . . ]   [ . . . . . . . . ]  so that a sentence is one utterance; else every segment is

Legend: H LLM width, N text tokens, S samples, U units, W codec decoder width.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, repeat

import numpy as np
import torch

from echox.generate.parts import Parts
from echox.generate.pauses import TrimmedSpeech, within
from echox.generate.types import WAIT, Piece
from echox.models.decoding import Decoding, Generated
from echox.models.spelling import TextLayout
from echox.models.t2c import TextToCodec
from echox.units.tokenizer import UnitTokenizer

SETTLED = 3  # segments of an answer that are heard at once; later ones wait for what follows them in their sentence
CHUNKS = (12, 12, 40)  # unit words to the next piece of audio, the last for all after it
Written = tuple[int, torch.Tensor | None]  # a unit word, and the state (W,) that predicts it where that is known


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


class Speech:
    """What an answer sounds like, as its segments come.

    `past` are the unit words that the next segment goes on from: while there are any, the utterance of the vocoder stays open.
    """

    def __init__(self, parts: Parts, t2c: TextToCodec, samples: int | None = None, at_once: bool = False) -> None:
        """Begin in silence; `samples` is the budget. With `at_once` a segment is one piece."""
        self.parts, self.t2c, self.at_once = parts, t2c, at_once
        self.budget, self.segments = Budget(samples, parts.vocoder.config.sample_rate), 0
        self._begin()

    def _begin(self) -> None:
        self.past, self.stream, self.text = list[int](), self.parts.vocoder.stream(), ""
        self.trimmer = TrimmedSpeech(self.budget.sample_rate, self.parts.trims)

    @property
    def spent(self) -> bool:
        """Whether there are no samples left."""
        return self.budget.spent

    def say(self, text_NH: torch.Tensor, layout: TextLayout, text: str, decoding: Decoding) -> Iterator[Piece]:
        """Yield the speech of a segment, given what T2C reads of it, while its unit words are decoded."""
        words = decoding(self.t2c, self.t2c.line(text_NH, layout, self.past))
        yield from self.voice(text, words)

    def voice(self, text: str, words: Iterator[Written | None]) -> Iterator[Piece]:
        """Yield the speech of a segment while its unit words come."""
        yield from self.budget.take(self._voice(text, words))

    def end(self) -> Iterator[Piece]:
        """Yield what is left of a sentence that has not ended."""
        if self.past and not self.spent:
            yield from self.budget.take(iter([Piece(audio=self._close(np.zeros(0, np.float32)))]))

    def _voice(self, text: str, words: Iterator[Written | None]) -> Iterator[Piece]:
        parts, said = self.parts, Generated([], [])
        whole = self.at_once or not parts.unit_tokenizer.wordwise  # some spell the units of a segment as a whole
        sizes = repeat(0) if whole else chain(CHUNKS, repeat(CHUNKS[-1]))
        sent, size = 0, next(sizes)
        for made in words:
            if made is None:
                yield WAIT
                continue
            if size and len(said.ids) - sent == size:
                wave_S, units = self._push(said, sent)
                yield Piece(audio=wave_S, units=units)
                sent, size = len(said.ids), next(sizes)
            word, state_W = made
            said.ids.append(word)
            if parts.vocoder.state_width and state_W is not None:
                said.states.append(state_W)
        wave_S, units = self._push(said, sent)
        self.past = self.t2c.past_of([*self.past, *said.ids], text)
        self.text, self.segments = text, self.segments + 1
        if not self.past:
            wave_S = self._close(wave_S)
        elif self.segments <= SETTLED:
            wave_S = np.concatenate([wave_S, self.trimmer.push(self.stream.settle())])
        yield Piece(audio=wave_S, units=units)

    def _push(self, said: Generated, first: int) -> tuple[np.ndarray, tuple[int, ...]]:
        """Return the speech that the words from `first` on make possible, and their units."""
        units, states_UW = units_said(self.parts, said, first)
        wave_S = self.stream.push(units, states_UW) if units else np.zeros(0, np.float32)
        return self.trimmer.push(wave_S), tuple(units)

    def _close(self, wave_S: np.ndarray) -> np.ndarray:
        """Return samples and the end of the utterance that they belong to; the next segment begins another."""
        ends = [self.trimmer.push(self.stream.flush()), self.trimmer.flush(self.text)]
        self._begin()
        return np.concatenate([wave_S, *ends])


def units_said(parts: Parts, words: Generated, first: int = 0) -> tuple[list[int], torch.Tensor | None]:
    """Return the units of the words from `first` on, and for a vocoder that reads any the state behind each, (U, W)."""
    units_of, ids = parts.unit_tokenizer, words.ids[first:]
    if not (parts.vocoder.state_width and ids and isinstance(units_of, UnitTokenizer)):
        return units_of.decode(ids), None
    spelt = [units_of.word(word) for word in ids]
    lengths = torch.tensor([len(word) for word in spelt], device=parts.device)
    return list(chain.from_iterable(spelt)), torch.stack(words.states[first:]).repeat_interleave(lengths, dim=0)
