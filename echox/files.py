"""The one door to the disk: what is written appears whole, what is removed was ours, what is read of others is bounded.

    write_file     temporary name beside the place ─► flushed to the disk ─► renamed over it
    resumable      the same for a download: what broke off stays, and goes on later
    write_folder   the same for a folder, with a list of its files in it (.echox)
    remove         a folder that holds such a list, and nothing that is not on it
    open_regular   regular files up to a stated size; no pipe, device, socket or folder

Nothing else in the package removes or renames files (tests/contract/test_files.py).
"""

import hashlib
import itertools
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, cast

from safetensors import SafetensorError

from echox.errors import EchoxError, InputError, ModelError, OutputError

MARKER = ".echox"  # in every folder that `write_folder` made: the files that it put there
MARKER_BYTES = 16 << 20
STALE_SECONDS = 24 * 3600.0  # a temporary folder of that age belongs to a process that was killed
CONFIG_BYTES = 1 << 20  # the config.json of a model or a part
JSON_BYTES = 64 << 20  # tokenizers, question tables
LINES_BYTES = 1 << 30  # manifests and results
HEADER_BYTES = 100_000_000  # of a safetensors file, by its own rule
LLM_BYTES = 16 << 30  # a packed LLM that a model names, and may make us fetch
WEIGHTS_BYTES = 1 << 37  # one file of a large model

_number = itertools.count()


@contextmanager
def _told(path: str | Path, verb: str, advice: str) -> Iterator[None]:
    """Raise what the system refuses as an OutputError that names the place and says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors' own for a full disk
        raise OutputError(f"{path} cannot be {verb} ({_reason(error)}): {advice}.") from error


@contextmanager
def write_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; on success it replaces `path`, otherwise it vanishes. Raises OutputError.

    The folder is made. A file or a link of that name is replaced, which is what naming an output means; what a link
    points to is not touched; a folder, pipe or device is refused.
    """
    path = Path(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise OutputError(f"{path} is a folder, pipe or device: give the name of a file.")
    partial = path.with_name(_temporary(path.name, "part"))
    try:
        with _told(path, "written", "free some space or choose another"):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            _flush(partial)
            os.replace(partial, path)
            _flush(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def resumable(path: str | Path, partial: Path) -> Iterator[Path]:
    """Yield `partial`, which stays for a later try where this one fails, and replaces `path` on success. OutputError."""
    with _told(path, "written", "free some space or choose another"):
        partial.parent.mkdir(parents=True, exist_ok=True)
        if partial.is_symlink() or (partial.exists() and not partial.is_file()):
            raise OutputError(f"{partial} is not a file of ours: move it away.")
        yield partial
        _flush(partial)
        os.replace(partial, path)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all; OutputError."""
    with write_file(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all; OutputError. What is not Unicode is written escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, values: Any) -> None:
    """Write `values` as indented JSON to `path`, whole or not at all; OutputError."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def copy_file(source: str | Path, path: str | Path) -> None:
    """Copy a regular file, whole or not at all; InputError for the source, OutputError for the place."""
    with open_regular(source) as file, write_file(path) as partial, partial.open("wb") as target:
        shutil.copyfileobj(file, target, 1 << 20)


def write_folder(folder: str | Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary sibling, then move it to `folder`, so that no half-written folder is ever seen.

    What stands at `folder` is replaced only when it is empty or ours, see `check_ours`. Raises OutputError.
    """
    folder = Path(folder)
    check_ours(folder)
    partial, old = (folder.with_name(_temporary(folder.name, kind)) for kind in ("part", "old"))
    with _told(folder, "written", "choose another folder"):
        _sweep(folder)
        partial.mkdir(parents=True)
        try:
            _mark(partial, None)
            write(partial)
            _mark(partial, _files_in(partial))
            for path in (*partial.rglob("*"), partial):
                _flush(path)
            _exchange(partial, folder, old)
        finally:
            if partial.is_dir():
                shutil.rmtree(partial)


def _exchange(partial: Path, folder: Path, old: Path) -> None:
    """Move `partial` to `folder`; what stood there and is ours goes when the new one is in its place."""
    check_ours(folder)  # nobody put a file there meanwhile
    if not folder.exists():
        os.replace(partial, folder)
    else:
        os.replace(folder, old)
        try:
            os.replace(partial, folder)
        except OSError:
            os.replace(old, folder)
            raise
        shutil.rmtree(old)
    _flush(folder.parent)


@contextmanager
def write_files(folder: str | Path, names: Mapping[str, str]) -> Iterator[Path]:
    """Yield a temporary folder; on success its files move into `folder` under `names`, otherwise they vanish. OutputError."""
    folder = Path(folder)
    with _told(folder, "written", "free some space there"):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".echox-", dir=folder) as place:
            yield Path(place)
            for path in sorted(Path(place).iterdir()):
                _flush(path)
                os.replace(path, folder / names[path.name])
            _flush(folder)


def drop_partial_line(path: str | Path, start: bytes) -> None:
    """Cut a last line without its line break, which a killed run leaves, off a file that begins with `start`; OutputError."""
    with _told(path, "written", "choose another file"), open(path, "r+b") as file:
        content = file.read()
        if content.startswith(start) and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def remove(folder: str | Path) -> None:
    """Remove a folder that `write_folder` made; OutputError, and nothing is touched, when anything in it is not ours."""
    folder = Path(folder)
    check_ours(folder)
    with _told(folder, "removed", "remove it yourself"):
        if folder.is_dir():
            shutil.rmtree(folder)


def check_ours(folder: str | Path) -> None:
    """Raise OutputError unless `folder` is absent, an empty folder, or one that `write_folder` made and nobody added to."""
    folder = Path(folder)
    with _told(folder, "read", "choose another folder"):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise OutputError(f"{folder} is a file or a link and will not be replaced: choose another folder.")
        if not folder.exists() or not any(folder.iterdir()):
            return
        listed = (_record(folder) or {}).get("files")
        if not isinstance(listed, list):
            raise OutputError(
                f"{folder} was not written by echox (it holds no {MARKER}) and will not be replaced: choose another "
                "folder, or remove it yourself."
            )
        others = sorted(set(_files_in(folder)) - set(map(str, listed)))
    if others:
        what = f"{others[0]}, which echox did not write, and will not be replaced: move it away first"
        raise OutputError(f"{folder} holds {what}.")


def refuse_others(folder: str | Path, names: Iterable[str], companion: str, start: bytes = b"") -> None:
    """Raise OutputError when `folder` is a file, or holds one of `names` but no `companion` (a pattern) beginning with `start`."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise OutputError(f"{folder} cannot be written, it is a file: give the name of a folder.")
    found = next((name for name in names if os.path.lexists(Path(folder) / name)), None)
    for path in Path(folder).glob(companion) if found else ():
        with open_regular(path) as file:
            if file.read(len(start)) == start:
                return
    if found:
        raise OutputError(f"{folder} holds a {found} of something else, which is not replaced: choose another folder.")


def is_ours(folder: str | Path) -> bool:
    """Say whether `remove` would remove `folder`."""
    try:
        check_ours(folder)
    except OutputError:
        return False
    return Path(folder).is_dir()


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Hold the lock of `path` (a file `path`.lock that stays) against other processes; it dies with this one."""
    from filelock import FileLock

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        yield


@contextmanager
def only_one(folder: str | Path, name: str = ".lock") -> Iterator[None]:
    """Make `folder` and hold it, or what `name` stands for in it (a file that stays); OutputError when another process does."""
    from filelock import FileLock, Timeout

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / name, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise OutputError(f"another process writes in {folder}: wait for it, or choose another folder.") from error
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({_reason(error)}): choose another folder.") from error
    try:
        yield
    finally:
        lock.release()


def inside(root: str | Path, name: str) -> Path:
    """Return `root`/`name`, a path that a file of somebody else names; ModelError unless it lies under `root`, links followed."""
    place = os.path.realpath(Path(root) / name) if plain_path(name) else os.path.realpath(root)
    if os.path.realpath(root) not in map(str, Path(place).parents):
        raise ModelError(f"{root} names {name!r}, which does not lie in it: do not use this model.")
    return Path(root) / name


def plain_path(name: str) -> bool:
    """Say whether `name` is a relative path of plain names: no `..`, no drive, no backslash, no hidden file."""
    return len(name) <= 200 and all(re.fullmatch(r"\w[\w.+-]*", part, re.ASCII) for part in name.split("/"))


def open_regular(path: str | Path, limit: int | None = None, error: type[EchoxError] = InputError) -> BinaryIO:
    """Open a regular file of at most `limit` bytes for reading, never waiting; raises `error` in one sentence."""
    kinds = (os.O_RDONLY, getattr(os, "O_NONBLOCK", 0), getattr(os, "O_BINARY", 0), getattr(os, "O_CLOEXEC", 0))
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise error(f"{path} is a folder: give a file.")
        if not stat.S_ISREG(mode):
            raise error(f"{path} is a pipe or a device: save its content in a file first.")
        file = os.fdopen(os.open(path, sum(kinds)), "rb")
    except FileNotFoundError as problem:
        raise error(f"{path} does not exist: check the path.") from problem
    except PermissionError as problem:
        raise error(f"{path} may not be read: change its permissions.") from problem
    except (OSError, ValueError) as problem:
        raise error(f"{path} cannot be opened ({_reason(problem)}): check the path.") from problem
    size = os.fstat(file.fileno()).st_size
    if limit is not None and size > limit:
        file.close()
        raise error(f"{path} has {size} bytes, more than the {limit} such a file may have: is it the right file?")
    return file


def read_bytes(path: str | Path, limit: int, error: type[EchoxError] = InputError) -> bytes:
    """Return the content of a regular file of at most `limit` bytes; raises `error` in one sentence."""
    with open_regular(path, limit, error) as file:
        try:
            return file.read(limit)
        except OSError as problem:
            raise error(f"{path} cannot be read ({_reason(problem)}): copy it again.") from problem


def read_text(path: str | Path, limit: int, error: type[EchoxError] = InputError) -> str:
    """Return a UTF-8 file of at most `limit` bytes, a byte order mark left out; raises `error` in one sentence."""
    try:
        return read_bytes(path, limit, error).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not UTF-8 text: save it as UTF-8.") from problem


def read_json(path: str | Path, limit: int = JSON_BYTES, error: type[EchoxError] = InputError) -> Any:
    """Return what a JSON file of at most `limit` bytes holds; raises `error` in one sentence."""
    try:
        return json.loads(read_text(path, limit, error))
    except (ValueError, RecursionError) as problem:
        raise error(f"{path} cannot be read as JSON ({_reason(problem)}): correct it, or fetch it again.") from problem


def sha256_of(path: str | Path) -> str:
    """Return a regular file's sha256 in hexadecimal, read in pieces; InputError."""
    with open_regular(path) as file:
        return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


def read_header(path: Path, limit: int = WEIGHTS_BYTES) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return {tensor name: (dtype as in F16, shape)} of a safetensors file of at most `limit` bytes, nothing loaded.

    ModelError when it is cut short, a pointer, or its header does not account for every byte of it.
    """
    with open_regular(path, limit, ModelError) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        if start.startswith(b"version "):
            raise ModelError(f"{path} is a Git LFS pointer, not the weights: run git lfs pull.")
        length = int.from_bytes(start, "little")
        if length > HEADER_BYTES:
            raise ModelError(f"{path} is not a safetensors file: download it again.")
        text = file.read(length)
    if len(start) < 8 or len(text) < length:
        raise ModelError(f"{path} has {size} bytes; expected at least {8 + length}: the download stopped half-way.")
    try:
        header: dict[str, Any] = json.loads(text)
        header.pop("__metadata__", None)
        found = {name: (str(entry["dtype"]), tuple(map(int, entry["shape"]))) for name, entry in header.items()}
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise ModelError(f"{path} is not a safetensors file ({error!r}): download it again.") from error
    if size != end:
        raise ModelError(f"{path} has {size} bytes; expected {end}: the download stopped half-way.")
    return found


def _temporary(name: str, kind: str) -> str:
    """Return a hidden name beside `name` that no other writer has, short enough for any file system."""
    return f".{name[:40]}.{os.getpid()}-{next(_number)}.{kind}"


def _sweep(folder: Path) -> None:
    """Remove what killed writers of `folder` left beside it: old enough, of our naming, and with our list in it."""
    pattern = re.compile(rf"{re.escape(f'.{folder.name[:40]}.')}\d+-\d+\.(part|old)")
    if not folder.parent.is_dir():
        return
    for path in folder.parent.iterdir():
        if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            old = time.time() - path.stat().st_mtime > STALE_SECONDS
            if old and (is_ours(path) or (path.suffix == ".part" and _record(path) is not None)):
                shutil.rmtree(path)


def _mark(folder: Path, files: list[str] | None) -> None:
    note = "echox made this folder and may replace it as long as it holds no other file than these"
    record = {"made_by": "echox", "note": note, "files": files}
    (folder / MARKER).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _record(folder: Path) -> dict[str, Any] | None:
    """Return what the marker of `folder` says, None where there is no marker of ours."""
    try:
        record = json.loads(read_bytes(folder / MARKER, MARKER_BYTES))
    except (InputError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and record.get("made_by") == "echox" else None


def _files_in(folder: Path) -> list[str]:
    """Return every file and link under `folder` but its marker, as relative paths."""
    found = []
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(name for name in found if name != MARKER)


def _flush(path: Path) -> None:
    """Make sure that a file or a folder's names are on the disk, where the system can."""
    with suppress(OSError):  # folders on Windows, file systems without it
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
