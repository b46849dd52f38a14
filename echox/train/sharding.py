"""Sharding of weights, gradients and optimizer moments over processes (torch's fully_shard), and sharded checkpoints.

Every block of a ModuleList is gathered for its call and released afterwards; all other parameters belong to the whole model, whose
call is the stage's forward pass. Scalars cannot be sharded and stay on every process. Checkpoints are those of
torch.distributed.checkpoint: saved by any number of processes, loaded by any other number. It looks at no checksum, so those of
its files lie beside them, and are looked at before anything is loaded.
"""

from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from echox.errors import ConfigError, InputError
from echox.files import read_json, sha256_of, write_json

METADATA = ".metadata"  # the file that torch.distributed.checkpoint writes last
SUMS = "sums.json"  # sha256 of each file by its name
State = dict[str, Any]


def shard_model(model: nn.Module) -> None:
    """Shard every parameter of `model` but scalars over the processes, in place."""
    scalars = {parameter for parameter in model.parameters() if not parameter.ndim}
    for stack in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        for block in stack:
            if any(True for _ in block.children()):
                fully_shard(block, ignored_params=scalars & set(block.parameters()))
    fully_shard(model, ignored_params=scalars)


def is_cut(tensor: torch.Tensor) -> bool:
    """Say whether a tensor is sharded."""
    return isinstance(tensor, DTensor)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor unsharded; all processes take part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def cut_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return `tensor` on the device of `like`, sharded as `like` is."""
    tensor = tensor if is_cut(tensor) else tensor.to(like.device)
    if isinstance(like, DTensor) and not is_cut(tensor) and tensor.ndim:
        return distribute_tensor(tensor, like.device_mesh, like.placements)
    return tensor


def gather_in_place(model: nn.Module, keep: bool) -> None:
    """Gather every parameter where `keep`; all processes take part, and the model is not called again."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if isinstance(parameter, DTensor):
                full = parameter.full_tensor()
                module._parameters[name] = nn.Parameter(full if keep else full[:0], requires_grad=False)


def save_pieces(folder: Path | None, state: State) -> None:
    """Write a sharded state into the folder that the first process names; all processes take part."""
    place = [str(folder)]
    distributed.broadcast_object_list(place)
    save(dict(_flat(state)), checkpoint_id=place[0])
    own = [path.name for path in Path(place[0]).glob(f"__{distributed.get_rank()}_*.distcp")]
    sums = _sums(Path(place[0]), own if folder is None else [*own, METADATA])
    if folder is not None:
        write_json(folder / SUMS, sums)


def check_pieces(folder: Path) -> None:
    """Raise ConfigError in every process unless a sharded checkpoint is as it was written; one of old, without sums, passes."""
    if not (folder / SUMS).is_file():
        return
    wanted = read_json(folder / SUMS, error=ConfigError)
    if not isinstance(wanted, dict):
        raise ConfigError(f"{folder} is no whole checkpoint of echox ({SUMS} holds no sums).")
    names, many = sorted(wanted), distributed.is_initialized()
    found = _sums(folder, names[distributed.get_rank() :: distributed.get_world_size()] if many else names)
    if changed := [name for name in names if found[name] != wanted[name]]:
        raise ConfigError(f"{folder} is no whole checkpoint of echox ({changed[0]} is not as it was written).")


def _sums(folder: Path, own: list[str]) -> dict[str, str]:
    """Return the sha256 of this process's `own` files and of those of all others, '' for one that cannot be read."""
    sums = {}
    for name in own:
        try:
            sums[name] = sha256_of(folder / name)
        except (InputError, OSError):
            sums[name] = ""
    parts = [sums]
    if distributed.is_initialized():
        parts *= distributed.get_world_size()
        distributed.all_gather_object(parts, sums)
    return {name: value for part in parts for name, value in part.items()}


def load_pieces(folder: Path, parameters: dict[str, nn.Parameter]) -> State:
    """Return the state that `save_pieces` wrote, sharded as the parameters are; ConfigError when it is broken."""
    check_pieces(folder)
    try:
        held = FileSystemReader(str(folder)).read_metadata().state_dict_metadata
        flat = {}
        for key, kind in held.items():
            like = parameters.get(key.split("/")[1]) if "/" in key else None
            if not isinstance(kind, TensorStorageMetadata):
                raise ValueError(f"{key} is no tensor")
            if like is not None and is_cut(like) and like.shape == kind.size:
                flat[key] = torch.empty_like(like)
            else:
                flat[key] = torch.empty(kind.size, dtype=kind.properties.dtype)
        load(flat, checkpoint_id=str(folder), no_dist=not distributed.is_initialized())
    except (OSError, ValueError, KeyError, EOFError, AttributeError, RuntimeError, CheckpointException) as error:
        raise ConfigError(f"{folder} is no whole checkpoint of echox ({type(error).__name__}).") from error
    state: State = {"model": {}, "moments": {}}
    for key, value in flat.items():
        first, *names = key.split("/")
        if not names:
            state[first] = int(value)
        elif first == "model":
            state["model"]["/".join(names)] = value  # names of buffers hold slashes (models/lora.py)
        else:
            state["moments"].setdefault(names[0], {})[names[1]] = value
    return state


def _flat(state: State) -> list[tuple[str, torch.Tensor]]:
    moments = [(f"moments/{name}/{key}", v) for name, held in state["moments"].items() for key, v in held.items()]
    model = [(f"model/{name}", value) for name, value in state["model"].items()]
    return [*model, *moments, *((name, torch.tensor(state[name])) for name in ("step", "batches"))]
