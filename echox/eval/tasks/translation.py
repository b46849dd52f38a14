"""`echox eval translation`: spoken translations heard by a judge: ASR-BLEU and ASR-chrF with signatures (arXiv 2107.05604).

    recording ──model──► speech ──judge──► text ──BLEU, chrF, word errors──► against the reference text
    reference speech ───────────judge──► text        the ceiling: what the judge loses by itself
    recording ──recogniser that translates──► text ──voice──► speech      the cascade that a user would take instead

An arm is a model, `reference` or `cascade`; all hear the same recordings. Units are scored where an arm makes them and the
reference speech can be written in units of its codebook. Each later model is compared with the first by sacrebleu's paired
bootstrap. With `--tasks` models write instead, and no judge hears them: written.py.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from echox.assistant import SpeechAssistant
from echox.audio import SAMPLE_RATE, load_audio
from echox.data.pairs import SpokenPair
from echox.errors import ConfigError, require
from echox.eval.judges import Judge
from echox.eval.model_under_test import NO_SOUND, RECORDED, Failure, at_16k, attempt
from echox.eval.questions import Item, fingerprint, save_sound, take
from echox.eval.results import Results
from echox.eval.scorers.texts import NORMALISER, bleu, bleu_interval, chrf, compare, errors_between, normaliser_of
from echox.eval.tables import Items, Table, arm_table, by_arm, failures, pooled_rate, shared
from echox.eval.tasks.latency import peak_memory
from echox.generate.types import Reply
from echox.prepare.encode import EncoderSettings, load_encode
from echox.text.bleu import unit_bleu
from echox.text.normalize import whisper_basic
from echox.translator import SpeechTranslator, is_translator
from echox.units.extractor import CENTROIDS_FILE, extract, load_centroids

CEILING, CASCADE = "reference", "cascade"
BATCH = 8
MEANING = (
    "RTF: seconds of work a second of the source. Unit BLEU: against the reference speech as units of the model's own. "
    "Peak MiB: of the process so far, judge and all models included; measure a model alone for its own."
)
UnitsOf = Callable[[Sequence[np.ndarray]], list[list[int]]]
"""Waves at 16 kHz to their de-duplicated units."""
LENGTHS = ((1, 5), (6, 9), (10, 10_000))  # words of a reference: rows of the table by length


@dataclass(frozen=True)
class Arm:
    """What translates a pair's recording, and for units what writes reference speech in them."""

    translate: Callable[[SpokenPair], Reply]
    units_of: UnitsOf | None = None


@dataclass(frozen=True)
class TranslationOptions:
    """Where results go, what the pairs are called, what else results depend on, and how many pairs are wanted."""

    out: Path
    source: str
    how: dict[str, Any] = field(default_factory=dict)  # settings by name; `language` is the one that is spoken
    limit: int | None = None


def cascade_arm(recogniser: Judge, assistant: Any) -> Arm:
    """Return the arm of a recogniser that translates into text, which `assistant` says."""

    def translate(pair: SpokenPair) -> Reply:
        started = time.perf_counter()
        text = recogniser.transcribe([load_audio(pair.audio)])[0].strip()
        reply = assistant.say(text) if text else Reply("", "", NO_SOUND, SAMPLE_RATE)
        reply.wall_seconds = time.perf_counter() - started
        return reply

    return Arm(translate)


def load_models(models: Sequence[str], device: str, dtype: str | None) -> dict[str, SpeechTranslator]:
    """Return the models by their folders' names; ConfigError for two of one name."""
    names = [Path(name).name for name in models]
    if len(set(names)) < len(names) or {CEILING, CASCADE} & set(names):
        named = ", ".join(names)
        raise ConfigError(f"models are told apart by their folders' names, and these are {named}: rename one.")
    return {name: SpeechTranslator.load(model, device, dtype) for name, model in zip(names, models, strict=True)}


def load_arms(
    models: Sequence[str], cascade: Judge | None, device: str, dtype: str | None, beams: int | None, encoder: str = ""
) -> dict[str, Arm]:
    """Return an arm of every model and of the cascade; ConfigError for none at all, or as in `load_models`.

    `encoder` is that of the models' units, where they do not bring it.
    """
    if not models and cascade is None:
        raise ConfigError("there is nothing to measure: give --model or --cascade.")
    arms = {
        name: Arm(lambda pair, one=one: one.translate(pair.audio, beams=beams), units_of(one, encoder))
        for name, one in load_models(models, device, dtype).items()
    }
    return arms if cascade is None else arms | {CASCADE: cascade_arm(cascade, SpeechAssistant.load("mini", device))}


def units_of(translator: Any, encoder: str | Path = "") -> UnitsOf | None:
    """Return the extractor of a `SpeechTranslator`'s target units; None for a model that has none, or whose encoder is not there.

    `encoder` is the one that the units were made with; a model that shares a shipped voice finds it there. ModelError or
    ConfigError where they do not fit.
    """
    voice: Path | None = getattr(translator.model, "voice", None)
    if voice is None or not (voice / "units" / CENTROIDS_FILE).is_file():
        return None
    if not encoder and is_translator(voice):  # its encoder, if any, hears the other language
        return None
    centroids_KD, meta = load_centroids(voice / "units")
    made_with = {"encoder": str(encoder or voice / "encoder"), "layer": meta.layer, "window": meta.window}
    encode, _ = load_encode(EncoderSettings.parse(made_with, str(voice / "units")))
    return lambda waves: [found.ids.tolist() for found in extract(encode, centroids_KD, list(waves))]


def pairs_mark(pairs: Sequence[SpokenPair]) -> str:
    """Return 16 hexadecimal digits that change when any id, text or recording of pairs does."""
    sides = [(pair, sound) for pair in pairs for sound in (pair.audio, pair.target_audio)]
    return fingerprint([Item(pair.id, pair.source_text, (pair.target_text,), sound) for pair, sound in sides])


def run_translation(
    pairs: Sequence[SpokenPair], arms: dict[str, Arm], judge: Judge, options: TranslationOptions
) -> list[Table]:
    """Return the tables of all arms over all pairs, writing translation.jsonl and the speech; a run that was stopped goes on."""
    require("sacrebleu", "eval")
    wanted = take(pairs, options.limit)
    if all(pair.target_audio is not None for pair in wanted):
        arms = {CEILING: Arm(lambda pair: Reply("", "", load_audio(pair.target_audio or Path()), SAMPLE_RATE))} | arms
    settings = {"task": "translation", "model": ", ".join(arms), "questions": options.source, "judge": judge.name}
    settings |= {"wer_normaliser": normaliser_of(options.how.get("language", "en")), **options.how}

    def answer(name: str, some: Sequence[SpokenPair]) -> Iterator[dict[str, Any]]:
        made = [_said(pair, name, arms[name], options.out) for pair in some]
        texts, memory = judge.transcribe([wave for wave, _ in made]), peak_memory()
        for pair, (_, facts), text in zip(some, made, texts, strict=True):
            record = {"id": pair.id, "reference": pair.target_text, "transcript": text, **facts, **memory}
            yield record | errors_between(pair.target_text, text, settings["wer_normaliser"])

    results = Results(options.out / "translation.jsonl", settings | {"questions_mark": pairs_mark(pairs)})
    return translation_tables(*results.fill(dict.fromkeys(arms, wanted), BATCH, answer))


def _said(pair: SpokenPair, name: str, arm: Arm, out: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Return what is heard of a pair's translation, and its facts; a recording that fails counts as nothing said."""
    facts: dict[str, Any] = {"seconds": 0.0, "wall_seconds": 0.0, "source_seconds": 0.0, "units": [], "error": ""}
    heard, units_of, target = NO_SOUND, arm.units_of, pair.target_audio
    if units_of is not None and target is not None:
        units = attempt(lambda: units_of([load_audio(target)])[0])
        facts |= {} if isinstance(units, Failure) else {"reference_units": units}
    try:
        if name != CEILING:
            facts["source_seconds"] = len(load_audio(pair.audio)) / SAMPLE_RATE
        said = arm.translate(pair)
        wave, rate = NO_SOUND if said.audio is None else said.audio, said.sample_rate
        if name != CEILING and len(wave):
            save_sound(out / "audio" / name, pair.id, wave, rate)
        facts |= {"seconds": len(wave) / rate, "wall_seconds": said.wall_seconds, "units": list(said.units)}
        heard = at_16k(wave, rate)
    except RECORDED as error:
        facts["error"] = str(error)[:200]
    return heard, facts


def translation_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the scores by arm, by length, and the paired comparisons with the first model."""
    arms = by_arm(items)
    named = "; ".join(score(*normalised(items)).signature for score in (bleu, chrf)) if items else ""
    judge = f"Judge {settings['judge']}; BLEU and chrF: both sides normalised (whisper-basic); {named}"
    note = f"{judge}; WER: {settings.get('wer_normaliser', NORMALISER)}. {MEANING}"
    found = [arm_table("Translation", arms, _scores, note), arm_table("By length", arms, _by_length, judge)]
    (first, *others) = [arm for arm in arms if arm not in (CEILING, CASCADE)] or [""]
    return found + against([(other, first) for other in others], arms, normalised, judge)


def normalised(items: Items) -> tuple[list[str], list[str]]:
    """Return what was heard and the references of some items, both as they are scored."""
    normalise = whisper_basic()
    return [normalise(i["transcript"]).strip() for i in items], [normalise(i["reference"]).strip() for i in items]


def _scores(items: Items) -> dict[str, str]:
    """Return the cells of an arm: scores, word errors, pace, speed, its own units, memory, failures."""
    said, meant = normalised(items)
    low, high = bleu_interval(said, meant)
    spoken, work, source = (sum(item[name] for item in items) for name in ("seconds", "wall_seconds", "source_seconds"))
    words = sum(len(item["transcript"].split()) for item in items)
    written = [item for item in items if "reference_units" in item]
    units = unit_bleu([i["units"] for i in written], [i["reference_units"] for i in written]) if written else None
    memory = max(item.get("peak_cuda_mib", item.get("peak_rss_mib", 0.0)) for item in items)
    return {
        "ASR-BLEU": f"{bleu(said, meant).score:.1f} [{low:.1f}, {high:.1f}]",
        "ASR-chrF": f"{chrf(said, meant).score:.1f}",
        "WER %": pooled_rate(items, "word_edits", "words"),
        "words/s": f"{words / spoken:.2f}" if spoken else "-",
        "RTF": f"{work / source:.3f}" if work and source else "-",
        "unit BLEU": "-" if units is None else f"{units:.1f}",
        "peak MiB": f"{memory:.0f}" if memory else "-",
        "failed": str(failures(items)),
    }


def _by_length(items: Items) -> dict[str, str]:
    cells = {}
    for low, high in LENGTHS:
        some = [item for item in items if low <= len(item["reference"].split()) <= high]
        name = f"{low} words and more" if high > 1000 else f"{low}-{high} words"
        cells[name] = f"{bleu(*normalised(some)).score:.1f} (n={len(some)})" if some else "-"
    return cells


def against(
    pairs: Sequence[tuple[str, str]],
    arms: Mapping[str, Items],
    texts: Callable[[Items], tuple[list[str], list[str]]],
    note: str,
) -> list[Table]:
    """Return a table of each arm's BLEU against another's over the items of both, as `texts` gives them; none without pairs."""
    rows = []
    for one, other in pairs:
        both = shared(sorted(arms.get(one, ()), key=lambda item: item["id"]), arms.get(other, ()))
        if both:
            said, wanted = texts([first for first, _ in both])
            found = compare(texts([second for _, second in both])[0], said, wanted)
            scores = [f"{found[side]:.2f} ± {found[f'{side}_half_width']:.2f}" for side in ("system", "baseline")]
            ratio = found["system"] / found["baseline"] if found["baseline"] else float("nan")
            difference = f"{found['system'] - found['baseline']:+.2f}"
            rows.append((one, other, str(len(both)), *scores, difference, f"{ratio:.3f}", f"{found['p']:.3f}"))
    head = ("arm", "against", "n", "BLEU", "its BLEU", "difference", "ratio", "p")
    table = Table("Against the first model", head, tuple(rows), f"Paired bootstrap of sacrebleu. {note}")
    return [table] if rows else []
