"""Small files of the units folder: written whole or not at all, read with one sentence when they are broken.

It knows JSON objects and named arrays (safetensors) only, not what they mean.
"""

from pathlib import Path
from typing import Any

import numpy as np

from echox import files
from echox.errors import ModelError, reason_of
from echox.files import read_header, write_bytes

ARRAYS_BYTES = 1 << 30


def write_arrays(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write named arrays as safetensors to `path`, whole or not at all; raises OutputError."""
    from safetensors.numpy import save

    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_bytes(path, save(whole, metadata=metadata))


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object; raises ModelError that names the file when it is absent or broken."""
    record = files.read_json(path, error=ModelError)
    if not isinstance(record, dict):
        raise ModelError(f"{path} should hold a JSON object: make the units folder again.")
    return record


def read_arrays(path: Path, names: set[str]) -> dict[str, np.ndarray]:
    """Read exactly the arrays `names` from a safetensors file; raises ModelError for absent, broken, other content."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.exists():
        raise ModelError(f"{path} is missing: give a complete units folder.")
    read_header(path, ARRAYS_BYTES)
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a readable safetensors file ({reason_of(error)}): make it again.") from error
    if set(arrays) != names:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise ModelError(f"{path} holds {found} where {', '.join(sorted(names))} belong: make it again.")
    return arrays
