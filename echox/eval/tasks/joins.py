"""`echox eval speech --joins`: clicks where the pieces of a streamed answer meet, against what happens inside the pieces.

    step, times   the largest step between neighbouring samples, over the 99th percentile of the steps within 10 ms
    energy, dB    the difference of level between the 10 ms before and after
    pitch, st     the difference of pitch between the 40 ms before and after, in semitones, where both are voiced

Each is taken at every join and every 50 ms elsewhere in the same answers. Without clicks one join in a hundred lies
beyond the 99th percentile of elsewhere. Knows nothing about models but that they stream.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from echox.eval import stats
from echox.eval.model_under_test import Failure, attempt
from echox.eval.questions import Item
from echox.eval.results import qa_runs, read_all, run_items, runs_mark
from echox.eval.tables import Items, Table, failures, percent

MEASURES = ("step, times", "energy, dB", "pitch, st")
LEVEL_SECONDS, PITCH_SECONDS, GRID_SECONDS = 0.01, 0.04, 0.05
FLOOR = 1e-3  # -60 dB of full scale: below it there is no level and no pitch
PITCH_HZ = (70.0, 400.0)
VOICED = 0.5  # share of the power that has to repeat a period later
BEYOND = 99.0


def changes(wave: np.ndarray, place: int, rate: int) -> dict[str, float]:
    """Return the measures at one place of a wave (float [samples]); those that cannot be taken there are left out."""
    near, far = int(LEVEL_SECONDS * rate), int(PITCH_SECONDS * rate)
    before, after = wave[place - near : place], wave[place : place + near]
    steps = np.abs(np.diff(wave[place - near : place + near]))
    middle = slice(near - 2, near + 1)
    around = np.delete(steps, np.arange(near - 2, near + 1))
    found = {"step, times": float(steps[middle].max() / max(np.percentile(around, BEYOND), FLOOR / 10))}
    levels = [20 * np.log10(max(float(np.sqrt(np.mean(side**2))), FLOOR)) for side in (before, after)]
    found["energy, dB"] = abs(levels[1] - levels[0])
    pitches = [pitch(side, rate) for side in (wave[max(0, place - far) : place], wave[place : place + far])]
    if all(pitches):
        found["pitch, st"] = abs(12 * float(np.log2(pitches[1] / pitches[0])))
    return found


def pitch(wave: np.ndarray, rate: int) -> float:
    """Return the pitch in Hz of a short piece, the highest peak of its normalised autocorrelation, 0 if unvoiced."""
    if len(wave) < 2 * rate / PITCH_HZ[0] or np.sqrt(np.mean(wave**2)) < FLOOR:
        return 0.0
    wave = wave - wave.mean()
    shortest, longest = int(rate / PITCH_HZ[1]), int(rate / PITCH_HZ[0])
    lags = np.arange(shortest, longest)
    likeness = [
        float(wave[lag:] @ wave[:-lag] / (np.linalg.norm(wave[lag:]) * np.linalg.norm(wave[:-lag]) + 1e-12))
        for lag in lags
    ]
    best = max(likeness)
    peaks = (i for i in range(1, len(lags) - 1) if likeness[i] >= max(likeness[i - 1], likeness[i + 1], 0.95 * best))
    first = next(peaks, None)  # the first period, not its multiples
    return rate / float(lags[first]) if first is not None and best >= VOICED else 0.0


def measure_joins(pieces: Sequence[np.ndarray], rate: int) -> dict[str, Any]:
    """Return {"at": ..., "elsewhere": ...}, each {measure: values}, of one streamed answer."""
    wave = np.concatenate([np.zeros(0), *pieces]).astype(np.float64)
    margin, grid = int(PITCH_SECONDS * rate), int(GRID_SECONDS * rate)
    joins = [int(place) for place in np.cumsum([len(piece) for piece in pieces])[:-1]]
    inside = [place for place in joins if margin <= place <= len(wave) - margin]
    steps = range(margin, len(wave) - margin, grid)
    other = [place for place in steps if all(abs(place - join) > margin for join in joins)]

    def columns(places: Sequence[int]) -> dict[str, list[float]]:
        found = [changes(wave, place, rate) for place in places]
        return {name: [round(one[name], 4) for one in found if name in one] for name in MEASURES}

    return {"at": columns(inside), "elsewhere": columns(other)}


def streamed(subject: Any, question: str) -> dict[str, Any]:
    """Return the joins of the answer to a typed question as it is streamed, with `error` where there is none."""

    def measured() -> dict[str, Any]:
        sounds = [piece.audio for piece in subject.stream(typed=question)]
        pieces = [sound for sound in sounds if sound is not None and len(sound)]
        return measure_joins(pieces, subject.sample_rate) | {"error": ""}

    found = attempt(measured)
    return {"at": {}, "elsewhere": {}, "error": found.reason} if isinstance(found, Failure) else found


def run_joins(subject: Any, name: str, paths: Sequence[Path], count: int, out: Path) -> list[Table]:
    """Return what happens where pieces of streamed answers meet, writing joins.jsonl.

    The first `count` questions of results files are put to the model once more, typed.
    """
    runs, settings = qa_runs(read_all(paths)), {"task": "joins", "model": name, "shard": "0/1"}
    asked = {item["id"]: Item(item["id"], item["question"], ()) for _, items in runs for item in items}

    def answer(arm: str, some: Sequence[Item]) -> list[dict[str, Any]]:
        return [{"question": item.question} | streamed(subject, item.question) for item in some]

    first = {"joins": list(asked.values())[:count]}
    return joins_tables(*run_items(out / "joins.jsonl", settings, runs_mark(runs), first, 1, answer))


def joins_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return what happens at joins and elsewhere, and how many joins lie beyond the 99th percentile of elsewhere."""
    rows = []
    for name in MEASURES:
        own, apart = ([np.array(item[key].get(name, [])) for item in items] for key in ("at", "elsewhere"))
        at, other = (np.concatenate([[], *values]) for values in (own, apart))
        if len(at) and len(other):
            limit = float(np.percentile(other, BEYOND))
            medians = [f"{np.median(values):.2f}" for values in (at, other)]
            beyond = stats.ratio([float((each > limit).sum()) for each in own], [len(each) for each in own])
            rows.append((name, str(len(at)), *medians, f"{limit:.2f}", percent(beyond)))
    note = (
        f"{settings['model']}; {len(items)} streamed answers, {failures(items)} failed; joins: where two pieces meet. "
    )
    note += (
        "Beyond: by chance 1 %, answers resampled. Step: largest step between samples over the 99th percentile of the "
    )
    note += "10 ms on both sides."
    head = ("measure", "joins", "median at joins", "median elsewhere", "99 % elsewhere", "joins beyond %")
    return [Table("Joins", head, tuple(rows), note)] if rows else []
