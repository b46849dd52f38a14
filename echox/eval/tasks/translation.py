"""`echox eval translation`: spoken translations heard by a judge: ASR-BLEU and ASR-chrF with signatures (arXiv 2107.05604).

    recording ──model──► speech ──judge──► text ──BLEU, chrF, word errors──► against the reference text
    reference speech ───────────judge──► text        the ceiling: what the judge loses by itself
    recording ──recogniser that translates──► text ──voice──► speech      the cascade that a user would take instead

An arm is a model, `reference` or `cascade`; all hear the same recordings, and each later model is compared with the first one by
sacrebleu's paired bootstrap. Units are scored where an arm makes them and the references' units are known (unit_references.py).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from echox.assistant import SpeechAssistant
from echox.audio import SAMPLE_RATE, load_audio, save_wav
from echox.data.pairs import SpokenPair
from echox.errors import ConfigError, require
from echox.eval import stats
from echox.eval.judges import Judge
from echox.eval.model_under_test import NO_SOUND, RECORDED, at_16k
from echox.eval.questions import names_in
from echox.eval.results import Results
from echox.eval.scorers.opinions import Measure, distillmos, dnsmos
from echox.eval.scorers.translation import bleu, bleu_interval, chrf, compare
from echox.eval.scorers.word_errors import errors_between
from echox.eval.tables import Items, Table, by_arm, decimals, failures, pooled_rate, shared
from echox.eval.tasks.latency import peak_memory
from echox.eval.tasks.unit_references import UnitsOf, units_of
from echox.generate.types import Reply
from echox.text.bleu import unit_bleu
from echox.text.normalize import whisper_basic
from echox.translator import SpeechTranslator

CEILING, CASCADE = "reference", "cascade"
BATCH = 8
MEANING = (
    "RTF: seconds of work a second of the source. Unit BLEU: against the reference speech as units of the model's own. "
    "Peak MiB: of the process so far, judge and all models included; measure a model alone for its own."
)
LENGTHS = ((1, 5), (6, 9), (10, 10_000))  # words of a reference: rows of the table by length


@dataclass(frozen=True)
class Arm:
    """What translates a recording, and for units what writes reference speech in them."""

    translate: Callable[[Path], Reply]
    units_of: UnitsOf | None = None


@dataclass(frozen=True)
class TranslationOptions:
    """Where results go, what the judge and the pairs are called, and what else is measured of the speech."""

    out: Path
    judge: Judge
    source: str
    opinions: tuple[Measure, ...] = ()
    weights: str = ""  # the models' marks


def model_arm(translator: Any, beams: int | None, units_of: UnitsOf | None = None) -> Arm:
    """Return an arm that asks a `SpeechTranslator`."""
    return Arm(lambda path: translator.translate(path, beams=beams), units_of)


def cascade_arm(recogniser: Judge, assistant: Any) -> Arm:
    """Return the arm of a recogniser that translates into text, which `assistant` says."""

    def translate(path: Path) -> Reply:
        started = time.perf_counter()
        text = recogniser.transcribe([load_audio(path)])[0].strip()
        reply = assistant.say(text) if text else Reply("", "", NO_SOUND, SAMPLE_RATE)
        reply.wall_seconds = time.perf_counter() - started
        return reply

    return Arm(translate)


def load_arms(
    models: Sequence[str], cascade: Judge | None, device: str, dtype: str | None, beams: int | None, encoder: str = ""
) -> dict[str, Arm]:
    """Return an arm of every model, by its folder's name, and of the cascade; ConfigError for two of one name, or none at all.

    `encoder` is that of the models' units, where they do not bring it.
    """
    names = [Path(name).name for name in models]
    if len(set(names)) < len(names) or {CEILING, CASCADE} & set(names):
        raise ConfigError(
            f"models are told apart by their folders' names, and these are {', '.join(names)}: rename one."
        )
    if not names and cascade is None:
        raise ConfigError("there is nothing to measure: give --model or --cascade.")
    loaded = {name: SpeechTranslator.load(model, device, dtype) for name, model in zip(names, models, strict=True)}
    arms = {name: model_arm(one, beams, units_of(one, encoder)) for name, one in loaded.items()}
    return arms if cascade is None else arms | {CASCADE: cascade_arm(cascade, SpeechAssistant.load("mini", device))}


def opinions_of(networks: str) -> tuple[Measure, ...]:
    """Return the opinion networks called, comma-separated, dnsmos and distillmos; ConfigError for another."""
    known: dict[str, Callable[[], Measure]] = {"dnsmos": dnsmos, "distillmos": distillmos}
    names = names_in(networks)
    for name in names:
        if name not in known:
            raise ConfigError(f"network {name!r} is unknown: choose {' or '.join(known)}.")
    return tuple(known[name]() for name in names)


def run_translation(pairs: Sequence[SpokenPair], arms: dict[str, Arm], options: TranslationOptions) -> list[Table]:
    """Return the tables of all arms over all pairs, writing translation.jsonl and the speech; a run that was stopped goes on."""
    require("sacrebleu", "eval")
    if all(pair.target_audio is not None for pair in pairs):
        arms = {CEILING: _reference_of({pair.audio: pair for pair in pairs})} | arms
    settings = {"task": "translation", "model": ", ".join(arms), "questions": options.source}
    settings |= {"judge": options.judge.name, "weights": options.weights}
    with Results(options.out / "translation.jsonl", settings) as results:
        for name, arm in arms.items():
            (options.out / "audio" / name).mkdir(parents=True, exist_ok=True)
            for some in results.batches(name, pairs, BATCH):
                _hear(some, name, arm, options, results)
        return translation_tables(results.settings, results.rows)


def _hear(pairs: Sequence[SpokenPair], name: str, arm: Arm, options: TranslationOptions, results: Results) -> None:
    """Translate some pairs and write down what the judge hears; a recording that fails counts as nothing said."""
    made: list[tuple[np.ndarray, dict[str, Any]]] = []
    for pair in pairs:
        facts: dict[str, Any] = {"seconds": 0.0, "wall_seconds": 0.0, "units": [], "error": ""}
        facts["source_seconds"] = len(load_audio(pair.audio)) / SAMPLE_RATE
        heard = NO_SOUND
        try:
            said = arm.translate(pair.audio)
            wave, rate = NO_SOUND if said.audio is None else said.audio, said.sample_rate
            if name != CEILING and len(wave):
                save_wav(options.out / "audio" / name / f"{pair.id}.wav", wave, rate)
            facts |= {"seconds": len(wave) / rate, "wall_seconds": said.wall_seconds, "units": list(said.units)}
            heard = at_16k(wave, rate)
        except RECORDED as error:
            facts["error"] = str(error)[:200]
        made.append((heard, facts))
    memory, wanted = peak_memory(), _reference_units(pairs, arm)
    texts = options.judge.transcribe([wave for wave, _ in made])
    for pair, (wave, facts), text, units in zip(pairs, made, texts, wanted, strict=True):
        record = {"arm": name, "id": pair.id, "reference": pair.target_text, "transcript": text} | facts | memory
        record |= {} if units is None else {"reference_units": units}
        for score in options.opinions:
            record |= score(wave) if len(wave) else {}
        results.append(record | asdict(errors_between(pair.target_text, text)))


def _reference_units(pairs: Sequence[SpokenPair], arm: Arm) -> list[list[int] | None]:
    """Return the units of each pair's reference speech, where there is any and the arm can write them."""
    if arm.units_of is None:
        return [None] * len(pairs)
    waves = [load_audio(pair.target_audio) for pair in pairs if pair.target_audio is not None]
    found = iter(arm.units_of(waves) if waves else ())
    return [None if pair.target_audio is None else next(found) for pair in pairs]


def translation_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the scores by arm, by length, and the paired comparisons with the first model."""
    arms, rows, notes = by_arm(items), [], ""
    for arm, mine in arms.items():
        heard, wanted = normalised(mine)
        score, letters, (low, high) = bleu(heard, wanted), chrf(heard, wanted), bleu_interval(heard, wanted)
        notes = f"{score.signature}; {letters.signature}"
        scores = (f"{score.score:.1f} [{low:.1f}, {high:.1f}]", f"{letters.score:.1f}")
        rows.append((arm, str(len(mine)), *scores, *_facts(mine)))
    extra = [name for name in ("dnsmos", "distillmos") if any(name in item for item in items)]
    head = ("arm", "n", "ASR-BLEU", "ASR-chrF", "WER %", "words/s", "RTF", "unit BLEU", "peak MiB", "failed")
    judge = f"Judge {settings['judge']}; both sides normalised (whisper-basic); {notes}"
    found = [Table("Translation", head, tuple(rows), f"{judge}. {MEANING}")]
    if extra:
        means = [
            (arm, *(decimals(stats.mean([item[name] for item in mine if name in item])) for name in extra))
            for arm, mine in arms.items()
        ]
        found.append(Table("Voice", ("arm", *extra), tuple(means)))
    head = ("arm", *(f"{low} words and more" if high > 1000 else f"{low}-{high} words" for low, high in LENGTHS))
    found.append(Table("By length", head, tuple(map(_by_length, arms.items())), judge))
    models = [arm for arm in arms if arm not in (CEILING, CASCADE)]
    if len(models) > 1:
        found.append(_comparisons({arm: arms[arm] for arm in models}, judge))
    return found


def normalised(items: Items) -> tuple[list[str], list[str]]:
    """Return what was heard and the references of some items, both as they are scored."""
    normalise = whisper_basic()
    return [normalise(i["transcript"]).strip() for i in items], [normalise(i["reference"]).strip() for i in items]


def _facts(items: Items) -> tuple[str, ...]:
    spoken = sum(item["seconds"] for item in items)
    words = sum(len(item["transcript"].split()) for item in items)
    work, source = (sum(item[name] for item in items) for name in ("wall_seconds", "source_seconds"))
    pace = f"{words / spoken:.2f}" if spoken else "-"
    written = [item for item in items if "reference_units" in item]
    units = unit_bleu([i["units"] for i in written], [i["reference_units"] for i in written]) if written else None
    memory = max((item.get("peak_cuda_mib", item.get("peak_rss_mib", 0.0)) for item in items), default=0.0)
    speed = f"{work / source:.3f}" if work else "-"
    made = ("-" if units is None else f"{units:.1f}", f"{memory:.0f}" if memory else "-")
    return (pooled_rate(items, "word_edits", "words"), pace, speed, *made, str(failures(items)))


def _by_length(arm: tuple[str, Items]) -> tuple[str, ...]:
    cells = []
    for low, high in LENGTHS:
        some = [item for item in arm[1] if low <= len(item["reference"].split()) <= high]
        cells.append(f"{bleu(*normalised(some)).score:.1f} (n={len(some)})" if some else "-")
    return (arm[0], *cells)


def _comparisons(arms: dict[str, list[dict[str, Any]]], judge: str) -> Table:
    """Return each later model minus the first one over the pairs that both translated."""
    (first, own), *others = arms.items()
    rows = []
    for arm, items in others:
        both = shared(sorted(own, key=lambda item: item["id"]), items)
        base, wanted = normalised([one for one, _ in both])
        found = compare(base, normalised([other for _, other in both])[0], wanted)
        rows.append((arm, str(len(both)), f"{found['system'] - found['baseline']:+.2f}", f"{found['p']:.3f}"))
    head = ("arm", "n", "BLEU difference", "p")
    return Table(f"Against {first}", head, tuple(rows), f"{judge}; paired bootstrap.")


def _reference_of(pairs: dict[Path, SpokenPair]) -> Arm:
    def translate(path: Path) -> Reply:
        target = pairs[path].target_audio
        return Reply("", "", NO_SOUND if target is None else load_audio(target), SAMPLE_RATE)

    return Arm(translate)
