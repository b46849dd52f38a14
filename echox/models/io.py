"""Model parts on disk: config.json + model.safetensors, loaded strictly with an explicit allow-list; it knows no model.

Tensors of the LLM never ship with a part: they are the allow-list.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig, PreTrainedModel

from echox.errors import ModelError
from echox.models.int8 import dequantize

T = TypeVar("T")
Config = TypeVar("Config", bound=PreTrainedConfig)

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_part(folder: str | Path, model: PreTrainedModel, absent: tuple[str, ...] = ()) -> None:
    """Write `model` to `folder` in float16 with its config, leaving out tensors whose names start with `absent`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value for name, value in model.state_dict().items() if not name.startswith(absent or ("\0",))}
    half = {name: _half(value).contiguous() for name, value in state.items()}
    save_file(half, folder / WEIGHTS, metadata={"format": "pt"})
    config = model.config.to_diff_dict() | {"architectures": [type(model).__name__]}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _half(value: torch.Tensor) -> torch.Tensor:
    return value.detach().cpu().to(torch.float16) if value.is_floating_point() else value.detach().cpu()


def read_config(folder: Path) -> dict[str, Any]:
    """Return a part's config.json; ModelError when it is missing or broken."""
    path = Path(folder) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{folder} is not a model part: {CONFIG} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}): fetch the model again.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} does not hold settings: fetch the model again.")
    return config


def load_part(folder: str | Path, module: PreTrainedModel, absent: tuple[str, ...] = ()) -> None:
    """Fill `module` from `folder`; ModelError names the first missing, extra or misshapen tensor.

    Exactly the tensors whose names start with `absent` may be, and must be, absent from the file.
    """
    path = Path(folder) / WEIGHTS
    try:
        state = dequantize(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as safetensors ({error}): fetch the model again.") from error
    own = module.state_dict()
    expected = {name for name in own if not name.startswith(absent or ("\0",))}
    for problem, names in (("lacks", expected - set(state)), ("holds unexpected", set(state) - expected)):
        if names:
            first = sorted(names)[0]
            raise ModelError(f"{path} {problem} tensor {first} ({len(names)} in all): it does not fit its config.json.")
    for name, value in state.items():
        if value.shape != own[name].shape:
            found, wanted = tuple(value.shape), tuple(own[name].shape)
            raise ModelError(f"{path}: tensor {name} has shape {found}, its config.json asks for {wanted}.")
    module.load_state_dict(state, strict=False)


def load_config(folder: str | Path, kind: type[Config]) -> Config:
    """Return the config of `folder` as `kind`; ModelError names another model type, or a setting it does not know."""
    values, path = read_config(Path(folder)), Path(folder) / CONFIG
    if values.get("model_type") != kind.model_type:
        raise ModelError(f"{path} describes a {values.get('model_type')!r}, not a {kind.model_type!r}.")
    known = kind()
    for name in values:
        if not hasattr(known, name):
            raise ModelError(f"{path} has an unknown setting {name!r}: it is of another version of echox.")
    return kind.from_dict(values)


def settings_from(kind: type[T], values: dict[str, Any] | None, source: str) -> T:
    """Build a settings dataclass from plain values; ModelError names an unknown or missing one."""
    try:
        return kind(**(values or {}))
    except TypeError as error:
        reason = str(error).replace(f"{kind.__name__}.__init__() ", "")
        raise ModelError(f"{source}: settings do not fit {kind.__name__} ({reason}).") from error
