"""How long a listener waits, and whether the voice stalls: answers streamed and played in simulated real time.

    arrival   |--1--|      |-2-|  |---3---|              chunks of audio come when they come
    player          [11111][....22222][3333333333]       it starts at the first chunk and never waits on purpose
                           ^^^^ an underrun: the buffer ran dry before chunk 2 arrived

`play` is a pure function of (arrival, samples) pairs, so any recording of arrivals can be judged again. Times are
seconds since the question was put; audio is counted in samples. Knows nothing about models but their `stream`.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from echox.errors import InputError
from echox.eval import stats
from echox.eval.tables import Table

STALL_SAMPLES = 0.5  # less than this late is rounding, not a stall


@dataclass(frozen=True)
class Chunk:
    """A piece of audio: when it arrived (seconds) and how many samples it holds."""

    arrival: float
    samples: int


@dataclass(frozen=True)
class Playback:
    """What a listener heard: when sound began, how often and how long the buffer was dry, and when sound ended.

    `delay_needed` is how many seconds after the first chunk a player must start so that nothing stalls.
    """

    first_audio: float
    underruns: int
    stalled: float
    longest_stall: float
    delay_needed: float
    ended: float
    audio_seconds: float


def play(chunks: Iterable[Chunk], sample_rate: int) -> Playback | None:
    """Return what a player hears that starts at the first chunk and plays on as long as it has samples.

    A chunk that arrives at the very moment the buffer ends is in time. Chunks without samples are skipped; without any
    others the result is None. Raises InputError when arrivals go backwards or a length is negative.
    """
    first = dry_at = stalled = longest = needed = last_arrival = 0.0
    underruns = played = 0
    for chunk in chunks:
        if chunk.samples < 0 or chunk.arrival < last_arrival:
            raise InputError(
                f"chunk {chunk} cannot follow one that arrived at {last_arrival}: record arrivals in order."
            )
        last_arrival = chunk.arrival
        if not chunk.samples:
            continue
        if not played:
            first = dry_at = chunk.arrival
        needed = max(needed, chunk.arrival - first - played / sample_rate)
        gap = chunk.arrival - dry_at
        if gap * sample_rate > STALL_SAMPLES:
            underruns, stalled, longest = underruns + 1, stalled + gap, max(longest, gap)
            dry_at = chunk.arrival
        dry_at += chunk.samples / sample_rate
        played += chunk.samples
    if not played:
        return None
    return Playback(first, underruns, stalled, longest, needed, dry_at, played / sample_rate)


def play_reference(chunks: Sequence[Chunk], sample_rate: int, ticks: int) -> tuple[float, int, float]:
    """Return (first audio, underruns, seconds stalled) of the same player, moved on one sample at a time for `ticks`.

    The obvious twin of `play` for arrivals that fall on sample times.
    """
    waiting = sorted((round(chunk.arrival * sample_rate), chunk.samples) for chunk in chunks if chunk.samples)
    total = sum(samples for _, samples in waiting)
    buffered = heard = stalls = dry_ticks = 0
    first, dry = -1, False
    for tick in range(ticks):
        while waiting and waiting[0][0] <= tick:
            buffered += waiting.pop(0)[1]
            first = tick if first < 0 else first
        if first < 0 or heard == total:
            continue
        if buffered:
            buffered, heard, dry = buffered - 1, heard + 1, False
        else:
            stalls, dry_ticks, dry = stalls + (not dry), dry_ticks + 1, True
    return first / sample_rate, stalls, dry_ticks / sample_rate


def measure(
    subject: Any, question: Any, clock: Callable[[], float] = time.perf_counter, **options: Any
) -> dict[str, Any]:
    """Return the times of one streamed answer to a wave (float32 at 16 kHz) or, when `question` is text, to that.

    A model without `stream` is one whose only chunk comes at the end. Keys: first_text, first_audio, total,
    audio_seconds, tokens_before_audio, underruns, stalled, delay_needed, real_time_factor, chunks, arrivals, text.
    """
    named = {"typed": question} if isinstance(question, str) else {"question": question}
    started = clock()
    chunks: list[Chunk] = []
    said: list[str] = []
    first_text: float | None = None
    rate = 16_000
    said_before = ""
    for piece in _pieces(subject, named | options):
        now = clock() - started
        rate = int(getattr(piece, "sample_rate", None) or getattr(subject, "sample_rate", None) or rate)
        if piece.text:
            first_text = now if first_text is None else first_text
            said.append(piece.text)
        if piece.audio is not None and len(piece.audio):
            said_before = said_before if chunks else "".join(said)
            chunks.append(Chunk(now, len(piece.audio)))
    total = clock() - started
    heard = play(chunks, rate)
    found: dict[str, Any] = {"first_text": first_text, "first_audio": None, "total": total, "audio_seconds": 0.0}
    found |= {
        "tokens_before_audio": count_tokens(subject, said_before) if chunks else None,
        "text": "".join(said),
        "chunks": len(chunks),
    }
    if heard is not None:
        parts = asdict(heard)
        found |= {
            name: parts[name] for name in ("first_audio", "underruns", "stalled", "delay_needed", "audio_seconds")
        }
        found["real_time_factor"] = total / heard.audio_seconds
    return found | {"arrivals": [[c.arrival, c.samples] for c in chunks]}


def peak_memory() -> dict[str, float]:
    """Return the process's peak resident memory, and the accelerator's when torch has used one, in MiB."""
    scale = 1024 * 1024 if sys.platform == "darwin" else 1024
    found = {"peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        found["peak_cuda_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def latency_table(records: Sequence[dict[str, Any]], memory: dict[str, float], note: str) -> Table:
    """Return p50 and p95 of the times of `measure`, the underruns, and memory."""
    rows: list[tuple[str, ...]] = []
    for name, key, form in (
        ("first text, s", "first_text", "{:.3f}"),
        ("first audio, s", "first_audio", "{:.3f}"),
        ("text tokens before first audio", "tokens_before_audio", "{:.0f}"),
        ("whole answer, s", "total", "{:.3f}"),
        ("audio, s", "audio_seconds", "{:.2f}"),
        ("real-time factor", "real_time_factor", "{:.3f}"),
        ("stalled, s", "stalled", "{:.3f}"),
        ("start delay that avoids stalls, s", "delay_needed", "{:.3f}"),
    ):
        rows += _row(name, [record.get(key) for record in records], form)
    spoken = [record for record in records if record.get("audio_seconds")]
    if spoken:
        stalling = sum(bool(record["underruns"]) for record in spoken)
        count = sum(record["underruns"] for record in spoken)
        rows.append(("answers with underruns", f"{stalling} of {len(spoken)}", f"{count} in all"))
    rows += [(name.replace("_", " "), f"{value:.0f}", "") for name, value in memory.items()]
    return Table(f"Latency, n = {len(records)}", ("", "p50", "p95"), tuple(rows), note)


def _row(name: str, values: Sequence[float | None], form: str) -> list[tuple[str, ...]]:
    found = [float(value) for value in values if value is not None]
    if not found:
        return []
    return [(name, form.format(stats.percentile(found, 50)), form.format(stats.percentile(found, 95)))]


def _pieces(subject: Any, asked: dict[str, Any]) -> Iterable[Any]:
    if hasattr(subject, "stream"):
        yield from subject.stream(**asked)
    else:
        yield subject.ask(**asked)


def count_tokens(subject: Any, text: str) -> int:
    """Return how many tokens of the subject's own tokenizer a text has, or its words where there is none."""
    tokenizer = getattr(getattr(subject, "parts", None), "tokenizer", None)
    return len(tokenizer(text, add_special_tokens=False).input_ids) if tokenizer else len(text.split())
