"""`echox eval speech`: how spoken answers sound, alone or beside the voice that the model learned from.

Opinion scores, speaker similarity, word errors, rate, pauses, clipping and offsets of the answers of `echox eval qa`. With a
reference voice every measure is taken of both over the same texts, and the differences are paired, so that neither long words
nor hard names can flatter one of them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from echox.audio import load_audio
from echox.errors import ConfigError, InputError
from echox.eval import stats
from echox.eval.judges import Judge, load_judge
from echox.eval.model_under_test import NO_SOUND, Failure, at_16k, attempt, sounds_of
from echox.eval.questions import chosen, safe_name
from echox.eval.results import qa_runs, read_all, run_items, runs_mark, titles_of
from echox.eval.scorers.opinions import Measure, distillmos, dnsmos, speaker_similarity
from echox.eval.scorers.word_errors import NORMALISER
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

NETWORKS = ("dnsmos", "distillmos", "speaker_similarity")
SAYS = ", said by "


@dataclass(frozen=True)
class ReferenceVoice:
    """The voice that stands beside, by its kind, and the judge that hears it."""

    kind: str
    voice: Voice
    judge: Judge

    @classmethod
    def load(cls, kind: str, judge: str, window: int) -> "ReferenceVoice":
        """Make the voice and the judge; ConfigError for a kind that is not there or without a judge."""
        if not judge:
            raise ConfigError(
                "the reference voice is heard by the judge of the answers: give --judge, such as whisper-base."
            )
        try:
            choice = VoiceChoice.model_validate({"kind": kind})
        except ValidationError as error:
            raise ConfigError(f"there is no reference voice {kind!r}: choose hibari, flite or piper.") from error
        return cls(kind, make_voice(choice), load_judge(judge, "cpu", window))

    def say(self, item: dict[str, Any], folder: Path, arm: str) -> dict[str, Any]:
        """Return the record of an answer's text in this voice, its sound saved by arm below `folder`; a fault is nothing said."""
        text, rate = item["text"], self.voice.sample_rate
        said = attempt(lambda: self.voice.speak(text, self.voice.styles[0], 1.0, 0)) if text.strip() else NO_SOUND
        (wave,) = sounds_of([said])
        record = {"id": item["id"], "text": text, "error": getattr(said, "reason", ""), "folder": str(folder)}
        record |= {"transcript": self.judge.transcribe([at_16k(wave, rate)])[0]}
        return record | spoken_record(record, wave, rate, folder, safe_name(arm))


class Answer(NamedTuple):
    """An answer of a qa run, to be measured."""

    id: str
    record: dict[str, Any]


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
    networks = chosen(wanted, NETWORKS, "--networks") if wanted else []
    if "speaker_similarity" in networks and voice is None:
        raise ConfigError(
            "speaker similarity needs a recording of the voice that answers should have: give --voice FILE."
        )
    runs = qa_runs(read_all(paths))
    arms = {
        f"{title} {arm}": [Answer(item["id"], item) for item in own[:limit]]
        for title, (_, items) in zip(titles_of(runs), runs, strict=True)
        for arm, own in by_arm(heard_answers(items)).items()
    }
    if not any(one.record.get("audio") for own in arms.values() for one in own):
        raise InputError(f"{paths[0]} holds no spoken answers: run `echox eval qa` with the arm s2s first.")
    makers: dict[str, Callable[[], Measure]] = {"dnsmos": dnsmos, "distillmos": distillmos}
    if voice is not None:
        makers["speaker_similarity"] = partial(speaker_similarity, load_audio(voice))
    measures = [makers[name]() for name in networks]
    judges = " and ".join(dict.fromkeys(str(run[0].get("judge")) for run in runs))
    settings = {"task": "speech", "networks": list(networks), "voice": str(voice or ""), "judge": judges}
    settings |= {"wer_normaliser": NORMALISER, "shard": "0/1"}
    if reference is not None:
        if judges != reference.judge.name:
            given = reference.judge.name
            raise ConfigError(f"the answers were heard by {judges}, not by {given}: give that one as --judge.")
        settings |= {"reference": reference.kind}
        arms |= {f"{arm}{SAYS}{reference.kind}": own for arm, own in arms.items()}

    def answer(arm: str, some: Sequence[Answer]) -> list[dict[str, Any]]:
        said = [reference.say(one.record, out, arm) if reference and SAYS in arm else one.record for one in some]
        return [_measured(record, measures) for record in said]

    found = run_items(out / "speech.jsonl", settings, runs_mark(runs), arms, 1, answer)
    if failed := failures(found[1]):
        tell(f"{failed} answers were not measured; {out / 'speech.jsonl'} says why")
    return speech_tables(*found)


def _measured(item: dict[str, Any], measures: Sequence[Measure]) -> dict[str, Any]:
    """Return what is written about the sound of one answer, with its word errors and signal checks of the qa run."""
    names = ("text", "transcript", "words", "word_edits", "characters", "character_edits", "audio_seconds", "signal")
    record = {name: item[name] for name in names if name in item}
    if not item.get("audio"):
        return record | {"measures": {}, "error": item.get("error") or "the answer is silent"}
    path = Path(item["folder"]) / item["audio"]

    def measured() -> dict[str, float]:
        wave = load_audio(path)
        return {name: value for measure in measures for name, value in measure(wave).items()}

    found = attempt(measured)
    failed = isinstance(found, Failure)
    return record | {"audio": str(path), "measures": {} if failed else found, "error": found.reason if failed else ""}


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
    rows: list[tuple[str, ...]] = []

    def add(name: str, n: int, means: Iterable[float], change: str) -> None:
        ours, theirs = means
        rows.append((arm, name, str(n), f"{ours:.2f}", f"{theirs:.2f} ({kind})", change))

    def values(key: str, name: str) -> np.ndarray:
        found = [[one[key][name] for one in two] for two in both if all(name in (one.get(key) or {}) for one in two)]
        return np.array(found, float).reshape(-1, 2).T

    for name in dict.fromkeys(name for side in zip(*both, strict=True) for item in side for name in item["measures"]):
        measured_2N = values("measures", name)
        if measured_2N.size:
            change = decimals(stats.difference(*measured_2N), signed=True)
            add(name, measured_2N.shape[1], measured_2N.mean(axis=1), change)
    words = sum(other["words"] for _, other in both)
    if words:
        rates = (100 * sum(two[side]["word_edits"] for two in both) / words for side in (0, 1))
        add("WER %", len(both), rates, decimals(rates_between(both), signed=True))
    ours, theirs = values("signal", "speech_seconds")
    if len(ours):
        rates = values("signal", "words_per_second").mean(axis=1)
        add("speaking rate", len(ours), rates, f"{percent(stats.ratio(theirs, ours))} %")
    return rows
