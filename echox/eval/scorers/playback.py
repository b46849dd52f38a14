"""What a listener hears of audio that arrives in pieces: when it begins, and whether it stalls.

    arrival   |--1--|      |-2-|  |---3---|              chunks of audio come when they come
    player          [11111][....22222][3333333333]       it starts at the first chunk and never waits on purpose
                           ^^^^ an underrun: the buffer ran dry before chunk 2 arrived

`play` is a pure function of (arrival, samples) pairs, so any recording of arrivals can be judged again. Times are seconds since
the question was put; audio is counted in samples.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from echox.errors import InputError

STALL_SAMPLES = 0.5  # less than this late is rounding, not a stall


@dataclass(frozen=True)
class Chunk:
    """A piece of audio: when it arrived (seconds) and how many samples it holds."""

    arrival: float
    samples: int


@dataclass(frozen=True)
class Playback:
    """What a listener heard; with `delay_needed` seconds between the first chunk and the start of playing nothing stalls."""

    first_audio: float
    underruns: int
    stalled: float
    delay_needed: float
    ended: float
    audio_seconds: float


def play(chunks: Iterable[Chunk], sample_rate: int) -> Playback | None:
    """Return what a player hears that starts at the first chunk and plays on as long as it has samples.

    A chunk that arrives at the very moment the buffer ends is in time. Chunks without samples are skipped; without any
    others the result is None. Raises InputError when arrivals go backwards or a length is negative.
    """
    first = dry_at = stalled = needed = last_arrival = 0.0
    underruns = played = 0
    for chunk in chunks:
        if chunk.samples < 0 or chunk.arrival < last_arrival:
            raise InputError(f"{chunk} cannot follow one that arrived at {last_arrival}: record arrivals in order.")
        last_arrival = chunk.arrival
        if not chunk.samples:
            continue
        if not played:
            first = dry_at = chunk.arrival
        needed = max(needed, chunk.arrival - first - played / sample_rate)
        gap = chunk.arrival - dry_at
        if gap * sample_rate > STALL_SAMPLES:
            underruns, stalled = underruns + 1, stalled + gap
            dry_at = chunk.arrival
        dry_at += chunk.samples / sample_rate
        played += chunk.samples
    if not played:
        return None
    return Playback(first, underruns, stalled, needed, dry_at, played / sample_rate)
