"""What was packed of the text model (models/packed.py), kept in echox's cache, so that the next process need not look for it again.

Finding the grid on which 135 million weights lie takes a sixth of what asking one question costs. A file is written only for
weights that echox keeps itself, beside their folder. It is good for these very weights, this torch and kind of processor (their
layouts differ) and this code; where any of them is another, or the weights were changed, `pack`, its twin, looks again.
"""

from contextlib import suppress
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from echox.errors import OutputError
from echox.files import write_file
from echox.hub import cache_folder
from echox.models import llama, packed
from echox.models.packed import Bytes, Multiply, Nibbles, Rows, TwoNibbles, hand_out, matrices, pack
from echox.models.weights import SINGLE

KEY = "made_of"  # in the file's own notes


def pack_kept(module: nn.Module, folder: Path | None) -> float:
    """Do what `pack` does to the weights of `folder`, by what was kept of it; None: nothing is kept of these weights."""
    path = None if folder is None else place_of(folder)
    if folder is None or path is None:
        return pack(module)
    key = key_of(folder / SINGLE)
    kept, groups = read(path, key), list(matrices(module))
    if len(kept) == len(groups):
        for layers, ways in zip(groups, kept, strict=True):
            hand_out(layers, *ways)
        return 1.0
    share = pack(module)
    if share == 1.0:
        with suppress(OutputError):  # it can be found again
            write(path, key, groups)
    return share


def place_of(folder: Path) -> Path | None:
    """Return where what is packed of a folder's weights is kept; None where the folder is not echox's own."""
    with suppress(OutputError):
        if folder.parent == cache_folder() / "llm" and (folder / SINGLE).is_file():
            return folder.with_name(f"{folder.name}.packed.safetensors")
    return None


def key_of(weights: Path) -> str:
    """Return a text that is another where what would be packed may be."""
    made = weights.stat()
    code = sha256(b"".join(Path(file).read_bytes() for file in (packed.__file__, llama.__file__, __file__))).hexdigest()
    return f"{made.st_size} {made.st_mtime_ns} {torch.__version__} {torch.backends.cpu.get_cpu_capability()} {code}"


def read(path: Path, key: str) -> list[list[Multiply]]:
    """Return the ways of each group of layers that `write` kept under this key, none where it kept none."""
    found: dict[tuple[int, int], dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys() if (file.metadata() or {}).get(KEY) == key else ():
                group, place, rest = name.split(".", 2)
                found.setdefault((int(group), int(place)), {})[rest] = file.get_tensor(name).clone()
        ways: dict[int, list[Multiply]] = {}
        for group, place in sorted(found):
            ways.setdefault(group, []).append(way_of(found[group, place]))
    except (OSError, SafetensorError, ValueError, TypeError, KeyError):
        return []
    return list(ways.values())


def write(path: Path, key: str, groups: list[list[Any]]) -> None:
    """Keep what groups of layers, all of them packed, multiply by; OutputError."""
    tensors: dict[str, torch.Tensor] = {}
    for group, layers in enumerate(groups):
        ways = [layer.multiply for layer in layers]
        for place, way in enumerate([ways[0].whole] if isinstance(ways[0], Rows) else ways):
            tensors |= {f"{group}.{place}.{name}": tensor for name, tensor in tensors_of(way).items()}
    with write_file(path) as partial:
        save_file(tensors, partial, metadata={KEY: key})


def tensors_of(way: Any) -> dict[str, torch.Tensor]:
    """Return the numbers of a way by name; those of a half begin with the half's."""
    found = {}
    for field in fields(way):
        value = getattr(way, field.name)
        inner = {"": value} if isinstance(value, torch.Tensor) else tensors_of(value)
        found |= {f"{field.name}.{name}".rstrip("."): tensor for name, tensor in inner.items()}
    return found


def way_of(tensors: dict[str, torch.Tensor]) -> Multiply:
    """Return the way whose numbers these are."""
    halves = [{n.partition(".")[2]: t for n, t in tensors.items() if n.startswith(half)} for half in ("high.", "low.")]
    if all(halves):
        return TwoNibbles(Nibbles(**halves[0]), Nibbles(**halves[1]))
    return Nibbles(**tensors) if "packed" in tensors else Bytes(**tensors)
