import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echox.errors import InputError
from echox.units.sequence import LARGEST, Units, deduplicate


@given(st.lists(st.integers(0, 3), max_size=40))
def test_deduplicate_and_expand_are_exact_inverses(frames: list[int]) -> None:
    units = deduplicate(frames)
    assert units.expand().tolist() == frames
    assert units.frames == len(frames)
    assert not np.any(units.ids[1:] == units.ids[:-1])
    assert deduplicate(units.expand()) == units


def test_units_are_equal_by_what_they_hold() -> None:
    units = deduplicate([7, 7, 2])
    assert units == Units(np.array([7, 2]), np.array([2, 1])) and len(units) == 2
    assert units not in (deduplicate([7, 2, 2]), deduplicate([7, 7, 3]), [7, 2])


def test_runs_are_written_once() -> None:
    units = deduplicate([7, 7, 7, 2, 2, 9, 7])
    assert units.ids.tolist() == [7, 2, 9, 7]
    assert units.durations.tolist() == [3, 2, 1, 1]
    with pytest.raises(InputError, match="flat list of integers"):
        deduplicate([1, [2]])  # type: ignore[list-item]
    assert units.ids.dtype == units.durations.dtype == np.int64


@pytest.mark.parametrize(
    ("ids", "durations", "says"),
    [
        ([1, 2], [1], "2 units came with 1 durations"),
        ([1, 2], [3, 0], "below one frame"),
        ([2, -1], [1, 1], "hold -1: ids and durations are never negative"),
        ([[1]], [1], "flat list of integers"),
        ([1.5], [1], "flat list of integers"),
        ([0, 2**31], [1, 1], "hold 2147483648: .* nor above 2147483647"),
        ([2**63], [1], "nor above"),
        (np.zeros((0, 2)), [], "flat list of integers"),
    ],
)
def test_impossible_units_are_refused(ids: list, durations: list, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Units(np.array(ids), np.array(durations))
    assert Units([LARGEST], [1]).ids.dtype == np.int64  # type: ignore[arg-type]
