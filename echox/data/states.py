"""Arrays of different lengths beside a manifest, one a record, matched by the record's id; it knows no encoder.

A shard `NAME.jsonl` has a `NAME.npz` with `frames`, `offsets`, `ids`, and `skipped`, the ids of records that could not be encoded:
the record with ids[i] owns rows offsets[i] to offsets[i + 1]. The order of the manifest is of no account.
"""

import errno
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipInfo

import numpy as np

from echox.config.record import read_run
from echox.data.manifest import read_manifest
from echox.errors import ConfigError, InputError
from echox.files import write_file

ZIP_HEADER = 30  # bytes before a member's name; the last four are the lengths of the name and of the extra field
MOST_FILES = 10_240  # open at once: what macOS allows, and of corpora in shards of 500 five million utterances


def manifests_of(source: Path) -> list[Path]:
    """Return the shard-*.jsonl of a corpus, in order; InputError when it holds none."""
    found = sorted(Path(source).glob("shard-*.jsonl"))
    if not found:
        raise InputError(f"{source} holds no shard-*.jsonl: make the corpus first.")
    return found


def records_of(source: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of all shards of a corpus, in order."""
    for manifest in manifests_of(source):
        yield from read_manifest(manifest)


def paired(corpora: Sequence[Path], folders: Sequence[Path], name: str) -> list[tuple[Path, Path]]:
    """Return every corpus with its folder; ConfigError unless the setting `name` gives one folder to each."""
    if len(corpora) != len(folders):
        raise ConfigError(f"{name} names {len(folders)} folders for {len(corpora)} corpora: give one to each.")
    return list(zip(corpora, folders, strict=True))


def layer_of(folders: Sequence[Path], layer: int | None = None, part: Path | None = None) -> int | None:
    """Return the encoder layer whose states lie in folders of stage encode, `layer` where no run tells it.

    ConfigError for two layers, and for another one than that from which `part` learnt.
    """
    other = part
    for folder in folders:
        run = read_run(Path(folder).parent)
        own = layer if run is None else run[1].settings.get("layer", layer)
        if layer is not None and own != layer:
            raise ConfigError(
                f"{folder} holds states of layer {own} of the encoder, {other} is of layer {layer}: take one."
            )
        layer, other = own, folder
    return layer


def write_ragged(path: Path, ids: Sequence[str], rows: Sequence[np.ndarray], skipped: Sequence[str] = ()) -> None:
    """Write arrays of one width as one array with its offsets and ids, atomically."""
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    frames = np.concatenate(rows) if len(rows) else np.zeros(0)
    ids_, skipped_ = (np.array(list(names), dtype=np.str_) for names in (ids, skipped))
    with write_file(path) as partial, partial.open("wb") as file:
        np.savez(file, frames=frames, offsets=offsets, ids=ids_, skipped=skipped_)


def read_ragged(folder: Path, source: Path) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yield (manifest record, its rows) of every encoded shard of `source`, in the manifests' order, skipped records left out.

    InputError when a shard is missing, broken, or of other records than the manifest's.
    """
    for manifest in manifests_of(source):
        shard = read_shard(folder, manifest)
        for record in shard.records:
            if (name := str(record["id"])) in shard.places:
                yield record, shard.rows_of(name)


def _mapped(path: Path, member: ZipInfo) -> np.ndarray:
    """Return an array of a .npz where it lies on disk, read-only, its checksum unread: every process shares what any has read.

    ValueError for one that cannot lie there: compressed, of objects, or a single number.
    """
    _allow_many_files()
    with path.open("rb") as file:
        file.seek(member.header_offset + ZIP_HEADER - 4)
        file.seek(sum(struct.unpack("<2H", file.read(4))), os.SEEK_CUR)  # the member's name and its extra field
        major, _ = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        if member.compress_type != ZIP_STORED or dtype.hasobject or not shape:
            raise ValueError(f"{member.filename} is no plain array")
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")


@cache
def _allow_many_files() -> None:
    """Let this process hold as many files open as it may: every array that is mapped holds one."""
    if find_spec("resource") is None:  # Windows
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@dataclass(frozen=True)
class EncodedShard:
    """A manifest's records, where the rows of each id are among `frames`, and the ids that were skipped."""

    records: list[dict[str, Any]]
    places: dict[str, tuple[int, int]]
    frames: np.ndarray
    skipped: set[str]

    def rows_of(self, name: str) -> np.ndarray:
        """Return the rows of an id, a view."""
        start, end = self.places[name]
        return self.frames[start:end]


def read_shard(folder: Path, manifest: Path) -> EncodedShard:
    """Return the encoded shard of a manifest; InputError when it is missing, broken, or of other records than the manifest's."""
    path, records = Path(folder) / f"{manifest.stem}.npz", read_manifest(manifest)
    if not path.exists():
        raise InputError(f"{path} is missing: encode {manifest} first.")
    try:
        with np.load(path) as data:
            if "ids" not in data:
                raise InputError(
                    f"{path} does not say whose frames it holds: encode {manifest} again, into another folder."
                )
            ids, offsets = data["ids"].tolist(), data["offsets"].tolist()
            skipped, frames = set(data["skipped"].tolist()), _mapped(path, data.zip.getinfo("frames.npy"))
    except (OSError, ValueError, EOFError, KeyError, BadZipFile, struct.error) as error:
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            raise InputError(f"{path} is one file too many to have open: raise the limit (ulimit -n).") from error
        raise InputError(
            f"{path} is not a whole file of frames ({type(error).__name__}): encode {manifest} again."
        ) from error
    if len(offsets) != len(ids) + 1 or offsets[-1] != len(frames):
        raise InputError(
            f"{path} holds {len(frames)} frames of {len(ids)} utterances, which do not fit: encode {manifest} again."
        )
    meant = [str(record["id"]) for record in records]
    if len(set(meant)) < len(meant):
        raise InputError(f"{manifest} holds an id twice: make the manifest again.")
    if differ := set(meant) ^ (set(ids) | skipped):
        raise InputError(f"{path} and {manifest} are of other utterances ({min(differ)} in one alone): encode again.")
    places = dict(zip(ids, zip(offsets[:-1], offsets[1:], strict=True), strict=True))
    return EncodedShard(records, places, frames, skipped)
