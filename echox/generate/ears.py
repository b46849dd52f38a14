"""Two ways to hear a question behind one interface: waves in, positions for the LLM and the words heard out.

    CtcEar        frames --adapter, CTC--> kept runs --> positions           the paper's (spec section 2.1)
    AttentionEar  frames --listener--> words --> LLM tokens --> embeddings    the mini model's

Where the listener is in doubt, the text model helps to choose between the likeliest texts (`AttentionEar.likeliest`).

What each keeps of the end-to-end path, and what it costs, is measured in docs/hearing.md.

Legend: H LLM width, N positions, S samples.
"""

import hashlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from echox.audio import SAMPLE_RATE
from echox.errors import ModelError
from echox.features.cuts import cut_at_pauses
from echox.generate.beam import Search, n_best
from echox.generate.types import Piece
from echox.models.encoder import SpeechEncoder
from echox.models.listener import Greedy, Listener, ListenerConfig
from echox.models.ragged import pad_right
from echox.models.s2t import SpeechToText
from echox.text.prompt import encode

TOKENIZER = "tokenizer.json"
TAIL = SAMPLE_RATE // 2  # samples of silence after the last word: where a listener learns to stop
WINDOW = SAMPLE_RATE  # windows are whole seconds: few shapes, which CPUs' kernels are prepared for once
LONGEST = 28 * SAMPLE_RATE  # samples heard at once
MORE_TOKENS = 4  # by which another text may be longer than the greedy one
FEWER_WORDS = 3  # by which it may be shorter: one that breaks off in the middle is likelier by what it does not say
KNOWN = 64  # choices between texts that stay known
EDGE = SAMPLE_RATE // 10  # samples at the end of a sound that change when more of it comes


@dataclass
class Heard:
    """What was heard: positions (N, H) in LLM width and the words; no words, no positions."""

    positions_NH: torch.Tensor
    text: str


class Drafts:
    """What the last `most` sounds were taken for, so that one that goes on from them is heard sooner, and none is heard twice.

    They are found by their samples, not by a name, and change nothing but the time. No sound is kept, only digests: of all its
    samples, and of those that resampling has settled.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.found: list[tuple[int, bytes, bytes, list[int]]] = []  # samples settled, digests, tokens; oldest first

    def put(self, wave_S: np.ndarray, ids: list[int]) -> None:
        """Keep what a wave was taken for."""
        if not self.most:
            return
        settled = max(0, len(wave_S) - EDGE)
        one = (settled, _digest(wave_S[:settled]), _digest(wave_S), ids)
        self.found = [*self.found, one][-self.most :]

    def whole(self, wave_S: np.ndarray) -> list[int] | None:
        """Return what this very wave was taken for, None if it was not heard before."""
        digest = _digest(wave_S) if self.found else b""
        return next((ids for _, _, known, ids in self.found if known == digest), None)

    def begun(self, wave_S: np.ndarray) -> list[int]:
        """Return what the longest known beginning of a wave was taken for; nothing for none."""
        for settled, known, _, ids in sorted(self.found, key=lambda one: one[0], reverse=True):
            if 0 < settled <= len(wave_S) and _digest(wave_S[:settled]) == known:
                return ids
        return []


def _digest(wave_S: np.ndarray) -> bytes:
    return hashlib.sha256(wave_S.tobytes()).digest()


class Ear(Protocol):
    """Hears 16 kHz mono float32 waves."""

    def hear(self, waves: list[np.ndarray], drafts: Drafts | None = None) -> list[Heard]:
        """Return what each wave was taken for; `drafts` of what was heard before, where an ear can use them, save time."""
        ...

    def seconds(self, wave_S: np.ndarray) -> int:
        """Return the whole seconds, one at least, that the encoder goes through for a wave, with what is padded."""
        ...


Hearing = Callable[[Ear, list[np.ndarray]], Generator[Piece, None, list[Heard]]]
"""How waves are heard: what they were taken for is returned, and WAIT yielded wherever that takes another step."""


def at_once(ear: Ear, waves: list[np.ndarray], drafts: Drafts | None = None) -> Generator[Piece, None, list[Heard]]:
    """Return what waves were taken for, heard with nobody else's; a Hearing."""
    yield from ()
    return ear.hear(waves, drafts)


@dataclass
class CtcEar:
    """Encoder frames through the CTC adapter: one position a run of equal tokens.

    An encoder of full windows is heard window by window (spec section 2.1), of which `longest` are heard (None: all of them).
    """

    encoder: SpeechEncoder
    layer: int
    s2t: SpeechToText
    tokenizer: Any
    longest: int | None = None

    @torch.inference_mode()
    def hear(self, waves: list[np.ndarray], drafts: Drafts | None = None) -> list[Heard]:
        """See `Ear.hear`."""
        pieces = [self._windows(wave) for wave in waves]
        heard = iter(self._hear([piece for some in pieces for piece in some]))
        found = [[next(heard) for _ in some] for some in pieces]
        return [
            Heard(torch.cat([one.positions_NH for one in some]), " ".join(one.text for one in some if one.text))
            for some in found
        ]

    def seconds(self, wave_S: np.ndarray) -> int:
        """See `Ear.seconds`."""
        full = len(self._windows(wave_S)) * self.encoder.window_samples // SAMPLE_RATE
        return max(1, full) if self.encoder.full_windows else window_seconds(wave_S)

    def _windows(self, wave_S: np.ndarray) -> list[np.ndarray]:
        if not self.encoder.full_windows:
            return [wave_S]
        size = self.encoder.window_samples
        return [wave_S[start : start + size] for start in range(0, len(wave_S), size)][: self.longest]

    def _hear(self, waves: list[np.ndarray]) -> list[Heard]:
        adapter = self.s2t.adapter
        states = [found[self.layer] for found in self.encoder.encode(waves, (self.layer,))]
        frames_BTD, _ = pad_right(states)
        heard = self.s2t.hear(frames_BTD.to(adapter.norm.weight.dtype), torch.tensor([len(row) for row in states]))
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in self.s2t.heard_ids(heard)]
        rows = zip(heard.kept_BNH, heard.mask_BN, texts, strict=True)
        always = adapter.config.keep_blanks  # it hears silence too
        return [Heard(row[mask] if text or always else row[:0], text) for row, mask, text in rows]


@dataclass
class AttentionEar:
    """Encoder frames through the listener: words, then the LLM's own embeddings of them."""

    encoder: SpeechEncoder
    layer: int
    listener: Listener
    listener_tokenizer: Any
    s2t: SpeechToText
    tokenizer: Any

    def __post_init__(self) -> None:
        self.begin, self.end = special_ids(self.listener_tokenizer, self.listener.config)
        self.known: dict[tuple[str, ...], list[float]] = {}  # a sound that grows is heard again and again

    @torch.inference_mode()
    def hear(self, waves: list[np.ndarray], drafts: Drafts | None = None) -> list[Heard]:
        """See `Ear.hear`; more than 28 s are heard in pieces, cut at pauses."""
        pieces = [cut_at_pauses(wave, LONGEST) for wave in waves]
        texts = iter(self.transcribe([piece for some in pieces for piece in some], drafts))
        words = [" ".join(text for _ in some if (text := next(texts))) for some in pieces]
        return [Heard(self.s2t.embed(encode(self.tokenizer, text)), text) for text in words]

    def seconds(self, wave_S: np.ndarray) -> int:
        """See `Ear.seconds`."""
        return window_seconds(wave_S)

    def transcribe(self, waves: list[np.ndarray], drafts: Drafts | None = None) -> list[str]:
        """Return the words of each wave of at most 28 s; `drafts` of what was heard before save time."""
        drafts = drafts or Drafts(0)
        known = [drafts.whole(wave) for wave in waves]
        new = [wave for wave, ids in zip(waves, known, strict=True) if ids is None]
        heard = iter(self._tokens(new, [drafts.begun(wave) for wave in new]) if new else ())
        rows = [next(heard) if ids is None else ids for ids in known]
        for wave, row, ids in zip(waves, rows, known, strict=True):
            if ids is None:
                drafts.put(wave, row)
        return [self.listener_tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]

    def _tokens(self, waves: list[np.ndarray], guesses: list[list[int]]) -> list[list[int]]:
        found = self.encoder.encode([fill_window(wave) for wave in waves], (self.layer,))
        weight = self.listener.layer_norm.weight
        states_BTW, mask_BT = pad_right([row[self.layer].to(weight.device, weight.dtype) for row in found])
        seconds, frames_B, config = [len(wave) / SAMPLE_RATE for wave in waves], mask_BT.sum(1), self.listener.config
        heard, rows = self.listener.generate(states_BTW, frames_B, self.begin, self.end, seconds, guesses), []
        for n, one in enumerate(heard):
            doubtful = one.tokens and config.beams > 1 and one.sure(config.doubt) < len(one.odds)
            rows.append(self.likeliest(one, states_BTW[n : n + 1], frames_B[n : n + 1]) if doubtful else one.tokens)
        return rows

    def likeliest(self, greedy: Greedy, states_1TW: torch.Tensor, frames_1: torch.Tensor) -> list[int]:
        """Return the tokens of a sound that are likeliest to listener and text model together; those before any doubt stay.

        Of the texts that a beam search finds within `doubt` of the likeliest, but for those that leave out what the greedy one
        says, the one with the greatest log P(text | sound) + `rescoring` log P(text) is taken, the second by the text model.
        """
        config, state = self.listener.config, self.listener.start(states_1TW, frames_1)
        sure = greedy.sure(config.doubt)
        begin = greedy.tokens[:sure]

        def step(tokens_1K: torch.Tensor, parents_1K: torch.Tensor) -> torch.Tensor:
            if state.length:
                state.take(parents_1K[0].to(states_1TW.device))
            said_KN = tokens_1K.T if state.length else torch.tensor([self.begin + begin])
            return self.listener.logits(self.listener(said_KN.to(states_1TW.device), state)[:, -1])[None]

        floor = greedy.score(sure) - config.doubt  # the likeliest is no less likely than the greedy one
        search = Search(self.begin[-1], self.end, config.beams, length_penalty=0.0, floor=floor)
        room = min(len(greedy.tokens) + MORE_TOKENS, config.max_positions - len(self.begin)) - sure
        [found] = n_best(step, 1, search, [room])
        decode = self.listener_tokenizer.decode
        told = {decode(begin + one.tokens, skip_special_tokens=True).strip(): one for one in reversed(found)}
        least = len(decode(greedy.tokens, skip_special_tokens=True).split()) - FEWER_WORDS if greedy.ended else 0
        whole = {text: one for text, one in told.items() if text and len(text.split()) >= least}
        best = max((one.score for one in whole.values()), default=0.0)
        texts = {text: one for text, one in whole.items() if one.score >= best - config.doubt}
        if len(texts) < 2:
            return next((begin + one.tokens for one in texts.values()), greedy.tokens)
        prior = self._prior(tuple(texts))
        both = [one.score + config.rescoring * more for one, more in zip(texts.values(), prior, strict=True)]
        return begin + list(texts.values())[both.index(max(both))].tokens

    def _prior(self, texts: tuple[str, ...]) -> list[float]:
        """Return log-probabilities of texts by themselves, by the text model, all less that of what they begin with alike."""
        if texts not in self.known:
            if len(self.known) == KNOWN:
                self.known.clear()
            ids = [encode(self.tokenizer, text) for text in texts]
            self.known[texts] = self.s2t.log_likelihoods([first_token(self.tokenizer)], ids)
        return self.known[texts]


def first_token(tokenizer: Any) -> int:
    """Return the token behind which a tokenizer's texts begin."""
    return tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id


def special_ids(tokenizer: Any, config: ListenerConfig) -> tuple[list[int], int]:
    """Return the ids that begin and the id that ends a text, by their names; ModelError names one that is not there."""
    ids = [tokenizer.token_to_id(name) for name in (*config.begin, config.end)]
    for name, found in zip((*config.begin, config.end), ids, strict=True):
        if found is None or found >= config.vocab_size:
            raise ModelError(f"the listener's tokenizer has no token {name}: fetch the model again.")
    return ids[:-1], ids[-1]


def window_seconds(wave_S: np.ndarray) -> int:
    """Return the whole seconds in which a wave is heard, with half a second of silence after it."""
    return -(-(len(wave_S) + TAIL) // WINDOW)


def fill_window(wave_S: np.ndarray) -> np.ndarray:
    """Return a wave with half a second of silence after it, up to a whole second."""
    return np.pad(wave_S, (0, WINDOW * window_seconds(wave_S) - len(wave_S))).astype(np.float32)
