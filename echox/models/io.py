"""Model parts on disk: config.json + model.safetensors, loaded strictly with an explicit allow-list; it knows no model.

Tensors of the LLM never ship with a part: they are the allow-list.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedConfig

from echox.config.record import check_finished
from echox.errors import ModelError
from echox.files import CONFIG_BYTES, read_header, read_json, write_file, write_text
from echox.models.bounds import check_values
from echox.models.weights import dequantize, header_behind, is_finite

T = TypeVar("T")
Config = TypeVar("Config", bound=PreTrainedConfig)

Module = TypeVar("Module", bound=nn.Module)

WEIGHTS, CONFIG = "model.safetensors", "config.json"
PART_BYTES = 4 << 30  # of one part's weights
WHOLE_NUMBERS = frozenset({"I8", "I16", "I32", "I64", "U8", "BOOL"})
REAL_NUMBERS = frozenset({"F16", "BF16", "F32", "F64"})
RANDOM = frozenset({"uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"})
NOT_OURS = frozenset({"model_type", "architectures", "dtype", "transformers_version"})  # Hugging Face's own notes


class Part(nn.Module, Generic[Config]):
    """A module that is built from its configuration alone; `save_part` and `load_module` keep it in a folder."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        """Where its numbers are."""
        return next(self.parameters()).device


class WholePart(Part[Config]):
    """A part that needs nothing but its folder; `config_class` is what its config.json becomes."""

    config_class: ClassVar[type[PreTrainedConfig]]

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a part saved by `save`; ModelError names what does not fit."""
        config: Any = load_config(folder, cls.config_class)
        return load_module(folder, lambda: cls(config))

    def save(self, folder: str | Path) -> None:
        """Write the part to `folder`."""
        save_part(folder, self)


class Stack(nn.ModuleList, Generic[Module]):
    """Layers of one kind in a row, a `ModuleList` that says of which kind, so that a type checker follows along it."""

    def __iter__(self) -> Iterator[Module]:
        return cast("Iterator[Module]", super().__iter__())


class Unfilled(TorchFunctionMode):
    """Modules that are built inside get no starting numbers, since every tensor will come from a file.

    It saves time, on the meta device the import of torch's compiler, and leaves the program's random numbers where they were.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return a tensor that would be filled with random numbers as it is."""
        if getattr(func, "__name__", "") in RANDOM:
            return args[0] if args else kwargs["tensor"]
        return (torch.empty if func is torch.randn else func)(*args, **kwargs or {})


def save_part(folder: str | Path, model: Part[Any], absent: tuple[str, ...] = ()) -> None:
    """Write `model` to `folder` in float16 with its config, leaving out tensors whose names start with `absent`.

    ModelError for a number that float16 does not hold, OutputError where nothing can be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value for name, value in model.state_dict().items() if not name.startswith(absent)}
    half = {name: _half(name, value) for name, value in state.items()}
    with write_file(folder / WEIGHTS) as partial:
        save_file(half, partial, metadata={"format": "pt"})
    config = model.config.to_diff_dict() | {"architectures": [type(model).__name__]}
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def _half(name: str, value: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float16 where it is real; ModelError when it holds what float16 cannot."""
    value = value.detach().cpu()
    half = value.to(torch.float16) if value.is_floating_point() else value
    if not is_finite(half):
        raise ModelError(
            f"tensor {name} holds {float(value.abs().max()):g}, which float16 cannot (65504 at most): lower the learning rate."
        )
    return half.contiguous()


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return a part's config.json; ModelError when it is missing or broken."""
    path = Path(folder) / CONFIG
    if not path.exists():
        what = f"{CONFIG} is missing" if path.parent.exists() else "it does not exist"
        raise ModelError(f"{folder} is not a model part: {what}; check the path, or fetch the model again.")
    return read_settings(path)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a JSON file; ModelError when it cannot be read or holds something else."""
    settings = read_json(path, CONFIG_BYTES, ModelError)
    if not isinstance(settings, dict):
        raise ModelError(f"{path} does not hold settings: fetch the model again.")
    return settings


def load_module(
    folder: str | Path, build: Callable[[], Module], absent: tuple[str, ...] = (), skip: tuple[str, ...] = ()
) -> Module:
    """Return the module that `build` makes, filled from `folder`; nothing is allocated before the file fits its config.

    ModelError names the first missing, extra or misshapen tensor, or one that holds NaN or infinity. Exactly the tensors
    whose names start with `absent` may be, and must be, absent from the file; those that start with `skip` are passed over.
    """
    path = Path(folder) / WEIGHTS
    with Unfilled():
        with torch.device("meta"):
            check_tensors(path, header_behind(read_header(path, PART_BYTES)), build().state_dict(), absent, skip)
        module = build()
    module.load_state_dict(read_weights(path), strict=False)
    return module


def check_tensors(
    path: Path,
    stored: Mapping[str, tuple[str, tuple[int, ...]]],
    own: Mapping[str, torch.Tensor],
    absent: tuple[str, ...] = (),
    skip: tuple[str, ...] = (),
) -> None:
    """Raise ModelError unless what is `stored` at `path` are the tensors `own`, by name, shape and kind of number.

    Tensors whose names start with `absent` must not be there; those that start with `skip` may be.
    """
    header = {n: v for n, v in stored.items() if not n.startswith(skip)}
    expected = {name for name in own if not name.startswith(absent)}
    for problem, names in (("lacks", expected - set(header)), ("holds unexpected", set(header) - expected)):
        if names:
            first = sorted(names)[0]
            raise ModelError(f"{path} {problem} tensor {first} ({len(names)} in all): it does not fit its config.json.")
    for name, (kind, shape) in header.items():
        if shape != tuple(own[name].shape):
            wanted = tuple(own[name].shape)
            raise ModelError(f"{path}: tensor {name} has shape {shape}, its config.json asks for {wanted}.")
        if kind not in (REAL_NUMBERS if own[name].is_floating_point() else WHOLE_NUMBERS):
            raise ModelError(f"{path}: tensor {name} holds numbers of kind {kind}: fetch the model again.")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file, all of them finite; ModelError names one that is not."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as safetensors ({error}): fetch the model again.") from error
    state = dequantize(state)
    for name, value in state.items():
        if not is_finite(value):
            raise ModelError(f"{path}: tensor {name} holds NaN or infinity: fetch the model again.")
    return state


def load_config(folder: str | Path, kind: type[Config]) -> Config:
    """Return the config of `folder` as `kind`; ModelError names another model type, or a setting unknown or out of bounds."""
    check_finished(folder)
    values, path = read_config(Path(folder)), Path(folder) / CONFIG
    if values.get("model_type") != kind.model_type:
        raise ModelError(f"{path} describes a {values.get('model_type')!r}, not a {kind.model_type!r}.")
    settings = {name: value for name, value in values.items() if name not in NOT_OURS}
    check_values(kind, settings, path)
    return kind(**settings)


def settings_from(kind: type[T], values: dict[str, Any] | None, source: str) -> T:
    """Build settings, all of which have a default, from plain values; ModelError names one that is unknown or out of bounds."""
    check_values(kind, values or {}, source)
    return kind(**(values or {}))
