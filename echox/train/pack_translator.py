"""A trained translator part, a vocoder and a unit language become one model folder that `echox translate` loads."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from echox.config.load import Settings
from echox.errors import ConfigError
from echox.files import write_folder, write_json
from echox.generate.textless import KIND
from echox.generate.translation import MODEL_TYPE
from echox.hub import sharing
from echox.models.encoder import SpeechEncoder
from echox.train.pack import UNIT_FILES, copy_part, copy_units, save_encoder
from echox.units.extractor import CENTROIDS_FILE


class Recipe(Settings):
    """Where the parts are; with `shares` the vocoder is that of a shipped model, and without `units` so is its unit language."""

    stage: Literal["pack_translator"]
    out: Path
    translator: Path
    source: str  # language that it hears
    target: str  # language that it speaks
    shares: str = ""
    vocoder: Path | None = None
    units: Path | None = None  # the folder of the unit language
    encoder: Path | None = None  # where the translator reads states
    encoder_layer: NonNegativeInt = 0
    longest_seconds: PositiveInt = 20
    beams: int = Field(default=10, ge=1, le=64)
    length_penalty: float = Field(default=1.0, ge=0, le=1000)
    no_repeat_ngram: NonNegativeInt = 0
    least_evidence: float = Field(default=0.0, ge=0, le=1000)
    about: str = ""
    int8: bool = False  # large matrices as int8 with a scale a row


MEASURING = ("config.json", CENTROIDS_FILE)  # of the units, where there: by them reference speech becomes units
SAID = "source target shares encoder_layer longest_seconds beams length_penalty no_repeat_ngram least_evidence about".split()


def run(recipe: Recipe) -> Path:
    """Write the model folder and return it; ModelError names a part that is not there."""
    sharing(recipe.out, recipe.shares)
    if recipe.shares and recipe.vocoder is not None:
        raise ConfigError(f"{recipe.out} cannot share the vocoder of {recipe.shares} and hold its own: give one.")
    if not recipe.shares and (recipe.vocoder is None or recipe.units is None):
        raise ConfigError("give the vocoder and the units, or a shipped model that shares its own.")

    def write(folder: Path) -> None:
        copy_part(recipe.translator, folder / "translator", recipe.int8)
        if recipe.encoder is not None:
            save_encoder(SpeechEncoder.from_pretrained(recipe.encoder), folder / "encoder", recipe.int8)
        if recipe.vocoder is not None:
            copy_part(recipe.vocoder, folder / "vocoder", recipe.int8)
        if (own := recipe.units) is not None:
            measuring = () if recipe.shares else (name for name in MEASURING if (own / name).exists())
            copy_units(own, folder / "units", [*UNIT_FILES, *measuring])
        config = {"model_type": MODEL_TYPE, "kind": KIND} | {name: getattr(recipe, name) for name in SAID}
        write_json(folder / "config.json", config)

    write_folder(recipe.out, write)
    return recipe.out
