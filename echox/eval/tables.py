"""From items to tables: accuracy per arm and kind with intervals, the gaps between arms, and how the speech held up.

Every table names its scorer, normaliser and judge. Nothing is dropped: a failed item counts as wrong, and the shares of
failed, empty and cut answers stand beside the accuracy. Knows nothing about models or HTML.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from echox.eval import stats
from echox.eval.scorers.sound import DC_LIMIT, all_deleted
from echox.eval.stats import Interval

ORDER = ("t2t-off", "t2t", "s2t", "s2s", "teacher", "cascade")
GAPS = (
    ("s2t - t2t", "s2t", "t2t", "what hearing costs"),
    ("s2s - s2t", "s2s", "s2t", "what speaking costs"),
    ("t2t - t2t-off", "t2t", "t2t-off", "what the adapters cost on typed questions"),
    ("teacher - s2t", "teacher", "s2t", "what T2C, vocoder and judge cost"),
    ("s2s - teacher", "s2s", "teacher", "what the echo decoder costs against its teacher"),
    ("s2s - cascade", "s2s", "cascade", "against recogniser, LLM and the same voice"),
)
RATIOS = (("s2s / t2t", "s2s", "t2t", "what is kept of the typed answer"),)
MOST_KINDS = 8

Items = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Table:
    """A titled table of strings with a note under it; `markdown` prints it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [f"### {self.title}", "", _row(self.head), _row(tuple("---" for _ in self.head))]
        lines += [_row(row) for row in self.rows]
        return "\n".join([*lines, "", self.note, ""] if self.note else [*lines, ""])


def summarise(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the tables of one run: accuracy, gaps, speech."""
    named = names_note(settings)
    note = f"{named}; intervals: 95 %, paired bootstrap, {stats.RESAMPLES} resamples over questions, "
    note += f"seed {stats.SEED}. Failed items count as wrong."
    tables = [accuracy_table(items, note), gap_table(items, note)]
    spoken = speech_table(items, f"{named}. {errors_note(settings)}")
    return [table for table in (*tables, spoken) if table.rows]


def names_note(settings: dict[str, Any]) -> str:
    """Return the scorer, its normaliser and the judge of a run, for the note of every table."""
    scorer = f"Scorer {settings.get('scorer', '?')} (normaliser: {settings.get('normaliser', '?')})"
    return f"{scorer}; judge {settings.get('judge') or 'none'}"


def errors_note(settings: dict[str, Any]) -> str:
    """Return how word errors were counted, for the note of a speech table."""
    note = f"Errors of the judge's transcript against the own text, {settings.get('wer_normaliser', '?')}, pooled over "
    return note + "every answer: all words of a silent or failed one count as deleted. The rest: answers with sound."


def accuracy_table(items: Items, note: str) -> Table:
    """Return accuracy by arm, over everything and by kind of question, with the shares that explain it."""
    arms = arms_of(items)
    kinds = kinds_of(items)
    rows = []
    for arm in arms:
        own = [item for item in items if item["arm"] == arm]
        parts = [("all", own)] + [(kind, [item for item in own if kind_of(item) == kind]) for kind in kinds]
        for kind, part in parts:
            if part:
                rows.append((arm, kind, str(len(part)), percent(stats.mean(_scores(part))), *_shares(part)))
    return Table(
        "Accuracy",
        ("arm", "questions", "n", "accuracy %", "own text %", "empty %", "cut %", "failed %"),
        tuple(rows),
        note,
    )


def gap_table(items: Items, note: str) -> Table:
    """Return the differences and the ratio between arms, over the questions that both have."""
    rows = []
    for name, first, second, meaning in GAPS:
        rows += _gap_row(items, name, first, second, meaning, stats.difference)
    for name, first, second, meaning in RATIOS:
        rows += _gap_row(items, name, first, second, meaning, stats.ratio)
    return Table("The gap", ("gap", "n", "value (points, or % for the ratio)", "what it is"), tuple(rows), note)


def speech_table(items: Items, note: str) -> Table:
    """Return word and character error rates against the own text, rate, pauses, clipping and DC, by spoken arm."""
    rows = []
    texts = {item["id"]: item["text"] for item in items if item["arm"] == "s2t"}
    for arm in arms_of(items):
        own = [item for item in items if item["arm"] == arm and item.get("transcript") is not None]
        if own:
            counted = [with_words(item, texts) for item in own]
            words, characters = (pooled_rate(counted, f"{what}_edits", f"{what}s") for what in ("word", "character"))
            seconds = sum(item.get("audio_seconds", 0.0) for item in own)
            signals = [item["signal"] for item in own if item.get("signal")]
            silent = f"{100 * (1 - len(signals) / len(own)):.1f}"
            rows.append((arm, str(len(own)), f"{seconds:.0f}", words, characters, silent, *_signal_cells(signals)))
    checks = ("words/s", "pauses s", "clipped %", "largest DC", f"DC over {DC_LIMIT:g} %")
    head = ("arm", "n", "seconds", "WER %", "CER %", "no sound %", *checks)
    return Table("Speech", head, tuple(rows), note)


def with_words(item: dict[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """Return a spoken answer with its counts of words: all deleted where nothing was heard.

    A failed s2s answer has no text; the s2t answer to the same question in `texts` is what it would have said.
    """
    if "words" in item:
        return item
    lost = all_deleted(item["text"] or (texts.get(item["id"], "") if item["arm"] == "s2s" else ""))
    return item | asdict(lost)


def _signal_cells(signals: Sequence[dict[str, float]]) -> tuple[str, ...]:
    if not signals:
        return ("-",) * 5
    offsets = np.abs([signal["dc"] for signal in signals])
    return (
        f"{np.mean([signal['words_per_second'] for signal in signals]):.2f}",
        f"{np.mean([signal['pause_seconds'] for signal in signals]):.2f}",
        f"{100 * np.mean([signal['clipped'] > 0 for signal in signals]):.1f}",
        f"{offsets.max():.4f}",
        f"{100 * np.mean(offsets > DC_LIMIT):.1f}",
    )


def pair(items: Items, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of two arms on the questions that both hold, in one order."""
    by_id = [{item["id"]: float(item["score"]) for item in items if item["arm"] == arm} for arm in (first, second)]
    shared = sorted(by_id[0].keys() & by_id[1].keys())
    return np.array([by_id[0][id] for id in shared]), np.array([by_id[1][id] for id in shared])


def arms_of(items: Items) -> list[str]:
    """Return the arms there are, in reading order, unknown ones last."""
    found = {item["arm"] for item in items}
    return [arm for arm in ORDER if arm in found] + sorted(found - set(ORDER))


def kind_of(item: dict[str, Any]) -> str:
    """Return an item's kind: its own, or the letters that its id begins with."""
    found = re.match(r"[A-Za-z]+", item["id"])
    return item.get("kind") or (found.group(0) if found else "")


def kinds_of(items: Items) -> list[str]:
    """Return the kinds of question when there are between two and eight of them, else none."""
    found = Counter(kind_of(item) for item in items if kind_of(item))
    return sorted(found) if 2 <= len(found) <= MOST_KINDS else []


def worst_first(items: Items) -> list[dict[str, Any]]:
    """Return items worst first: failed, empty, wrong although the own text was right, wrong, then by word errors."""

    def badness(item: dict[str, Any]) -> tuple[float, ...]:
        lost = item.get("text_score", 0.0) > item["score"]
        share = item.get("word_edits", 0) / max(item.get("words", 0), 1)
        return (-bool(item.get("error")), -bool(item.get("empty")), -lost, item["score"], -share)

    return sorted(items, key=badness)


def _gap_row(
    items: Items, name: str, first: str, second: str, meaning: str, form: Callable[..., Interval]
) -> list[tuple[str, ...]]:
    scores, others = pair(items, first, second)
    return [(name, str(len(scores)), percent(form(scores, others)), meaning)] if len(scores) else []


def _scores(items: Items) -> np.ndarray:
    return np.array([float(item["score"]) for item in items])


def _shares(items: Items) -> tuple[str, ...]:
    shares = [[float(item.get("text_score", item["score"])) for item in items]]
    shares += [[bool(item.get(name)) for item in items] for name in ("empty", "cut", "error")]
    return tuple(f"{100 * np.mean(share):.1f}" for share in shares)


def pooled_rate(items: Items, edits: str, lengths: str) -> str:
    """Return all edits over all lengths of the items as percent, with its interval."""
    return percent(stats.rate([item[edits] for item in items], [item[lengths] for item in items]))


def percent(found: Interval) -> str:
    """Return an interval of shares as percent, a dash where there is none."""
    if not np.isfinite(found.value):
        return "-"
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
