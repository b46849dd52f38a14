"""Safetensors folders read lazily and written shard by shard, and weights in int8; it knows files and tensor names, no model.

A tensor is read when it is asked for, so loading needs little more memory than the weights themselves; one in int8 comes back in
float16. A folder that is not whole is refused before anything is read: an index that names absent files, a shard cut short, a Git
LFS pointer.

Parts that ship may be stored in int8 with a scale a row, half of float16's size. A matrix `NAME` is then int8 `NAME` and float32
`NAME.scale`, one for each entry of its first dimension. Everything small (biases, norms, gates) stays in float16, where it is exact
enough and costs nothing.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from echox.errors import ModelError, OutputError
from echox.files import JSON_BYTES, read_header, read_text, write_files, write_text

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
SCALE = ".scale"
SMALL = 4096  # elements; smaller tensors stay as they are


class WeightFiles:
    """The tensors of one folder by name: shapes from the headers, values on demand."""

    def __init__(self, folder: str | Path) -> None:
        """Read the headers of `folder`; ModelError when a file is absent, cut short or inconsistent."""
        self.folder = Path(folder)
        self.headers: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._files: dict[str, Path] = {}
        single, index = self.folder / SINGLE, self.folder / INDEX
        self.place = single if single.is_file() else index  # what an error about them names
        if single.is_file():  # even beside shards: transformers, which reads an LLM of the folder, takes it too
            self._add(single, read_header(single))
        elif index.is_file():
            self._read_index(index)
        else:
            pickles = sorted(path.name for path in self.folder.glob("pytorch_model*.bin"))
            what = "save those tensors as safetensors" if pickles else "give a whole checkpoint folder"
            beside = f"; {pickles[0]} is a pickle, which is not read" if pickles else ""
            raise ModelError(f"{self.folder} holds neither {INDEX} nor {SINGLE}{beside}: {what}.")

    def _read_index(self, index: Path) -> None:
        try:
            where = json.loads(read_text(index, JSON_BYTES, ModelError))["weight_map"]
            files = sorted(set(where.values()))
            strays = [name for name in files if Path(name).name != name]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{index} is not an index of shards ({error!r}): download it again.") from error
        if strays:
            raise ModelError(f"{index} names files outside its folder: it is not a released checkpoint.")
        absent = [name for name in files if not (self.folder / name).is_file()]
        if absent:
            have = len(files) - len(absent)
            raise ModelError(
                f"{index} names {len(files)} files and {have} are there; {absent[0]} is missing: download it."
            )
        for name in files:
            header = read_header(self.folder / name)
            lost = [tensor for tensor, file in where.items() if file == name and tensor not in header]
            if lost:
                raise ModelError(
                    f"{self.folder / name} lacks {lost[0]}, which {INDEX} expects there: download it again."
                )
            self._add(self.folder / name, header)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return {name: shape for name, (_, shape) in self.headers.items()}

    def _add(self, path: Path, header: dict[str, tuple[str, tuple[int, ...]]]) -> None:
        for name, described in header_behind(header).items():
            if name in self.headers:
                raise ModelError(f"{path} repeats {name}, which another file of the folder holds.")
            self.headers[name] = described
            self._files[name] = path

    def read(self, names: Iterable[str], checked: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name, tensor) for each of `names`, grouped by file so that one file is open at a time; ModelError names a file
        that cannot be read and, where they are `checked`, a tensor that is not finite.
        """
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self._files[name], []).append(name)
        for path, group in by_file.items():
            try:
                with safe_open(path, framework="pt") as file:
                    for name in group:
                        tensor = file.get_tensor(name)
                        if tensor.dtype == torch.int8 and self.headers[name][0] != "I8":
                            tensor = dequantize({name: tensor, name + SCALE: file.get_tensor(name + SCALE)})[name]
                        if checked and not is_finite(tensor):
                            raise ModelError(f"{path}: tensor {name} holds NaN or infinity: fetch the model again.")
                        yield name, tensor
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{path} cannot be read ({error}): download it again.") from error


def is_finite(tensor: torch.Tensor) -> bool:
    """Say whether no number of `tensor` is NaN or infinite; the extremes tell, at a thirtieth of the cost of asking every one."""
    return not tensor.is_floating_point() or not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


def write_shards(
    folder: Path, tensors: Iterable[tuple[str, torch.Tensor]], shard_bytes: int = SHARD_BYTES
) -> dict[str, tuple[int, ...]]:
    """Write `tensors` as model.safetensors, or as shards with an index, holding one shard in memory; OutputError.

    Returns the shapes written. Files appear under their final names only when all of them are whole.
    """
    parts: list[list[str]] = []
    final: dict[str, str] = {"0": SINGLE}
    shapes: dict[str, tuple[int, ...]] = {}
    total = 0
    with write_files(folder, final) as place:
        for shard in _shards(tensors, shard_bytes):
            save_file(shard, place / str(len(parts)), metadata={"format": "pt"})
            parts.append(list(shard))
            shapes |= {name: tuple(tensor.shape) for name, tensor in shard.items()}
            total += sum(tensor.nbytes for tensor in shard.values())
        if len(parts) > 1:
            if (folder / SINGLE).exists():
                raise OutputError(f"{folder / SINGLE} is of an earlier writing and would be read first: remove it.")
            final |= {str(n): f"model-{n + 1:05d}-of-{len(parts):05d}.safetensors" for n in range(len(parts))}
    if len(parts) > 1:
        where = {name: final[str(number)] for number, names in enumerate(parts) for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")
    return shapes


def _shards(tensors: Iterable[tuple[str, torch.Tensor]], most: int) -> Iterator[dict[str, torch.Tensor]]:
    """Yield tensors in shards of at most so many bytes; one that has been read is emptied, so that only one is held."""
    shard: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        if shard and sum(held.nbytes for held in shard.values()) + tensor.nbytes > most:
            yield shard
            shard.clear()
        shard[name] = tensor.contiguous()
    yield shard


def quantize(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return `state` with every large floating-point matrix as int8 and its scales, all else as it is."""
    packed = {}
    for name, value in state.items():
        if not value.is_floating_point() or value.ndim < 2 or value.numel() < SMALL:
            packed[name] = value
            continue
        rows = value.float().flatten(1)
        scale = (rows.abs().amax(1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        packed[name] = (rows / scale).round().to(torch.int8).view(value.shape)
        packed[name + SCALE] = scale[:, 0].contiguous()
    return packed


def dequantize(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the float16 state behind what `quantize` made; tensors without scales are returned as they are."""
    found = {}
    for name, value in state.items():
        scale = state.get(name + SCALE)
        if value.dtype == torch.int8 and scale is not None:
            found[name] = value.flatten(1).float().mul_(scale[:, None]).view(value.shape).to(torch.float16)
        elif not is_scale(name, state):
            found[name] = value
    return found


def header_behind(header: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return {name: (dtype, shape)} of a stored file as `dequantize` will give it back: no scales, float16 instead of int8."""
    found = dict(header)
    for name, (kind, shape) in header.items():
        if kind == "I8" and header.get(name + SCALE) == ("F32", shape[:1]):
            found[name] = ("F16", shape)
            del found[name + SCALE]
    return found


def is_scale(name: str, state: dict[str, torch.Tensor]) -> bool:
    """Say whether `name` holds the scales of an int8 tensor of `state`."""
    owner = state.get(name.removesuffix(SCALE)) if name.endswith(SCALE) else None
    return owner is not None and owner.dtype == torch.int8
