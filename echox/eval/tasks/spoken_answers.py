"""One spoken answer: what is written down about its sound, and the table of many.

Used for a model's answers, a teacher's, a cascade's, and for the same texts in a reference voice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import save_wav
from echox.eval.questions import safe_name
from echox.eval.scorers.signals import DC_LIMIT, signal_checks
from echox.eval.scorers.word_errors import all_deleted, errors_between
from echox.eval.tables import Items, Table, arm_table, arms_of, error_rates


def spoken_record(item: dict[str, Any], audio: np.ndarray | None, rate: int, folder: Path, kind: str) -> dict[str, Any]:
    """Return word errors of `item` (id, text, transcript), and of its sound the seconds, checks and path below `folder`."""
    found: dict[str, Any] = asdict(errors_between(item["text"], item["transcript"])) | {"audio_seconds": 0.0}
    if audio is None or not len(audio):
        return found
    path = folder / "audio" / kind / f"{safe_name(item['id'])}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_wav(path, audio, rate)
    found |= {"audio": str(path.relative_to(folder)), "audio_seconds": len(audio) / rate}
    return found | {"signal": signal_checks(audio, rate, item["text"])}


def errors_note(settings: dict[str, Any]) -> str:
    """Return how word errors were counted, for the note of a speech table."""
    note = f"Errors of the judge's transcript against the own text, {settings.get('wer_normaliser', '?')}, pooled over "
    return note + "every answer: all words of a silent or failed one count as deleted. The rest: answers with sound."


def speech_table(items: Items, note: str) -> Table:
    """Return word and character error rates against the own text, rate, pauses, clipping and DC, by spoken arm."""
    return arm_table("Speech", arms_of(heard_answers(items)), _sound_cells, note)


def _sound_cells(items: Items) -> dict[str, str]:
    signals = [item["signal"] for item in items if item.get("signal")]
    seconds = f"{sum(item.get('audio_seconds', 0.0) for item in items):.0f}"
    rates = error_rates(items) | {"no sound %": f"{100 * (1 - len(signals) / len(items)):.1f}"}
    checks = ("words/s", "pauses s", "clipped %", "largest DC", f"DC over {DC_LIMIT:g} %")
    return {"seconds": seconds} | rates | dict(zip(checks, _signal_cells(signals), strict=True))


def heard_answers(items: Items) -> list[dict[str, Any]]:
    """Return the answers that a judge heard, silent and failed ones among them, with their counts of words."""
    texts = {item["id"]: item["text"] for item in items if item["arm"] == "s2t"}
    return [_with_words(item, texts) for item in items if item.get("transcript") is not None]


def _with_words(item: dict[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """Return a spoken answer with its counts of words: all deleted where nothing was heard.

    A failed s2s answer has no text; the s2t answer to the same question in `texts` is what it would have said.
    """
    if "words" in item:
        return item
    text = item["text"] or (texts.get(item["id"], "") if item["arm"] == "s2s" else "")
    return item | {"text": text} | asdict(all_deleted(text))


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
