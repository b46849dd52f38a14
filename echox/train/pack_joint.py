"""A trained joint model, its vocabulary and the encoder that it hears with become one model folder for `echox translate`."""

from math import ceil
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt

from echox.audio import SAMPLE_RATE
from echox.config.load import Settings
from echox.errors import ConfigError
from echox.files import copy_file, write_folder, write_json
from echox.generate.joint import KIND
from echox.generate.translation import MODEL_TYPE
from echox.hub import sharing
from echox.models.hearing import Hearing
from echox.models.io import load_config
from echox.models.speech_translator import TranslatorConfig
from echox.text.pieces import VOCABULARY
from echox.train.pack import copy_part, save_encoder
from echox.train.stage_translate import ENCODER


class Recipe(Settings):
    """Recipe of stage `pack_joint`."""

    stage: Literal["pack_joint"]
    out: Path
    translator: Path  # final/ of stage `translate`
    encoder: Path | None = None  # whose states it was trained on; none: its own, that of `shares`, or none at all
    shares: str = ""  # a shipped model that holds the same encoder: the folder gets none
    encoder_layer: NonNegativeInt = 0
    longest_seconds: int = Field(default=20, ge=1, le=30)
    beams: int = Field(default=8, ge=1, le=64)
    length_penalty: float = Field(default=1.0, ge=0, le=1000)
    about: str = ""
    int8: bool = False  # large matrices as int8 with a scale a row


def run(recipe: Recipe) -> Path:
    """Write the model folder and return it; ModelError names a part that is not there, ConfigError an encoder of another width."""
    config = load_config(recipe.translator, TranslatorConfig)
    own = recipe.translator / ENCODER
    given = sharing(recipe.out, recipe.shares) / ENCODER if recipe.shares else recipe.encoder
    if given and own.is_dir() and given.resolve() != own.resolve():
        raise ConfigError(f"{recipe.translator} learnt together with an encoder of its own: set encoder to {own}.")
    place = own if own.is_dir() else given
    encoder = Hearing.from_pretrained(place, recipe.encoder_layer) if place else None
    width = encoder.width if encoder else 0
    if width != config.encoder_width:
        raise ConfigError(
            f"{recipe.translator} reads states of width {config.encoder_width}; the encoder has {width}: "
            "name the one that it was trained with."
        )
    rate = SAMPLE_RATE / encoder.frame_samples if encoder else 0  # frames a second
    positions = ceil(recipe.longest_seconds * rate / 2**config.convolutions)
    if positions > config.max_positions:
        raise ConfigError(
            f"{recipe.longest_seconds} s become {positions} positions, more than the model's {config.max_positions}: "
            "lower longest_seconds."
        )

    def write(folder: Path) -> None:
        copy_part(recipe.translator, folder / "translator", recipe.int8)
        copy_file(recipe.translator / VOCABULARY, folder / "translator" / VOCABULARY)
        if encoder is not None and not recipe.shares:
            save_encoder(encoder.encoder, folder / "encoder", recipe.int8)
        names = ("shares", "encoder_layer", "longest_seconds", "beams", "length_penalty", "about")
        said = {name: getattr(recipe, name) for name in names}
        languages = {"source": config.source, "target": config.target}
        values = {"model_type": MODEL_TYPE, "kind": KIND} | languages | said
        write_json(folder / "config.json", values)

    write_folder(recipe.out, write)
    return recipe.out
