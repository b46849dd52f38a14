"""Trained parts become one model folder: encoder/ s2t/ t2c/ echo/ vocoder/ units/ beside a config.json; nothing is trained here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import NonNegativeInt, model_validator
from safetensors.torch import load_file, save_file

from echox.config.load import Settings, known
from echox.config.record import check_finished, read_run
from echox.errors import ModelError
from echox.files import copy_file, inside, read_header, read_json, write_folder, write_json
from echox.generate.ears import TOKENIZER
from echox.generate.model_config import MODEL_TYPE
from echox.hub_llm import LlmSource
from echox.models.echo import EchoDecoder
from echox.models.encoder import SpeechEncoder
from echox.models.io import WEIGHTS
from echox.models.s2t import PLAIN, S2TConfig, SpeechToText
from echox.models.ssl import HiddenStates
from echox.models.t2c import TextToCodec
from echox.models.weights import is_scale, quantize
from echox.text.segmenter import PhraseSettings
from echox.units.extractor import CENTROIDS_FILE

UNIT_FILES = ("tokenizer.json", "tokenizer_config.json", "unit_language.json", "bigrams.safetensors")


class LlmFolder:
    """An LLM that lies in the model folder, by name: what `llm` may hold instead of a published file."""

    folder: str


class Recipe(Settings):
    """Where the parts are; `llm` is written into config.json: a published file by sha256, or {"folder": "llm"}."""

    stage: Literal["pack"]
    out: Path
    encoder: Path
    encoder_layer: NonNegativeInt
    listener: Path | None = None  # hearing by attention; none: by the adapter of `s2t`
    s2t: Path | None = None  # none: the LLM as it is, under `system`
    system: str = ""
    t2c: Path
    echo: Path | None = None  # none: an echo decoder at its start, T2C reading the tokens (models/echo.py, `tokens`)
    vocoder: Path
    units: Path  # k-means
    unit_language: Path
    llm: Annotated[dict[str, Any], known(LlmSource, LlmFolder)]
    llm_folder: Path | None = None  # copied to the folder that `llm` names
    phrases: Annotated[dict[str, int], known(PhraseSettings)] = {}  # where phrases end a segment, if not by default
    about: str = ""
    int8: bool = False  # large matrices as int8 with a scale a row

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.llm_folder is not None and "folder" not in self.llm:
            raise ValueError("llm_folder is copied to the folder that llm names: set llm.folder, or leave it out")
        return self


def run(recipe: Recipe) -> Path:
    """Write the model folder and return it; ModelError names a part that is not there."""

    def write(folder: Path) -> None:
        SpeechEncoder.from_pretrained(recipe.encoder).save(folder / "encoder")
        for name in ("listener", "s2t", "t2c", "echo", "vocoder"):
            if getattr(recipe, name) is not None:
                copy_part(getattr(recipe, name), folder / name, recipe.int8)
        if recipe.listener is not None:
            copy_file(recipe.listener / TOKENIZER, folder / "listener" / TOKENIZER)
        if recipe.s2t is None:
            _write_plain(folder / "s2t", recipe)
        if recipe.echo is None:
            torch.manual_seed(0)
            teacher = TextToCodec.load(recipe.t2c)
            EchoDecoder.from_t2c(teacher, tokens=True, shares_decoder=True).save(folder / "echo")
        copy_units(recipe.units, folder / "units", ("config.json", CENTROIDS_FILE))
        copy_units(recipe.unit_language, folder / "units", UNIT_FILES)
        if recipe.llm_folder is not None:
            for path in sorted(recipe.llm_folder.iterdir()):
                copy_file(path, inside(folder, str(recipe.llm.get("folder"))) / path.name)
        names = ("encoder_layer", "llm", "about", *(("phrases",) if recipe.phrases else ()))
        config = {"model_type": MODEL_TYPE} | {name: getattr(recipe, name) for name in names}
        write_json(folder / "config.json", config)

    check_layer(recipe)
    write_folder(recipe.out, write)
    return recipe.out


def check_layer(recipe: Recipe) -> None:
    """Raise ModelError when a part that hears was trained on another encoder layer than the model will feed it."""
    for part in (recipe.listener, recipe.s2t):
        if part is None or not (part / "recipe.json").is_file():
            continue
        made = read_json(part / "recipe.json")
        encoded = [read_run(Path(folder).parent) for folder in made.get("data", {}).get("states", [])]
        wanted = recipe.encoder_layer
        layers = [run[1].settings.get("layer", wanted) for run in encoded if run is not None]
        for layer in (*layers, made.get("encoder_layer", wanted)):
            if layer != wanted:
                raise ModelError(f"{part} learnt from layer {layer} of the encoder, not {wanted}: correct the recipe.")


def copy_units(source: Path, target: Path, names: Sequence[str]) -> None:
    """Copy files of a units folder; ModelError for one that is missing."""
    for name in names:
        if not (source / name).exists():
            raise ModelError(f"{source / name} is missing: train the units first.")
        copy_file(source / name, target / name)


def copy_part(source: Path, target: Path, int8: bool) -> None:
    """Copy a part's config and its weights, in float16 or int8 (int8 stays so); ModelError when it is missing or stale."""
    check_finished(source)
    if not (source / WEIGHTS).exists():
        raise ModelError(f"{source / WEIGHTS} is missing: train this part first.")
    read_header(source / WEIGHTS)
    target.mkdir()
    copy_file(source / "config.json", target / "config.json")
    state = load_file(source / WEIGHTS)
    halved = {name for name, value in state.items() if value.is_floating_point() and not is_scale(name, state)}
    _save({name: value.half() if name in halved else value for name, value in state.items()}, target, int8)


def save_encoder(encoder: SpeechEncoder | HiddenStates, target: Path, int8: bool) -> None:
    """Write an encoder in float16, or a Whisper's in int8; all others are loaded by transformers, which cannot read our int8."""
    encoder.save(target)
    if int8 and isinstance(encoder, SpeechEncoder):
        _save(load_file(target / WEIGHTS), target, int8)


def _save(state: dict[str, torch.Tensor], folder: Path, int8: bool) -> None:
    save_file(quantize(state) if int8 else state, folder / WEIGHTS, metadata={"format": "pt"})


def _write_plain(folder: Path, recipe: Recipe) -> None:
    """Write an S2T part that leaves the LLM as it is and hears nothing itself."""
    config = S2TConfig(**PLAIN, llm=recipe.llm, system=recipe.system)
    folder.mkdir()
    write_json(folder / "config.json", config.to_diff_dict() | {"architectures": [SpeechToText.__name__]})
    save_file({}, folder / WEIGHTS, metadata={"format": "pt"})
