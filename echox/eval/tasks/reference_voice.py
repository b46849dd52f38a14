"""A reference voice beside a model's: the same texts, said by the voice that the model learned from.

Every measure of `echox eval speech` is taken of both, and the differences are paired over the texts, so that neither long
words nor hard names can flatter one of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import save_wav
from echox.errors import ConfigError
from echox.eval import stats
from echox.eval.judges import Judge
from echox.eval.model_under_test import at_16k
from echox.eval.scorers.sound import errors_between, signal_checks
from echox.eval.tables import Items, Table, percent
from echox.eval.tasks.arms import safe_name
from echox.prepare.voices import Voice

SAYS = ", said by "


@dataclass(frozen=True)
class ReferenceVoice:
    """The voice that stands beside, by its kind, and the judge that hears it."""

    kind: str
    voice: Voice
    judge: Judge

    @classmethod
    def load(cls, kind: str, judge: str, window: int) -> "ReferenceVoice":
        """Make the voice and the judge; raise ConfigError for a kind that is not there or without a judge."""
        from pydantic import ValidationError

        from echox.eval.judges import load_judge
        from echox.prepare.recipe import VoiceChoice
        from echox.prepare.voices import make_voice

        if not judge:
            raise ConfigError(
                "the reference voice is heard by the judge of the answers: give --judge, such as whisper-base."
            )
        try:
            choice = VoiceChoice.model_validate({"kind": kind})
        except ValidationError as error:
            raise ConfigError(f"there is no reference voice {kind!r}: choose hibari, flite or piper.") from error
        return cls(kind, make_voice(choice), load_judge(judge, "cpu", window))

    def say(self, item: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Return the record of an answer's text in this voice, its sound saved below `folder`."""
        text = item["text"]
        wave = self.voice.speak(text, self.voice.styles[0], 1.0, 0) if text.strip() else np.zeros(0, np.float32)
        rate = self.voice.sample_rate
        transcript = self.judge.transcribe([at_16k(wave, rate)])[0]
        edits = errors_between(text, transcript)
        record = {"id": item["id"], "text": text, "transcript": transcript, "words": edits.words, "error": ""}
        record |= {"word_edits": edits.word_edits, "characters": edits.characters, "folder": str(folder)}
        record |= {"character_edits": edits.character_edits, "audio_seconds": len(wave) / rate}
        if len(wave):
            path = folder / "audio" / self.kind / f"{safe_name(item['id'])}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_wav(path, wave, rate)
            record |= {"audio": str(path.relative_to(folder)), "signal": signal_checks(wave, rate, text)}
        return record


def reference_table(items: Items) -> Table:
    """Return differences and ratios between each arm and the reference voice over the same texts, with intervals."""
    rows = []
    for arm in dict.fromkeys(item["arm"] for item in items):
        own, _, kind = arm.partition(SAYS)
        if kind:
            rows += _compared(own, kind, *_paired(items, own, arm))
    note = "Paired over the answers that both have, 95 % bootstrap. Speaking rate: words a second of speech, ours over theirs."
    return Table(
        "Beside the reference voice",
        ("answers", "measure", "n", "ours", "reference", "ours against it"),
        tuple(rows),
        note,
    )


def _paired(items: Items, arm: str, other: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    by_id = [{item["id"]: item for item in items if item["arm"] == name} for name in (arm, other)]
    shared = [id for id in by_id[0] if id in by_id[1]]
    return [by_id[0][id] for id in shared], [by_id[1][id] for id in shared]


def _compared(arm: str, kind: str, own: Items, other: Items) -> list[tuple[str, ...]]:
    rows = []
    names = dict.fromkeys(name for item in (*own, *other) for name in item["measures"])
    for name in names:
        both = [(a["measures"][name], b["measures"][name]) for a, b in zip(own, other, strict=True)
                if name in a["measures"] and name in b["measures"]]  # fmt: skip
        if both:
            ours, theirs = np.array(both).T
            rows.append(_row(arm, name, len(both), ours.mean(), theirs.mean(), stats.difference(ours, theirs)))
    counts_N3 = np.array(
        [(a["word_edits"], b["word_edits"], b["words"]) for a, b in zip(own, other, strict=True)], float
    )
    if len(counts_N3) and counts_N3[:, 2].sum():
        ours, theirs, words = counts_N3.sum(axis=0)
        change = stats.paired_bootstrap(counts_N3, _more_errors)
        rows.append(_row(arm, "WER %", len(counts_N3), 100 * ours / words, 100 * theirs / words, change))
    spoken = [
        (a["signal"], b["signal"]) for a, b in zip(own, other, strict=True) if a.get("signal") and b.get("signal")
    ]
    if spoken:
        ours, theirs = (np.array([pair[side]["speech_seconds"] for pair in spoken]) for side in (0, 1))
        rates = [float(np.mean([pair[side]["words_per_second"] for pair in spoken])) for side in (0, 1)]
        rows.append((arm, "speaking rate", str(len(spoken)), *(f"{rate:.2f}" for rate in rates),
                     f"{percent(stats.ratio(theirs, ours))} %"))  # fmt: skip
    return [(row[0], row[1], row[2], row[3], f"{row[4]} ({kind})", row[5]) for row in rows]


def _more_errors(means: np.ndarray) -> np.ndarray:
    """Return our word errors less theirs, as percent of the words; NaN where a resample holds no words."""
    words = np.where(means[..., 2] > 0, means[..., 2], np.nan)
    return 100 * (means[..., 0] - means[..., 1]) / words


def _row(arm: str, name: str, n: int, ours: float, theirs: float, change: stats.Interval) -> tuple[str, ...]:
    return (
        arm,
        name,
        str(n),
        f"{ours:.2f}",
        f"{theirs:.2f}",
        f"{change.value:+.2f} [{change.low:+.2f}, {change.high:+.2f}]",
    )
