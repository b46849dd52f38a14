"""The server's Prometheus metrics; one registry per application, so that two in one process do not mix."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from echox.generate.types import Piece

SECONDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"  # the library's own variable: several processes count in files there


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        here: dict[str, Any] = {"registry": self.registry}
        live: dict[str, Any] = here | {"multiprocess_mode": "livesum"}
        first = "From the question to the first sound."
        self.answers = Counter("echox_answers", "Answers by how they ended.", ["finish"], **here)
        self.first_audio = Histogram("echox_first_audio_seconds", first, buckets=SECONDS, **here)
        self.audio = Counter("echox_audio_seconds", "Speech sent.", **here)
        self.refused = Counter("echox_refused", "Requests refused, by code.", ["code"], **here)
        self.sessions = Gauge("echox_realtime_sessions", "Open connections.", **live)
        self.under_way = Gauge("echox_answers_under_way", "Being made or waiting.", **live)

    @contextmanager
    def answer(self, sample_rate: int) -> Iterator[Callable[[Piece], None]]:
        """Count one answer; yield a function to call with each of its pieces."""
        began, heard, finish = time.perf_counter(), False, "given_up"

        def measured(piece: Piece) -> None:
            nonlocal heard, finish
            finish = piece.finish or finish
            if piece.audio is not None and len(piece.audio):
                if not heard:
                    heard = True
                    self.first_audio.observe(time.perf_counter() - began)
                self.audio.inc(len(piece.audio) / sample_rate)

        self.under_way.inc()
        try:
            yield measured
        except Exception:
            finish = "failed"
            raise
        finally:
            self.under_way.dec()
            self.answers.labels(finish).inc()

    def page(self) -> bytes:
        """Return all metrics in Prometheus' text format, summed over worker processes where there are several."""
        registry = self.registry
        if folder := os.environ.get(MULTIPROCESS):
            _forget_the_dead(Path(folder))
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)


def _forget_the_dead(folder: Path) -> None:
    """Remove the gauges of dead processes from the sums."""
    for pid in {file.stem.rpartition("_")[2] for file in folder.glob("gauge_live*_*.db")}:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            mark_process_dead(int(pid))
