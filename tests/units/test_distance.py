"""Edit distance by hand."""

import pytest

from echox.units.distance import edit_distance


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [([], [], 0), ([], [1, 2], 2), ([1, 2, 3], [1, 3], 1), ([1, 2, 3], [2, 3, 4], 2), ([1], [2], 1)],
)
def test_edits_are_counted_both_ways(a, b, edits):
    assert edit_distance(a, b) == edit_distance(b, a) == edits
