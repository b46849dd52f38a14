"""Waves to units: an encoder's frames, nearest centroids, runs written once.

    waves ──encode──► frames [T, D] ──assign──► ids [T] ──deduplicate──► Units

The encoder is any callable, so this file knows no model class; which one the centroids were fitted on is recorded
in `UnitsMeta` (spec A2.1), because centroids mean nothing for another layer, revision or window.

On disk: `config.json` (the meta) and `centroids.safetensors` (float32 [K, D], the meta repeated in its header).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from echox.errors import ConfigError, ModelError
from echox.files import refuse_others, sha256_of, write_json
from echox.units.files import read_arrays, read_json, write_arrays
from echox.units.kmeans import assign
from echox.units.sequence import Units, deduplicate

CONFIG_FILE = "config.json"
CENTROIDS_FILE = "centroids.safetensors"

Encode = Callable[[list[np.ndarray]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class UnitsMeta:
    """What the centroids were fitted on.

    encoder: hub name or folder name; revision: commit, release or sha256 of the weights; layer: 1 is the output of the
    first block; window: "short" (Whisper without padding to 30 s) or "own" (the encoder's own rule); sample_rate: Hz;
    frame_samples: samples per frame; k: number of units.
    """

    encoder: str
    revision: str
    layer: int
    window: str
    sample_rate: int
    frame_samples: int
    k: int

    @classmethod
    def from_record(cls, record: dict[str, Any], path: Path) -> "UnitsMeta":
        """Check a JSON record; raises ModelError that names `path` for a missing, unknown or wrongly typed key."""
        expected = cls.__annotations__
        if set(record) != set(expected):
            raise ModelError(f"{path} holds the keys {sorted(record)} where {sorted(expected)} belong.")
        for name, kind in expected.items():
            if type(record[name]) is not kind:
                raise ModelError(f"{path}: {name} is {record[name]!r}, which should be of type {kind.__name__}.")
        return cls(**record)


def revision_of(encoder: str | Path, commit: str | None = None) -> str:
    """Return the sha256 of the weights in an encoder's folder, or the commit of a name on the hub, as far as it is known."""
    weights = Path(encoder) / "model.safetensors"
    return f"sha256:{sha256_of(weights)}" if weights.is_file() else commit or "unknown"


def extract(encode: Encode, centroids_KD: np.ndarray, waves: list[np.ndarray]) -> list[Units]:
    """Return the de-duplicated units of mono float32 waves [samples], which all go to the encoder at once; InputError for NaN."""
    return [deduplicate(assign(frames_TD, centroids_KD)) for frames_TD in encode(waves)]


def save_centroids(folder: str | Path, centroids_KD: np.ndarray, meta: UnitsMeta) -> None:
    """Write `centroids_KD` with their meta into `folder`; raises OutputError, also for a folder of something else."""
    check_place(folder)
    header = {name: str(value) for name, value in asdict(meta).items()}
    write_arrays(Path(folder) / CENTROIDS_FILE, {"centroids": centroids_KD.astype(np.float32)}, header)
    write_json(Path(folder) / CONFIG_FILE, asdict(meta))


def check_place(folder: str | Path) -> None:
    """Raise OutputError, before any work is done, when centroids could not be written into `folder`."""
    refuse_others(folder, [CONFIG_FILE], CENTROIDS_FILE)


def load_centroids(folder: str | Path) -> tuple[np.ndarray, UnitsMeta]:
    """Return (centroids [K, D], meta) of a units folder; raises ModelError naming the broken file."""
    meta = UnitsMeta.from_record(read_json(Path(folder) / CONFIG_FILE), Path(folder) / CONFIG_FILE)
    path = Path(folder) / CENTROIDS_FILE
    centroids_KD = read_arrays(path, {"centroids"})["centroids"]
    if centroids_KD.ndim != 2 or centroids_KD.dtype != np.float32 or len(centroids_KD) != meta.k:
        raise ModelError(f"{path} holds {centroids_KD.dtype} {centroids_KD.shape}; config.json says k = {meta.k}.")
    if not np.isfinite(centroids_KD).all():
        raise ModelError(f"{path} holds NaN or infinite values: fit the centroids again.")
    return centroids_KD, meta


def check_belong(language: str | Path, units: int, frames: Sequence[Path]) -> None:
    """Raise ConfigError for `frames` that other centroids gave than those of a unit language's folder, as far as both are there.

    Stage `units` leaves frames in OUT/frames/CORPUS. Without centroids beside it, a language has at most as many units as theirs.
    """
    for folder in frames:
        made = Path(folder).parent.parent
        if not (made / CENTROIDS_FILE).is_file():
            continue
        theirs, _ = load_centroids(made)
        own = load_centroids(language)[0] if (Path(language) / CENTROIDS_FILE).is_file() else None
        if len(theirs) < units if own is None else not np.array_equal(theirs, own):
            has = f"{folder} holds {len(theirs)} units of {made}"
            raise ConfigError(f"{has}, {language} is a language of {units} others: give those that belong together.")
