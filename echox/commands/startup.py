"""Environment variables of a command, set before torch is imported: threads, how they wait, cached kernels."""

import os
import sys

ANSWERS = ("ask", "say")  # verbs that are over in seconds: what is busy now will still be busy then
KERNELS = "32"  # that oneDNN keeps while training; its own 1,024 of as many shapes fill gigabytes (docs/training.md)
SPINS = "10000"  # turns in GNU's OpenMP: an answer takes half the time that it takes with none (docs/latency.md)


def choose_threads(verb: str) -> None:
    """Set how OpenMP waits, the threads of short verbs, cached kernels of training, no progress bars in logs; user settings stay.

    Threads that spin on a core that others want too turn 0.4 s into a minute, so they sleep. But waking one takes longer than a
    small matrix product, of which every token needs hundreds, so they spin for the time between two of them first.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    if verb in ANSWERS:
        os.environ.setdefault("OMP_NUM_THREADS", str(free_cores()))
    if sys.stderr is None or not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars of other libraries, which a log or a pipe would hold
    if verb == "train":
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)


def free_cores() -> int:
    """Return how many cores nobody else uses now, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, cores - round(busy))
