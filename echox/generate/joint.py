"""One model for speech translation, text translation and recognition, on loaded parts (S-Align, models/speech_translator.py).

    wave ─cut at pauses─► encoder states ─adapter─┬─► CTC ─► what was said
                                                  └─shrink─► shared layers ─┐
    text ─clean─► pieces ─────────────────────────► shared layers ──────────┴─► beam search ─► translation

A model folder holds translator/ with its vocabulary and, where it hears, encoder/ (or shares that of a shipped model), beside one
config.json.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from echox.audio import SAMPLE_RATE
from echox.errors import LONGEST_REASON, InputError, clipped
from echox.features.cuts import phrases
from echox.generate import ctc
from echox.generate.checks import check_text
from echox.generate.translation import Said, Wanted
from echox.generate.written import write_best, write_stream
from echox.hub import sharing
from echox.models.bounds import Factor, Layers, Positive, Text, Tokens, check_values
from echox.models.hearing import Hearing
from echox.models.io import read_config
from echox.models.llm import Place
from echox.models.packed import pack
from echox.models.ragged import pad_right
from echox.models.speech_translator import BLANK, END, PAD, Heard, Positioned, SpeechTranslatorModel
from echox.text.cleaning import Cleaning, clean
from echox.text.pieces import Pieces
from echox.text.segmenter import split_sentences

KIND = "joint"
TOGETHER = 16  # pieces encoded and searched at once
MOST_TOKENS = 256  # of one translation
LONG_TEXT = 120  # characters: what is longer is several sentences, and the models have learnt single ones
UNHEARD = Said(None, "", finish="unheard")  # where CTC finds no word, whatever is written would be invented


class JointConfig:
    """What the config.json of such a model folder may say."""

    model_type: Text
    kind: Text
    source: Text  # language that it hears and reads
    target: Text  # language that it writes
    shares: Text  # shipped model whose encoder it hears with; empty: its own
    encoder_layer: Layers
    longest_seconds: Tokens  # a piece of a recording
    beams: Positive
    length_penalty: Factor
    about: Text


DEFAULTS = {"shares": "", "encoder_layer": 0, "longest_seconds": 20, "beams": 8, "length_penalty": 1.0}


@dataclass
class JointTranslator:
    """Everything that the three tasks need, on one device."""

    model: SpeechTranslatorModel
    pieces: Pieces
    encoder: Hearing | None  # none: it reads text only
    longest: int = 20 * SAMPLE_RATE  # samples of a piece
    beams: int = 8
    length_penalty: float = 1.0
    language: str = "en"  # that it hears and reads

    @property
    def sample_rate(self) -> int:
        """Samples per second of the speech that it hears; it speaks none."""
        return SAMPLE_RATE

    @torch.inference_mode()
    def hear(self, waves: Sequence[np.ndarray]) -> Heard:
        """Return adapted frames and CTC logits of waves, none longer than `longest`."""
        if self.encoder is None:
            raise InputError("this model reads text only and hears nothing: give it typed text.")
        frames_BTD, mask_BT = pad_right([row.float().to(self.model.device) for row in self.encoder(waves)])
        return self.model.hear(frames_BTD, mask_BT.sum(1))

    def speech_states(self, waves: Sequence[np.ndarray]) -> tuple[Positioned, Heard]:
        """Return what the decoder reads of waves, and what was heard of them."""
        heard = self.hear(waves)
        with torch.inference_mode():
            return self.model.shared_layers(self.model.shrink(heard)), heard

    @torch.inference_mode()
    def text_states(self, texts: Sequence[str]) -> Positioned:
        """Return what the decoder reads of texts; InputError for one that is empty, or longer than the model's positions."""
        rows = [[*self._tokens(text), END] for text in texts]
        tokens, mask = pad_right([torch.tensor(row) for row in rows])
        device = self.model.device
        return self.model.read(tokens.masked_fill(~mask, PAD).to(device), mask.to(device))

    def translate(self, waves: Sequence[np.ndarray], wanted: Wanted) -> list[Said]:
        """Return the translation of each wave with its transcript; each phrase between pauses alone."""
        cut = [phrases(wave, self.longest) for wave in waves]
        found = iter(self._translate_pieces([piece for pieces in cut for piece in pieces], wanted))
        return [_joined(list(islice(found, len(pieces)))) for pieces in cut]

    def translate_texts(self, texts: Sequence[str], wanted: Wanted) -> list[Said]:
        """Return the translation of each text, long ones sentence by sentence."""
        cut, found = [self._sentences(text) for text in texts], list[Said]()
        rows = [row for some in cut for row in some]
        for first in range(0, len(rows), TOGETHER):
            found += self._write(self.text_states(rows[first : first + TOGETHER]), wanted)
        rest = iter(found)
        return [_joined(list(islice(rest, len(some)))) for some in cut]

    def transcribe(self, waves: Sequence[np.ndarray], beam: int = 1) -> list[str]:
        """Return what was said in each wave, by greedy CTC or by a beam over texts."""
        cut = [phrases(wave, self.longest) for wave in waves]
        pieces, found = [piece for some in cut for piece in some], list[str]()
        for first in range(0, len(pieces), TOGETHER):
            found += self.words(self.hear(pieces[first : first + TOGETHER]), beam)
        rest = iter(found)
        return [" ".join(text for text in islice(rest, len(some)) if text) for some in cut]

    def words(self, heard: Heard, beam: int = 1) -> list[str]:
        """Return the words that CTC finds."""
        if beam == 1:
            rows = ctc.greedy(heard.logits_BTV, heard.frames_B, BLANK)
        else:
            rows = ctc.prefix_beam(heard.logits_BTV, heard.frames_B, BLANK, beam)
        return [self.pieces.decode(row) for row in rows]

    def stream(self, wave: np.ndarray | None = None, typed: str = "") -> Iterator[str]:
        """Yield a translation piece by piece as it is written, the likeliest token at every step."""
        parts: Iterable[Positioned]
        if wave is None:
            parts = (self.text_states([text]) for text in self._sentences(typed))
        else:
            heard = (self.speech_states([piece]) for piece in phrases(wave, self.longest))
            parts = (states for states, frames in heard if self.words(frames)[0])
        said = ""
        for states in parts:
            tokens: list[int] = []
            begun = f"{said} " if said else ""
            for token in write_stream(self.model, states, MOST_TOKENS):
                tokens.append(token)
                text = begun + self.pieces.decode(tokens)
                if text.startswith(said) and text != said:
                    yield text[len(said) :]
                    said = text

    def _translate_pieces(self, waves: list[np.ndarray], wanted: Wanted) -> list[Said]:
        found = []
        for first in range(0, len(waves), TOGETHER):
            states, heard = self.speech_states(waves[first : first + TOGETHER])
            words = self.words(heard)
            some = [row for row, text in enumerate(words) if text]
            said = iter(self._write(states.rows(some), wanted) if some else ())
            found += [replace(next(said), heard=text) if text else UNHEARD for text in words]
        return found

    def _write(self, states: Positioned, wanted: Wanted) -> list[Said]:
        found = write_best(self.model, states, MOST_TOKENS, wanted.beams or self.beams, self.length_penalty)
        texts = [(self.pieces.decode(tokens), ended) for tokens, ended in found]
        return [Said(None, text, finish=("stop" if ended else "length") if text else "empty") for text, ended in texts]

    def _sentences(self, text: str) -> list[str]:
        """Return a short text whole, and of a long one the sentences that hold words."""
        check_text(text, "the text to translate")
        if len(text) <= LONG_TEXT:
            return [text]
        return [sentence for sentence in split_sentences(text) if self._ids(sentence)] or [text]

    def _ids(self, text: str) -> list[int]:
        """Return the pieces of a text, none where the vocabulary has no letter of it."""
        config = self.model.config
        rule = Cleaning.parse({"lower": config.source_lower, "punctuation": config.source_punctuation}, "the model")
        ids = self.pieces.encode(clean(text, rule))
        return ids if self.pieces.decode(ids) else []

    def _tokens(self, text: str) -> list[int]:
        check_text(text, "the text to translate")
        ids, most = self._ids(text), self.model.config.max_positions - 1
        if not ids:
            raise InputError(f"{clipped(text, LONGEST_REASON)!r} holds no words that the model can read: write some.")
        if len(ids) > most:
            raise InputError(f"the text has {len(ids)} tokens, more than the model's {most}: translate it in parts.")
        return ids


def _joined(pieces: list[Said]) -> Said:
    """Return the pieces of one recording, or of one text, as one translation."""
    text, heard = (
        " ".join(filter(None, words)) for words in zip(*((one.text, one.heard) for one in pieces), strict=True)
    )
    if all(one.finish == "unheard" for one in pieces):
        return UNHEARD
    finish = "length" if any(one.finish == "length" for one in pieces) else "stop"
    return Said(None, text, heard=heard, finish=finish if text else "empty")


def load(folder: Path, place: Place) -> JointTranslator:
    """Load a model folder of this kind; ModelError names what is missing or does not fit. It runs in float32 in any place."""
    path = Path(folder) / "config.json"
    values = read_config(folder)
    check_values(JointConfig, values, path)
    settings = DEFAULTS | values
    model = SpeechTranslatorModel.load(Path(folder) / "translator")
    encoder = None
    if model.speech is not None:
        own = sharing(folder, settings["shares"]) / "encoder"
        encoder = Hearing.from_pretrained(own, settings["encoder_layer"]).to(place.device)
    model.to(place.device)
    if place.packs:
        pack(model)
    return JointTranslator(
        model,
        Pieces.load(Path(folder) / "translator"),
        encoder,
        settings["longest_seconds"] * SAMPLE_RATE,
        settings["beams"],
        settings["length_penalty"],
        settings["source"],
    )
