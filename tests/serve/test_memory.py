"""Memory that lies free in the heap is given back, where there is much of it, and once."""

import numpy as np
import pytest

from echox.serve import worker
from echox.serve.worker import give_back, resident

MEBIBYTE = 1 << 20


@pytest.mark.skipif(worker.heap_trim() is None, reason="only glibc gives pages of its heap back when asked")
def test_pages_that_lie_free_are_given_back_once_where_they_are_many(monkeypatch):
    held = [np.ones(50_000, np.uint8) for _ in range(4_000)]  # below what malloc asks the system for one by one
    del held[:-1]
    grown = resident()
    assert give_back(grown, 50 * MEBIBYTE) == grown and resident() > grown - 50 * MEBIBYTE  # not enough to be worth it
    left = give_back(grown - 60 * MEBIBYTE, 50 * MEBIBYTE)
    assert left < grown - 100 * MEBIBYTE and held[0].all()
    monkeypatch.setattr(worker, "heap_trim", lambda: pytest.fail)
    assert give_back(left, 50 * MEBIBYTE) == left


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(worker, "heap_trim", lambda: None)
    assert give_back(0) == 0
