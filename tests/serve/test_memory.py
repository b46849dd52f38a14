"""Memory that lies free in the heap is given back, and only where there is much of it."""

import sys
from pathlib import Path

import numpy as np
import pytest

from echox.serve import memory

MEBIBYTE = 1 << 20


def resident() -> int:
    """Bytes of this process that lie in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(sys.platform != "linux" or not memory.free_in_heap(), reason="only glibc tells what lies free")
def test_pages_that_lie_free_are_given_back_where_they_are_many(monkeypatch):
    held = [np.ones(50_000, np.uint8) for _ in range(4_000)]  # below what malloc asks the system for one by one
    del held[:-1]
    before = resident()
    monkeypatch.setattr(memory, "MUCH", memory.free_in_heap() + MEBIBYTE)
    memory.give_back()
    assert resident() > before - 50 * MEBIBYTE  # not enough to be worth it
    monkeypatch.setattr(memory, "MUCH", 0)
    memory.give_back()
    assert resident() < before - 100 * MEBIBYTE and held[0].all()
