"""Free memory of the process, given back: inputs of many lengths leave holes in glibc's heap, which it keeps of its own accord.

How much lies free is not asked of glibc: pages that were given back stay in its count (`mallinfo2`), which hardly ever falls.
"""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

MUCH = 128 << 20  # bytes by which memory may grow: what answers work with, which a next one need not ask for again
MOST = 2 * MUCH  # while answers follow each other


def resident() -> int:
    """Return how many bytes of its own this process has in memory; 0 where the system does not say."""
    try:
        _, pages, of_files, *_ = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return (int(pages) - int(of_files)) * os.sysconf("SC_PAGE_SIZE")


def give_back(before: int, growth: int = MUCH) -> int:
    """Give free pages of the heap to the system where memory grew by more than `growth` bytes; return what to compare with next."""
    trim = heap_trim()
    if trim is None or resident() <= before + growth:
        return before
    trim(0)
    return resident()


def heap_trim() -> Any:
    """Return glibc's `malloc_trim`, or None where the C library is another."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
