"""One spoken answer: what is written down about its sound, and the table of many.

Used for a model's answers, a teacher's, a cascade's, and for the same texts in a reference voice.
"""

from pathlib import Path
from typing import Any

import numpy as np

from echox.eval.questions import save_sound
from echox.eval.scorers.sounds import DC_LIMIT, signal_checks
from echox.eval.scorers.texts import errors_between
from echox.eval.tables import Items, Table, arm_table, arms_of, pooled_rate


def spoken_record(item: dict[str, Any], audio: np.ndarray, rate: int, folder: Path, kind: str) -> dict[str, Any]:
    """Return word errors of `item` (id, text, transcript), and of its sound the seconds, checks and path below `folder`."""
    found: dict[str, Any] = errors_between(item["text"], item["transcript"]) | {"audio_seconds": 0.0}
    if not len(audio):
        return found
    path = save_sound(folder / "audio" / kind, item["id"], audio, rate)
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
    cells = {"seconds": f"{sum(item.get('audio_seconds', 0.0) for item in items):.0f}"}
    cells |= {"WER %": pooled_rate(items, "word_edits", "words")}
    cells |= {"CER %": pooled_rate(items, "character_edits", "characters")}
    cells["no sound %"] = f"{100 * (1 - len(signals) / len(items)):.1f}"
    checks, found = ("words/s", "pauses s", "clipped %", "largest DC", f"DC over {DC_LIMIT:g} %"), ["-"] * 5
    if signals:
        names = ("words_per_second", "pause_seconds", "clipped", "dc")
        rates, pauses, clipped, offsets = (np.abs([signal[name] for signal in signals]) for name in names)
        found = [f"{rates.mean():.2f}", f"{pauses.mean():.2f}", f"{100 * np.mean(clipped > 0):.1f}"]
        found += [f"{offsets.max():.4f}", f"{100 * np.mean(offsets > DC_LIMIT):.1f}"]
    return cells | dict(zip(checks, found, strict=True))


def heard_answers(items: Items) -> list[dict[str, Any]]:
    """Return the answers that a judge heard, with their counts of words: all deleted where nothing was heard.

    A failed s2s answer has no text; the s2t answer to the same question is what it would have said.
    """
    said = {item["id"]: item["text"] for item in items if item["arm"] == "s2t"}
    found = []
    for item in items:
        if item.get("transcript") is not None and "words" not in item:
            text = item["text"] or (said.get(item["id"], "") if item["arm"] == "s2s" else "")
            item = item | {"text": text} | errors_between(text, "")
        found += [item] if item.get("transcript") is not None else []
    return found
