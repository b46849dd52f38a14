"""Textless translation on loaded parts: speech in, units of the other language, speech out; no text anywhere.

    wave ──cut at pauses──► filterbank ──encode──► memory ──beam search──► units ──vocoder (its own durations)──► speech
                            (or a frozen encoder's states)                 or unit words

A model folder holds translator/ vocoder/ units/, and encoder/ where the translator reads states, beside one config.json; with
`shares` the vocoder is that of a shipped model, and so is a unit language that the folder does not hold: they stand on a disk once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from echox.errors import ModelError
from echox.features.cuts import phrases
from echox.features.filterbank import filterbank
from echox.features.logmel import SAMPLE_RATE
from echox.generate.beam import Hypothesis, Search, beam_search
from echox.generate.parts import load_vocoder
from echox.generate.pauses import within
from echox.generate.translation import Said, Wanted
from echox.hub import sharing
from echox.models.bounds import Factor, Layers, Positive, Small, Text, Tokens, check_values
from echox.models.encoder import SpeechEncoder
from echox.models.io import read_config
from echox.models.latent_vocoder import LatentVocoder
from echox.models.llm import MOSTLY, Place
from echox.models.packed import pack
from echox.models.ragged import pad_right
from echox.models.speech_to_units import SpeechToUnits
from echox.models.vocoder import UnitVocoder
from echox.units.tokenizer import SPECIAL_TOKENS, UnitTokenizer

KIND = "textless"
TOGETHER = 16  # pieces encoded and searched at once
TOKENS_PER_SECOND = 40  # a bound on what a second of the source becomes, beside a second for a start
UNHEARD = Said(np.zeros(0, np.float32), finish="unheard")
NOISE_LEVEL = 0.1  # root mean square of the noise that phrases are held against


class TextlessConfig:
    """What the config.json of a textless model folder may say."""

    model_type: Text
    kind: Text
    source: Text  # language that it hears
    target: Text  # language that it speaks
    encoder_layer: Layers  # of encoder/, where translator/ reads states
    shares: Text  # a shipped model whose vocoder is used, and its unit language where this folder holds none
    longest_seconds: Tokens  # a piece of a recording
    beams: Positive
    length_penalty: Factor
    no_repeat_ngram: Small
    least_evidence: Factor  # of a phrase, nats a token: below it nothing was understood; 0: everything is said
    about: Text


DEFAULTS = {
    "encoder_layer": 0,
    "shares": "",
    "longest_seconds": 20,
    "beams": 10,
    "length_penalty": 1.0,
    "no_repeat_ngram": 0,
    "least_evidence": 0.0,
}


@dataclass
class Textless:
    """Everything that textless translation needs, on one device."""

    translator: SpeechToUnits
    vocoder: UnitVocoder | LatentVocoder
    unit_tokenizer: UnitTokenizer
    search: Search
    longest: int  # samples of a piece
    encoder: SpeechEncoder | None = None
    layer: int = 0
    voice: Path | None = None  # folder of its vocoder and units
    least_evidence: float = 0.0

    @property
    def sample_rate(self) -> int:
        """Samples per second of its speech."""
        return self.vocoder.config.sample_rate

    def features(self, waves: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Return what the translator reads of each wave: (T, mels), or a frozen encoder's states (T, D)."""
        if self.encoder is None:
            return [filterbank(wave, self.translator.config.input_width) for wave in waves]
        return [states[self.layer].float().cpu() for states in self.encoder.encode(list(waves), (self.layer,))]

    def tokens(self, waves: Sequence[np.ndarray], beams: int | None = None) -> list[Hypothesis | None]:
        """Return the best hypothesis of the translation of each wave, none longer than `longest`; None: nothing was understood."""
        search = self.search if beams is None else replace(self.search, beams=beams)
        found: list[Hypothesis | None] = []
        for first in range(0, len(waves), TOGETHER):
            some = waves[first : first + TOGETHER]
            limits = [TOKENS_PER_SECOND * (1 + len(wave) // SAMPLE_RATE) for wave in some]
            features = self.features(some)
            best = translate_features(self.translator, features, search, limits)
            found += self._understood(some, features, best)
        return found

    def _understood(
        self, waves: Sequence[np.ndarray], features: Sequence[torch.Tensor], best: list[Hypothesis]
    ) -> list[Hypothesis | None]:
        """Return the hypotheses for which the waves give evidence enough, None in the place of others."""
        if not self.least_evidence:
            return list(best)
        noises = self.features([white_noise(len(wave)) for wave in waves])
        return [
            one if evidence(self.translator, heard, noise, one.tokens, self.search) >= self.least_evidence else None
            for heard, noise, one in zip(features, noises, best, strict=True)
        ]

    @torch.inference_mode()
    def translate(self, waves: Sequence[np.ndarray], wanted: Wanted) -> list[Said]:
        """Return the translation of each wave; what is said between pauses is translated alone, and joined."""
        cut = [phrases(wave, self.longest) for wave in waves]
        found = iter(self.tokens([piece for pieces in cut for piece in pieces], wanted.beams))
        understood = [[one for one in islice(found, len(pieces)) if one is not None] for pieces in cut]
        return [self._say(some, wanted.samples) if some else UNHEARD for some in understood]

    def _say(self, found: list[Hypothesis], limit: int | None) -> Said:
        """Return the speech of the understood pieces of one recording, cut at `limit` samples."""
        units, words, waves = [], [], [np.zeros(0, np.float32)]
        for one in found:
            said = self.unit_tokenizer.decode(one.tokens)
            units += said
            words += self.unit_tokenizer.text(one.tokens).split()
            if said:
                waves.append(self.vocoder.speak(said))
        wave_S = np.concatenate(waves)
        finish = "stop" if all(one.ended for one in found) else "length"
        if limit is not None:
            finish = "length" if len(wave_S) > limit else finish
            wave_S = within(wave_S, limit, self.sample_rate)
        return Said(wave_S, "", units, words, finish=finish if units else "empty")


@torch.inference_mode()
def translate_features(
    model: SpeechToUnits, features: Sequence[torch.Tensor], search: Search, limits: Sequence[int]
) -> list[Hypothesis]:
    """Return the best hypothesis for each of `features` (T, F), searched together."""
    weight = model.norm.weight
    features_BTF, mask_BT = pad_right(list(features))
    state = model.start(features_BTF.to(weight.device, weight.dtype), mask_BT.sum(1).to(weight.device))
    return beam_search(
        lambda tokens, parents: model.decoder.step(state, tokens, parents), len(features), search, limits
    )


def white_noise(count: int) -> np.ndarray:
    """Return `count` samples in which nothing can be understood, always the same, float32."""
    return (NOISE_LEVEL * np.random.default_rng(0).standard_normal(count)).astype(np.float32)


@torch.inference_mode()
def evidence(
    model: SpeechToUnits, heard_TF: torch.Tensor, noise_TF: torch.Tensor, tokens: Sequence[int], search: Search
) -> float:
    """Return how much likelier `tokens` and their end are for what was heard than for noise as long, in nats a token."""
    weight = model.norm.weight
    said_U = torch.tensor([search.bos, *tokens, search.eos], device=weight.device)
    both_BTF = torch.stack([heard_TF, noise_TF]).to(weight.device, weight.dtype)
    lengths_B = torch.full((2,), len(heard_TF), device=weight.device)
    found_BUV = model(both_BTF, lengths_B, said_U[:-1].expand(2, -1)).float().log_softmax(-1)
    found_BU = found_BUV.gather(-1, said_U[1:].expand(2, -1)[..., None])[..., 0]
    return float((found_BU[0] - found_BU[1]).mean())


def load(folder: Path, place: Place) -> Textless:
    """Load a textless model folder; the dtype is the translator's, the vocoder's is float32. ModelError names what does not fit."""
    config = read_config(folder)
    check_values(TextlessConfig, config, folder / "config.json")
    config = DEFAULTS | config
    voice = sharing(folder, config["shares"])
    translator = SpeechToUnits.load(folder / "translator")
    encoder = SpeechEncoder.from_pretrained(folder / "encoder") if translator.config.input == "states" else None
    made = translator.config
    search = Search(
        int(made.bos_token_id or 0),
        int(made.eos_token_id or 0),
        config["beams"],
        config["length_penalty"],
        made.max_positions,
        config["no_repeat_ngram"],
        (int(made.pad_token_id or 0),),
    )
    found = Textless(
        translator,
        load_vocoder(voice / "vocoder"),
        UnitTokenizer.load((folder if (folder / "units").is_dir() else voice) / "units"),
        search,
        config["longest_seconds"] * SAMPLE_RATE,
        encoder,
        config["encoder_layer"],
        voice,
        config["least_evidence"],
    )
    check_parts(found, folder)
    translator.float()
    if not place.packs or pack(translator) < MOSTLY:
        translator.to(place.dtype)
    for module in (translator, found.vocoder, encoder):
        if module is not None:
            module.to(place.device).eval().requires_grad_(False)
    return found


def check_parts(found: Textless, folder: Path) -> None:
    """Raise ModelError when the parts of a folder disagree about units or widths."""
    language, config = found.unit_tokenizer, found.translator.config
    wanted = language.vocab_size if config.says == "words" else len(SPECIAL_TOKENS) + language.lexicon.units
    if config.vocabulary != wanted:
        raise ModelError(
            f"{folder / 'translator'} writes {config.vocabulary} {config.says}, units/ knows {wanted}: they do not fit."
        )
    if language.lexicon.units > found.vocoder.config.num_units:
        known = found.vocoder.config.num_units
        raise ModelError(
            f"{folder / 'units'} uses {language.lexicon.units} units, the vocoder knows {known}: they do not fit."
        )
    if found.encoder is not None:
        if not 1 <= found.layer <= found.encoder.num_layers:
            raise ModelError(f"{folder / 'config.json'} hears layer {found.layer}, which encoder/ does not have.")
        if config.input_width != found.encoder.width:
            raise ModelError(
                f"{folder / 'translator'} reads states {config.input_width} wide, encoder/ makes {found.encoder.width}."
            )
