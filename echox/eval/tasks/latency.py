"""`echox eval latency`: how long a listener waits, whether the voice stalls, and where the time of an answer goes.

Answers are streamed one at a time and played in simulated real time (scorers/playback.py). Seconds inside each part of a model
are taken by hooks, which cost a little themselves, in answers of their own that never mix with the latency that is reported.
Time belongs to the innermost part that is running: the adapter's excludes the LLM's. A question is given whole, or (`Live`) said
in real time to a model that listens meanwhile; either way the clock starts at its last sample.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import SAMPLE_RATE
from echox.errors import ConfigError
from echox.eval.model_under_test import Failure, recorded, timed_on
from echox.eval.questions import Item, fingerprint, load_question
from echox.eval.results import OURS, Results, title_of
from echox.eval.scorers.playback import Chunk, play
from echox.eval.tables import Items, Table
from echox.files import refuse_others, write_text

WARM_UP = 2  # questions
ROWS = (
    ("first text, s", "first_text", "{:.3f}"),
    ("first audio, s", "first_audio", "{:.3f}"),
    ("text tokens before first audio", "tokens_before_audio", "{:.0f}"),
    ("whole answer, s", "total", "{:.3f}"),
    ("audio, s", "audio_seconds", "{:.2f}"),
    ("real-time factor", "real_time_factor", "{:.3f}"),
    ("stalled, s", "stalled", "{:.3f}"),
    ("start delay that avoids stalls, s", "delay_needed", "{:.3f}"),
)
"""The rows of the table: what is printed, its key in a record, its format."""


def run_latency(subject: Any, name: str, questions: Sequence[Item], out: Path, live: bool = False) -> list[Table]:
    """Return the latency table of a model over questions (spoken where they have audio), writing latency.jsonl.

    The first questions are asked beforehand, for a second table of the time in each part. Failures are recorded and left
    out of the percentiles. Raises ConfigError when the file was timed on another machine or device.
    """
    refuse_others(out, ["latency.md"], "latency.jsonl", OURS)
    subject = Live(subject) if live else subject
    sounds = {item.id: load_question(item) if item.audio is not None else item.question for item in questions}
    parts = _part_tables(subject, list(sounds.values())[:WARM_UP])
    settings = {"task": "latency", "model": name, **timed_on(subject)}
    settings |= {"live": True} if live else {}
    settings |= {"system": subject.system} if getattr(subject, "system", "") else {}

    def answer(arm: str, some: Sequence[Item]) -> list[dict[str, Any]]:
        return [{"id": item.id} | _timed(subject, sounds[item.id]) for item in some]

    results = Results(out / "latency.jsonl", settings | {"questions_mark": fingerprint(questions)})
    found = results.fill({"latency": questions}, 1, answer)
    load = getattr(subject, "load_seconds", None)
    memory = peak_memory() | ({"load_seconds": float(load)} if load else {})
    tables = [*latency_tables(*found, memory), *parts]
    write_text(out / "latency.md", "\n".join(each.markdown() for each in tables))
    return tables


SPOKEN_SAMPLES = SAMPLE_RATE // 10  # of a question said in real time, that come together


def measure(subject: Any, question: Any, clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """Return the times of one streamed answer to a wave (float32 at 16 kHz) or, when `question` is text, to that.

    A model without `stream` is one whose only chunk comes at the end. Keys: first_text, first_audio, total, audio_seconds,
    tokens_before_audio, underruns, stalled, delay_needed, real_time_factor, chunks, arrivals, text.
    """
    if isinstance(subject, Live) and not isinstance(question, str):
        pieces, started = subject.answer(question)
    else:
        asked = {"typed": question} if isinstance(question, str) else {"question": question}
        started = clock()
        pieces = subject.stream(**asked) if hasattr(subject, "stream") else [subject.ask(**asked)]
    rate, chunks = SAMPLE_RATE, list[Chunk]()
    said, said_before, first_text = "", "", None
    for piece in pieces:
        now = clock() - started
        rate = int(getattr(piece, "sample_rate", None) or getattr(subject, "sample_rate", None) or rate)
        if piece.text:
            first_text, said = now if first_text is None else first_text, said + piece.text
        if piece.audio is not None and len(piece.audio):
            said_before = said_before if chunks else said
            chunks.append(Chunk(now, len(piece.audio)))
    total, heard = clock() - started, play(chunks, rate)
    found: dict[str, Any] = {"first_text": first_text, "first_audio": None, "total": total, "audio_seconds": 0.0}
    found |= {"tokens_before_audio": count_tokens(subject, said_before) if chunks else None, "text": said}
    if heard is not None:
        found |= asdict(heard) | {"real_time_factor": total / heard.audio_seconds}
    return found | {"chunks": len(chunks), "arrivals": [[c.arrival, c.samples] for c in chunks]}


class Live:
    """A model that listens while questions are said to it in real time."""

    def __init__(self, model: Any, clock: Callable[[], float] = time.perf_counter, sleep: Any = time.sleep) -> None:
        """Begin to listen; ConfigError for a model that cannot."""
        if not hasattr(model, "listen"):
            raise ConfigError("this model cannot listen while somebody speaks: leave --live out.")
        self.model, self.listening, self.clock, self.sleep = model, model.listen(SAMPLE_RATE), clock, sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def answer(self, wave: np.ndarray) -> tuple[Iterable[Any], float]:
        """Play a question in real time; return the pieces of its answer, and when its last sample was played."""
        began = self.clock()
        for start in range(0, len(wave), SPOKEN_SAMPLES):
            end = min(start + SPOKEN_SAMPLES, len(wave))
            self.sleep(max(0.0, began + end / SAMPLE_RATE - self.clock()))
            if end < len(wave):
                self.listening.push(wave[start:end])
        last = wave[(len(wave) - 1) // SPOKEN_SAMPLES * SPOKEN_SAMPLES :]
        return self.listening.answer(last), began + len(wave) / SAMPLE_RATE


def peak_memory() -> dict[str, float]:
    """Return the process's peak resident memory, and the accelerator's when torch has used one, in MiB."""
    scale = 1024 * 1024 if sys.platform == "darwin" else 1024
    found = {"peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        found["peak_cuda_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def count_tokens(subject: Any, text: str) -> int:
    """Return how many tokens of the subject's own tokenizer a text has, or its words where there is none."""
    tokenizer = getattr(getattr(subject, "parts", None), "tokenizer", None)
    return len(tokenizer(text, add_special_tokens=False).input_ids) if tokenizer else len(text.split())


def latency_tables(settings: dict[str, Any], items: Items, memory: dict[str, float] | None = None) -> list[Table]:
    """Return p50 and p95 of a latency run's times, the underruns, and memory; failed answers are counted in the note alone."""
    done, rows = [item for item in items if not item["error"]], list[tuple[str, ...]]()
    for name, key, form in ROWS:
        found = [float(record[key]) for record in done if record.get(key) is not None]
        if found:
            rows.append((name, *(form.format(np.percentile(found, q)) for q in (50, 95))))
    spoken = [record["underruns"] for record in done if record.get("audio_seconds")]
    if spoken:
        stalling = f"{sum(map(bool, spoken))} of {len(spoken)}"
        rows.append(("answers with underruns", stalling, f"{sum(spoken)} in all"))
    rows += [(name.replace("_", " "), f"{value:.0f}", "") for name, value in (memory or {}).items()]
    where = f"{settings.get('timed_on', '?')}, device {settings.get('device', '?')}"
    put = "questions said in real time" if settings.get("live") else "questions given whole"
    note = f"{title_of(settings)} on {where}; one answer at a time, {put}; {len(items) - len(done)} failed. "
    note += "A player starts at the first chunk; stalled and delay are what a listener notices. No scorer, no judge."
    return [Table(f"Latency, n = {len(done)}", ("", "p50", "p95"), tuple(rows), note)]


def modules_of(subject: Any) -> dict[str, Any]:
    """Return the torch modules of a model's parts by name, the LLM before the part that holds it; {} for others."""
    parts = getattr(subject, "parts", None)
    found = {"llm": getattr(getattr(parts, "s2t", None), "llm", None)}
    found |= {name: getattr(parts, name, None) for name in ("encoder", "s2t", "t2c", "echo", "vocoder")}
    return {name: module for name, module in found.items() if hasattr(module, "modules")}


@contextmanager
def part_seconds(parts: dict[str, Any], clock: Callable[[], float] = time.perf_counter) -> Iterator[dict[str, float]]:
    """Yield the seconds by part, which grow while it is entered; a module in several parts counts for the first."""
    import torch

    seconds, running, since = dict.fromkeys(parts, 0.0), list[str](), 0.0

    def switch(name: str | None) -> None:
        """Give the time since the last event to the running part, after synchronising the accelerator; begin another or end it."""
        nonlocal since
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = clock()
        if running:
            seconds[running[-1]] += now - since
        since = now
        if name is not None:
            running.append(name)
        elif running:
            running.pop()

    owners = {module: name for name, part in reversed(parts.items()) for module in part.modules()}
    with ExitStack() as hooks:
        for module, name in owners.items():
            hooks.enter_context(module.register_forward_pre_hook(lambda *_, name=name: switch(name)))
            hooks.enter_context(module.register_forward_hook(lambda *_: switch(None), always_call=True))
        yield seconds


def part_table(seconds: dict[str, float], total: float, answers: int) -> Table:
    """Return seconds and share by part, what is left going to `other` (Python, sampling, copying)."""
    rows = [(name, value) for name, value in seconds.items() if value > 0]
    rows.append(("other", max(total - sum(value for _, value in rows), 0.0)))
    shown = tuple((name, f"{value / answers:.3f}", f"{100 * value / total:.0f}") for name, value in rows)
    note = "Taken with hooks in answers of their own, which slows them; read the shares. No scorer, no judge."
    return Table(f"Parts, n = {answers}", ("part", "s an answer", "%"), shown, note)


def _timed(subject: Any, question: Any) -> dict[str, Any]:
    return {"error": question.reason} if isinstance(question, Failure) else recorded(lambda: measure(subject, question))


def _part_tables(subject: Any, questions: Sequence[Any]) -> list[Table]:
    """Answer questions once to warm up and, where the model has parts, once more to time them."""
    answered = [question for question in questions if not _timed(subject, question)["error"]]
    parts = modules_of(subject)
    if not parts or not answered:
        return []
    with part_seconds(parts) as seconds:
        found = [_timed(subject, question) for question in answered]
    whole = [each["total"] for each in found if not each["error"]]
    return [part_table(seconds, sum(whole), len(whole))] if len(whole) == len(found) else []
