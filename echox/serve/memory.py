"""Free memory of the process, given back: inputs of many lengths leave holes in glibc's heap, which it keeps of its own accord."""

import ctypes
import sys
from typing import Any

MUCH = 256 << 20  # bytes that may lie free: what answers work with, so that a next one does not ask the system again


class _Heap(ctypes.Structure):
    """What glibc's `mallinfo2` counts, in its order."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    )


def free_in_heap() -> int:
    """Return how many bytes of the heap nobody uses; 0 where the C library does not say (glibc before 2.33, and others)."""
    library = _libc()
    if not hasattr(library, "mallinfo2"):
        return 0
    library.mallinfo2.restype = _Heap
    return int(library.mallinfo2().fordblks)


def give_back() -> None:
    """Give the free pages of the heap back to the system where there are many."""
    if free_in_heap() > MUCH:
        _libc().malloc_trim(0)


def _libc() -> Any:
    return ctypes.CDLL(None) if sys.platform == "linux" else None
