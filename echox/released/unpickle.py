"""Other people's pickles read without running them: fairseq `.pt`, vocoder `g_*` and joblib `.bin` files.

A pickle is a program. Both readers here admit only the names that tensors, arrays and the settings around them need;
any other name is refused, with the name in the sentence, before it is looked up. Classes of fairseq, omegaconf,
argparse and scikit-learn are never imported: their state lands in an inert record. Sizes are checked against the file,
so that a small file cannot ask for much memory.

    .pt, g_*   torch.load(weights_only=True), zip and legacy formats, with inert records for the names below
    .bin       joblib's uncompressed format, with arrays of numbers only
"""

import pickle
import re
import zipfile
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from echox.errors import InputError

_TORCH_RECORDS = (
    "argparse.Namespace fairseq.data.dictionary.Dictionary omegaconf.base.ContainerMetadata omegaconf.base.Metadata "
    "omegaconf.dictconfig.DictConfig omegaconf.listconfig.ListConfig omegaconf.nodes.AnyNode "
    "omegaconf.nodes.BooleanNode omegaconf.nodes.FloatNode omegaconf.nodes.IntegerNode omegaconf.nodes.StringNode typing.Any"
).split()
_JOBLIB_RECORDS = (
    "sklearn.cluster._kmeans.KMeans sklearn.cluster._kmeans.MiniBatchKMeans sklearn.cluster.k_means_.KMeans "
    "sklearn.cluster.k_means_.MiniBatchKMeans numpy.random._pickle.__randomstate_ctor "
    "numpy.random._pickle.__bit_generator_ctor numpy.random._mt19937.MT19937 numpy.random.__RandomState_ctor "
    "numpy.random.mtrand.RandomState _codecs.encode"
).split()
_ARRAYS = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_NUMBERS = re.compile(r"^[<>|=]?[fiub](1|2|4|8)$")
_FILE_LIMIT = 16 * 2**30  # bytes
_POINTER = b"version https://git-lfs"


def load_torch(path: str | Path) -> Any:
    """Return the contents of a torch file, tensors on the CPU; InputError when it is broken or asks for other code."""
    import torch

    path = Path(path)
    check_size(path)
    _check_zip(path)
    records: list[Any] = [(stand_in, name) for name, stand_in in _inert(_TORCH_RECORDS).items()]
    try:
        with torch.serialization.safe_globals(records):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_refusal(path, str(error))) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = str(error).strip().partition(".")[0].partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} is not a torch checkpoint that can be read ({reason}): download it again.") from error


def _refusal(path: Path, message: str) -> str:
    name = re.search(r"GLOBAL ([\w.]+)", message)
    what = f"asks for {name.group(1)}, which a checkpoint does not need" if name else "is not a torch checkpoint"
    return f"{path} {what}: it was refused and nothing in it was run."


def check_size(path: Path) -> None:
    """Raise InputError when `path` is not a file, is empty, larger than any checkpoint of these kinds, or a Git LFS pointer."""
    if not path.is_file():
        raise InputError(f"{path} is not a file: check the path.")
    size = path.stat().st_size
    if not 0 < size <= _FILE_LIMIT:
        raise InputError(f"{path} has {size} bytes; expected 1 to {_FILE_LIMIT}.")
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise InputError(f"{path} is a Git LFS pointer, not the weights: run git lfs pull.")


def _check_zip(path: Path) -> None:
    """Refuse zip files that unpack to more than they are: torch stores its tensors uncompressed."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(f"{path} is a broken zip archive ({error}): download it again.") from error
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    total, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if packed or total > size:
        what = f"{packed[0]} is compressed" if packed else f"its entries claim {total} bytes"
        raise InputError(f"{path} has {size} bytes but {what}: torch checkpoints are stored plain; it was refused.")


class Record:
    """An inert stand-in for a class of another library: keeps what the file says about it and does nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def values(self) -> dict[str, Any]:
        """Return the attributes the file gave, or an empty mapping."""
        state = self.__dict__.get("state")
        return state if isinstance(state, dict) else {k: v for k, v in self.__dict__.items() if isinstance(k, str)}


def _inert(names: Iterable[str], kind: type[Record] = Record) -> dict[str, type]:
    """Return {name: a class of that name that does nothing} of classes by their full names."""
    return {name: type(name.rpartition(".")[2], (kind,), {}) for name in names}


class _Dtype(Record):
    """numpy's dtype as the file spells it; only plain numbers become a dtype."""

    def plain(self) -> np.dtype:
        """Return the dtype; InputError for objects, structures and anything else that is not a number."""
        name = self.args[0] if self.args else None
        state = self.__dict__.get("state")
        order = state[1] if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str) else ""
        spelled = f"{order}{str(name).lstrip('<>|=')}" if isinstance(name, str) else ""
        if not _NUMBERS.match(spelled):
            raise InputError(f"holds an array of type {name!r}; only plain numbers are read.")
        return np.dtype(spelled)


class _Array(Record):
    """joblib's note that raw array bytes follow, and numpy's own way of pickling one."""


class _Bounded:
    """A file that refuses to read past its end, whatever length a pickle names."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def read(self, count: int = -1) -> bytes:
        left = self.size - self.file.tell()
        if count < 0 or count > left:
            raise InputError(f"asks for {count} bytes where {left} are left.")
        return self.file.read(count)

    def readline(self) -> bytes:
        return self.file.readline()

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[:] = data
        return len(data)


class _JoblibUnpickler(pickle._Unpickler):
    """joblib's format: a pickle in which each array is a note followed by the array's bytes."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: _Bounded) -> None:
        super().__init__(file)
        self.raw = file
        self.known = _inert(_JOBLIB_RECORDS) | _inert(["joblib.numpy_pickle.NumpyArrayWrapper"], _Array)
        for module in _ARRAYS:
            self.known |= _inert([f"{module}.{name}" for name in ("ndarray", "scalar", "_reconstruct")])
            self.known |= _inert([f"{module}.dtype"], _Dtype)

    def find_class(self, module: str, name: str) -> type:
        """Return the inert class for an admitted name; anything else is refused by name and not looked up."""
        try:
            return self.known[f"{module}.{name}"]
        except KeyError as error:
            raise InputError(f"asks for {module}.{name}, which k-means centroids do not need.") from error

    def get_extension(self, code: int) -> None:
        """Refuse copyreg extensions, which name classes by number."""
        raise InputError(f"asks for the pickle extension {code}, which k-means centroids do not need.")

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to objects outside the file."""
        raise InputError("refers to an object outside itself.")

    def load_build(self) -> None:
        """Give an inert record its state; then, for a note, replace it by the array whose bytes follow."""
        state = self.stack.pop()
        record = self.stack[-1]
        if not isinstance(record, Record):
            raise InputError(f"sets the state of a {type(record).__name__}, which k-means centroids do not need.")
        record.__setstate__(state)
        if isinstance(record, _Array):
            self.stack[-1] = self._array(record.values())

    dispatch[pickle.BUILD[0]] = load_build

    def _array(self, note: dict[str, Any]) -> np.ndarray:
        shape, order, kind = note.get("shape"), note.get("order"), note.get("dtype")
        if (
            not isinstance(shape, tuple)
            or not all(isinstance(n, int) and n >= 0 for n in shape)
            or order not in ("C", "F")
        ):
            raise InputError(f"holds an array of shape {shape!r} and order {order!r}.")
        if not isinstance(kind, _Dtype):
            raise InputError("holds an array without a type.")
        dtype = kind.plain()
        if note.get("numpy_array_alignment_bytes") is not None:
            self.raw.read(self.raw.read(1)[0])
        data = np.frombuffer(self.raw.read(prod(shape) * dtype.itemsize), dtype=dtype)
        return data.reshape(shape, order=order)


def load_joblib(path: str | Path) -> Any:
    """Return the contents of an uncompressed joblib file: arrays, plain values and Records; InputError for anything
    else.
    """
    path = Path(path)
    check_size(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        if not file.read(2).startswith(b"\x80"):
            raise InputError(
                f"{path} is not an uncompressed joblib file: save it again with joblib.dump(..., compress=0)."
            )
        file.seek(0)
        try:
            return _JoblibUnpickler(_Bounded(file, size)).load()
        except InputError as error:
            raise InputError(f"{path} {str(error).rstrip('.')}: it was refused and nothing in it was run.") from error
        except (
            pickle.UnpicklingError,
            EOFError,
            LookupError,
            ValueError,
            TypeError,
            AttributeError,
            OverflowError,
        ) as error:
            raise InputError(f"{path} is not a joblib file that can be read ({error!r}): download it again.") from error
