"""De-duplicated unit sequences and their exact inverse.

    frames     7 7 7 2 2 9 7      one k-means id per encoder frame
    ids        7     2   9 7      runs written once
    durations  3     2   1 1      frames in each run

It knows nothing about encoders, seconds or words.  Reduced units: Lee et al., arXiv 2112.08352; spec A2.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from echox.errors import InputError

LARGEST = 2**31 - 1  # id or duration: sums of them stay far from the end of int64


@dataclass(frozen=True, eq=False)
class Units:
    """Unit `ids` [U] with their `durations` [U] in frames, both int64; raises InputError when they do not fit."""

    ids: np.ndarray
    durations: np.ndarray

    def __post_init__(self) -> None:
        ids, durations = as_ids(self.ids, "units"), as_ids(self.durations, "durations")
        if len(ids) != len(durations):
            raise InputError(f"{len(ids)} units came with {len(durations)} durations: give one duration to each unit.")
        if len(durations) and durations.min() < 1:
            raise InputError("a unit has a duration below one frame: durations count frames from 1.")
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "durations", durations)

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Units):
            return NotImplemented
        return np.array_equal(self.ids, other.ids) and np.array_equal(self.durations, other.durations)

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    @property
    def frames(self) -> int:
        """Number of encoder frames, the sum of the durations."""
        return int(self.durations.sum())

    def expand(self) -> np.ndarray:
        """Return the frame-level ids, int64 [frames]; the inverse of `deduplicate`."""
        return np.repeat(self.ids, self.durations)


def deduplicate(frames: Sequence[int] | np.ndarray) -> Units:
    """Write every run of equal frame ids [frames] once, with its length; `deduplicate(f).expand()` equals f."""
    ids = as_ids(frames, "frames")
    starts = run_starts(ids)
    return Units(ids[starts], np.diff(np.r_[starts, len(ids)]))


def run_starts(ids: np.ndarray) -> np.ndarray:
    """Return where every run of equal ids begins, int64 [runs]."""
    return np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]]) if len(ids) else np.empty(0, np.int64)


def as_ids(values: Sequence[int] | np.ndarray, name: str) -> np.ndarray:
    """Return `values` as an int64 vector of numbers >= 0; raises InputError for any other shape, type or sign."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of several lengths
        array = np.array(None)
    if array.size == 0 and array.ndim <= 1:
        return np.empty(0, np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name} should be a flat list of integers, not {array.dtype} of shape {array.shape}.")
    if array.min() < 0 or array.max() > LARGEST:
        at = array.min() if array.min() < 0 else array.max()
        raise InputError(f"{name} hold {at}: ids and durations are never negative, nor above {LARGEST}.")
    return array.astype(np.int64, copy=False)
