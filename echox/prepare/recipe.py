"""The strict settings of a data recipe (`recipes/mini/data.yaml`): sources, text choices, corpora.

Knows no voice and reads no data. A misspelt key, an unknown voice kind or a held-out voice in a training corpus raises
ConfigError.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from echox.audio import SAMPLE_RATE
from echox.config.load import Ordered, Range, Seed, Settings, Share, read_yaml
from echox.errors import ConfigError

ASKING_VOICES = tuple("af_bella af_nova am_eric am_fenrir bf_alice bf_isabella bm_daniel bm_lewis".split())
"""English voices of Kokoro that only ever speak what is measured."""
HELD_OUT_VOICES = (*ASKING_VOICES, "em_santa", "es.f4", "es.m6", "es-419.f4", "es-419.m6")
"""These, and Spanish ones of Kokoro and espeak-ng of which the same holds."""

PositiveRange = Annotated[tuple[PositiveFloat, PositiveFloat], Ordered]


class Source(Settings):
    """One public collection; `path` is a local copy (file or folder), taken instead of the URL."""

    url: str
    licence: str
    path: Path | None = None


class Sources(Settings):
    """Everything the texts come from."""

    opentriviaqa: Source
    webquestions: Source
    tatoeba: Source
    multi30k: Source


class Texts(Settings):
    """How many texts of each kind, and which are held out (by hash, never by order)."""

    trivia_held_out: NonNegativeInt = 600
    measured_per_source: NonNegativeInt = 250
    near_repeat_jaccard: Share = 0.8
    carriers_per_answer: PositiveInt = 2
    tatoeba_sentences: NonNegativeInt = 12_000
    multi30k_sentences: NonNegativeInt = 8_000
    choice_sentences: NonNegativeInt = 0  # wrong choices of training questions, each inside one carrier
    number_sentences: NonNegativeInt = 0  # years, amounts, ordinals, each inside one carrier
    short_sentences: NonNegativeInt = 0  # of one to four words
    short_stretches: NonNegativeInt = 0  # of one to four words out of longer sentences
    short_answers: NonNegativeInt = 0  # of training questions, alone
    replies: Path | None = None  # what people say to an assistant, one a line
    reply_times: PositiveInt = 16  # so often is each reply said, by another voice


class VoiceChoice(Settings):
    """One kind of voice: its share of a corpus, the styles drawn from, pitch and tempo ranges.

    `pitch` multiplies pitch and formants together (by resampling); `tempo` is the final speaking rate. `mixes` is the
    share of utterances spoken by a mix of two styles (Kokoro only).
    """

    kind: Literal["hibari", "kokoro", "flite", "piper", "espeak", "tones"]
    share: PositiveFloat = 1.0
    styles: tuple[str, ...] = ()
    mixes: Share = 0.0
    pitch: PositiveRange = (1.0, 1.0)
    tempo: PositiveRange = (1.0, 1.0)


class Perturbation(Settings):
    """Acoustic perturbation of a clean voice; shares are probabilities, levels in dB."""

    noise_share: Share = 0.65
    snr_db: Range = (5.0, 30.0)
    noise_kinds: tuple[Literal["white", "pink", "babble"], ...] = ("white", "pink", "babble")
    room_share: Share = 0.35
    room_seconds: PositiveRange = (0.1, 0.5)
    telephone_share: Share = 0.1
    peak_dbfs: Range = (-30.0, -3.0)
    silence_seconds: Annotated[tuple[NonNegativeFloat, NonNegativeFloat], Ordered] = (0.0, 0.5)


class Corpus(Settings):
    """One spoken corpus: texts, voices, perturbation; `take` uses only the first so many texts."""

    texts: str
    role: Literal["user", "assistant"]
    split: Literal["train", "heldout"]
    field: Literal["question", "text", "translation"]
    voices: tuple[VoiceChoice, ...] = Field(min_length=1)
    perturb: Perturbation | None = None
    take: int | None = Field(default=None, ge=1)
    files: bool = False
    seed: Seed = 0

    @model_validator(mode="after")
    def _check(self) -> "Corpus":
        used = {part for voice in self.voices for style in voice.styles for part in style.partition("@")[0].split("+")}
        clash = sorted(used & set(HELD_OUT_VOICES))
        if self.split == "train" and clash:
            raise ValueError(f"held-out voices {clash} in a training corpus")
        for voice in self.voices:
            if voice.kind == "kokoro" and not voice.styles:
                raise ValueError("kokoro needs its styles named")
            if voice.mixes and (voice.kind != "kokoro" or len(set(voice.styles)) < 2):
                raise ValueError("mixes are of two voices of kokoro: name two styles or more, or leave mixes out")
        return self


class Recipe(Settings):
    """A whole data recipe; `corpora` maps a folder name to what is spoken into it."""

    stage: Literal["data"]
    sources: Sources | None = None  # none: what is spoken was written by another stage, as `text_pairs`
    texts: Texts = Texts()
    sample_rate: PositiveInt = SAMPLE_RATE
    shard_texts: PositiveInt = 500
    corpora: dict[str, Corpus]

    def corpus(self, name: str) -> Corpus:
        """Return one corpus; ConfigError lists those that exist."""
        if name not in self.corpora:
            raise ConfigError(f"the recipe has no corpus {name!r}: choose from {', '.join(sorted(self.corpora))}.")
        return self.corpora[name]


def load_data_recipe(path: str | Path, local: dict[str, Path] | None = None) -> Recipe:
    """Return a data recipe with `local` paths set for its sources; raise ConfigError naming the key at fault."""
    recipe = Recipe.parse(read_yaml(path), str(path))
    sources = dict(recipe.sources or {})
    for name, place in (local or {}).items():
        if name not in sources:
            raise ConfigError(f"{path} has no source {name!r}: choose from {', '.join(sorted(sources))}.")
        sources[name] = sources[name].model_copy(update={"path": place})
    return recipe.model_copy(update={"sources": Sources(**sources)}) if local else recipe
