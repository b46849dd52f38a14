"""`echox eval speech`: how spoken answers sound, alone or beside the voice that the model learned from.

Opinion scores, speaker similarity, word errors, rate, pauses, clipping and offsets of the answers of `echox eval qa`. With a
reference voice every measure is taken of both over the same texts, and the differences are paired, so that neither long words
nor hard names can flatter one of them.

With `--joins` also clicks where the pieces of a streamed answer meet, against what happens inside the pieces:

    step, times   the largest step between neighbouring samples, over the 99th percentile of the steps within 10 ms
    energy, dB    the difference of level between the 10 ms before and after
    pitch, st     the difference of pitch between the 40 ms before and after, in semitones, where both are voiced

Each is taken at every join and every 50 ms elsewhere in the same answers. Without clicks one join in a hundred lies beyond the 99th
percentile of elsewhere.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import load_audio
from echox.errors import ConfigError, InputError
from echox.eval import stats
from echox.eval.judges import Judge, load_judge
from echox.eval.model_under_test import NO_SOUND, at_16k, attempt, recorded, sounds_of
from echox.eval.questions import Item, chosen, safe_name
from echox.eval.results import Results, qa_runs, read_all, runs_mark, titles_of
from echox.eval.scorers.sounds import Measure, distillmos, dnsmos, speaker_similarity
from echox.eval.scorers.texts import NORMALISER
from echox.eval.tables import (
    Items,
    Table,
    arm_table,
    arms_of,
    by_arm,
    decimals,
    failures,
    percent,
    rates_between,
    shared,
)
from echox.eval.tasks.spoken_answers import errors_note, heard_answers, speech_table, spoken_record
from echox.prepare.recipe import VoiceChoice
from echox.prepare.voices import Voice, make_voice

SAYS = ", said by "
MEASURES = ("step, times", "energy, dB", "pitch, st")
LEVEL_SECONDS, PITCH_SECONDS, GRID_SECONDS = 0.01, 0.04, 0.05
FLOOR = 1e-3  # -60 dB of full scale: below it there is no level and no pitch
PITCH_HZ = (70.0, 400.0)
VOICED = 0.5  # share of the power that has to repeat a period later
BEYOND = 99.0


@dataclass(frozen=True)
class ReferenceVoice:
    """The reference voice and its kind, and the judge that transcribes it."""

    kind: str
    voice: Voice
    judge: Judge

    @classmethod
    def load(cls, kind: str, judge: str, window: int) -> "ReferenceVoice":
        """Make the voice and the judge; ConfigError for a kind that is not there or without a judge."""
        if not judge:
            raise ConfigError("the reference voice is heard by the answers' judge: give --judge, such as whisper-base.")
        return cls(kind, make_voice(VoiceChoice.parse({"kind": kind}, "--reference")), load_judge(judge, "cpu", window))

    def say(self, item: dict[str, Any], folder: Path, arm: str) -> dict[str, Any]:
        """Return the record of an answer's text in this voice, its sound saved by arm in `folder`; a failure counts as silence."""
        text, rate = item["text"], self.voice.sample_rate
        said = attempt(lambda: self.voice.speak(text, self.voice.styles[0], 1.0, 0)) if text.strip() else NO_SOUND
        (wave,) = sounds_of([said])
        record = {"id": item["id"], "text": text, "error": getattr(said, "reason", ""), "folder": str(folder)}
        record |= {"transcript": self.judge.transcribe([at_16k(wave, rate)])[0]}
        return record | spoken_record(record, wave, rate, folder, safe_name(arm))


def run_speech(
    paths: Sequence[Path],
    wanted: str,
    voice: Path | None,
    out: Path,
    tell: Callable[[str], None],
    reference: ReferenceVoice | None = None,
    limit: int | None = None,
) -> list[Table]:
    """Return the tables of spoken answers by run and arm of results files, writing speech.jsonl, by the networks `wanted`.

    With a `reference` voice also those of the same texts in that voice, and what is between them. `limit` takes the first answers
    of every arm. Raises ConfigError for an unknown network or similarity without a `voice`, InputError when no answer has audio.
    """
    makers: dict[str, Callable[[], Measure]] = {"dnsmos": dnsmos, "distillmos": distillmos}
    makers["speaker_similarity"] = lambda: speaker_similarity(load_audio(voice or Path()))
    networks = chosen(wanted, makers, "--networks") if wanted else []
    if "speaker_similarity" in networks and voice is None:
        raise ConfigError("speaker similarity needs a recording of the voice to compare with: give --voice FILE.")
    runs = qa_runs(read_all(paths))
    arms = {
        f"{title} {arm}": [Item(item["id"], "", (), record=item) for item in own[:limit]]
        for title, (_, items) in zip(titles_of(runs), runs, strict=True)
        for arm, own in by_arm(heard_answers(items)).items()
    }
    if not any(item.get("audio") for _, items in runs for item in items):
        raise InputError(f"{paths[0]} holds no spoken answers: run `echox eval qa` with the arm s2s first.")
    measures = [makers[name]() for name in networks]
    judges = " and ".join(dict.fromkeys(str(run[0].get("judge")) for run in runs))
    settings = {"task": "speech", "networks": networks, "voice": str(voice or ""), "judge": judges}
    settings |= {"wer_normaliser": NORMALISER}
    if reference is not None:
        if judges != reference.judge.name:
            given = reference.judge.name
            raise ConfigError(f"the answers were heard by {judges}, not by {given}: give that one as --judge.")
        settings |= {"reference": reference.kind}
        arms |= {f"{arm}{SAYS}{reference.kind}": own for arm, own in arms.items()}

    def answer(arm: str, some: Sequence[Any]) -> list[dict[str, Any]]:
        said = [reference.say(one.record, out, arm) if reference and SAYS in arm else one.record for one in some]
        return [_measured(record, measures) for record in said]

    found = Results(out / "speech.jsonl", settings | {"questions_mark": runs_mark(runs)}).fill(arms, 1, answer)
    if failed := failures(found[1]):
        tell(f"{failed} answers were not measured; {out / 'speech.jsonl'} says why")
    return speech_tables(*found)


def _measured(item: dict[str, Any], measures: Sequence[Measure]) -> dict[str, Any]:
    """Return what is written about the sound of one answer, with its word errors and signal checks of the qa run."""
    names = "id text transcript words word_edits characters character_edits audio_seconds signal".split()
    record = {name: item[name] for name in names if name in item}
    if not item.get("audio"):
        return record | {"measures": {}, "error": item.get("error") or "the answer is silent"}
    path = Path(item["folder"]) / item["audio"]

    def measured() -> dict[str, Any]:
        wave = load_audio(path)
        return {"measures": {name: value for measure in measures for name, value in measure(wave).items()}}

    return record | {"audio": str(path)} | recorded(measured, measures={})


def speech_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return opinion scores and speaker similarity, then word errors and signal checks, by run and arm."""
    judge = f"Judge {settings.get('judge') or 'none'}"
    errors = speech_table(items, f"{judge}. {errors_note(settings)}")
    found = [opinions_table(items, judge), errors, reference_table(items)]
    return [found[0], *(table for table in found[1:] if table.rows)]


def opinions_table(items: Items, judge: str) -> Table:
    """Return the mean of every measure by arm, with its interval, over the answers that have it."""
    names = dict.fromkeys(name for item in items for name in item["measures"])
    measured = {arm: [item for item in own if item["measures"]] for arm, own in arms_of(items).items()}
    note = "Means over answers with sound, 95 % bootstrap; no transcript is used. DNSMOS hardly separates voices; "
    note += f"read it beside DistillMOS and WER. {judge}."

    def means(own: Items) -> dict[str, str]:
        found = {name: [item["measures"][name] for item in own if name in item["measures"]] for name in names}
        return {name: decimals(stats.mean(values)) for name, values in found.items()}

    return arm_table("Speech quality", measured, means, note, "run and arm")


def reference_table(items: Items) -> Table:
    """Return differences and ratios between each arm and the reference voice over the same texts, with intervals."""
    rows, arms = [], by_arm(items)
    for arm, others in arms.items():
        own, _, kind = arm.partition(SAYS)
        if kind:
            rows += _compared(own, kind, shared(arms.get(own, []), others))
    note = "Paired over the answers that both have, 95 % bootstrap. Speaking rate: words a second of speech, ours over theirs."
    head = ("answers", "measure", "n", "ours", "reference", "ours against it")
    return Table("Beside the reference voice", head, tuple(rows), note)


def _compared(arm: str, kind: str, both: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[tuple[str, ...]]:
    def values(key: str, name: str) -> np.ndarray:
        found = [[one[key][name] for one in two] for two in both if all(name in (one.get(key) or {}) for one in two)]
        return np.array(found, float).reshape(-1, 2).T

    rows: list[tuple[str, int, Iterable[float], str]] = []  # measure, answers, both means, ours against theirs
    for name in dict.fromkeys(name for side in zip(*both, strict=True) for item in side for name in item["measures"]):
        measured_2N = values("measures", name)
        if measured_2N.size:
            change = decimals(stats.difference(*measured_2N), signed=True)
            rows.append((name, measured_2N.shape[1], measured_2N.mean(axis=1), change))
    words = sum(other["words"] for _, other in both)
    if words:
        rates = [100 * sum(two[side]["word_edits"] for two in both) / words for side in (0, 1)]
        rows.append(("WER %", len(both), rates, decimals(rates_between(both), signed=True)))
    ours, theirs = values("signal", "speech_seconds")
    if len(ours):
        rates = values("signal", "words_per_second").mean(axis=1)
        rows.append(("speaking rate", len(ours), rates, f"{percent(stats.ratio(theirs, ours))} %"))
    cells = ((name, str(n), *(f"{mean:.2f}" for mean in means), change) for name, n, means, change in rows)
    return [(arm, name, n, ours, f"{theirs} ({kind})", change) for name, n, ours, theirs, change in cells]


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
    sides = [(wave[lag:], wave[:-lag]) for lag in lags]
    likeness = [float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-12)) for a, b in sides]
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
        return measure_joins(pieces, subject.sample_rate)

    return recorded(measured, at={}, elsewhere={})


def run_joins(subject: Any, name: str, paths: Sequence[Path], count: int, out: Path) -> list[Table]:
    """Return what happens where pieces of streamed answers to the first `count` questions of results meet, writing joins.jsonl."""
    runs = qa_runs(read_all(paths))
    settings = {"task": "joins", "model": name, "questions_mark": runs_mark(runs)}
    asked = {item["id"]: Item(item["id"], item["question"], ()) for _, items in runs for item in items}

    def answer(arm: str, some: Sequence[Item]) -> list[dict[str, Any]]:
        return [{"id": item.id, "question": item.question} | streamed(subject, item.question) for item in some]

    first = {"joins": list(asked.values())[:count]}
    return joins_tables(*Results(out / "joins.jsonl", settings).fill(first, 1, answer))


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
    note = f"{settings['model']}; {len(items)} streamed answers, {failures(items)} failed; joins: where pieces meet. "
    note += "Beyond: by chance 1 %, answers resampled. Step: largest step between samples over the 99th percentile "
    note += "of the 10 ms on both sides."
    head = ("measure", "joins", "median at joins", "median elsewhere", "99 % elsewhere", "joins beyond %")
    return [Table("Joins", head, tuple(rows), note)] if rows else []
