"""`echox eval translation`: spoken translations heard by a judge: ASR-BLEU and ASR-chrF with signatures (arXiv 2107.05604).

    recording ──model──► speech ──judge──► text ──BLEU, chrF, word errors──► against the reference text
    reference speech ───────────judge──► text        the ceiling: what the judge loses by itself
    recording ──recogniser that translates──► text ──voice──► speech      the cascade that a user would take instead

An arm is a model, `reference` or `cascade`; all hear the same recordings. Units are scored where an arm makes them and the
reference speech can be written in units of its codebook. Each later model is compared with the first by sacrebleu's paired
bootstrap. With `--tasks` models write instead, and no judge hears them:

    st       recording ─► translation            asr      recording ─► words
    mt       true transcript ─► translation      cascade  recording ─► words ─► translation, by the same model or by the first
    spaces   mean encoder states of recordings and of their transcripts (scorers/states.py)

Each later model is compared with the first: the text specialist, where the harm to text translation is measured. A model that reads
text only takes part in `mt`, and translates the words of the others in `cascade`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from echox.assistant import SpeechAssistant
from echox.audio import SAMPLE_RATE, load_audio
from echox.data.batching import groups
from echox.data.pairs import SpokenPair
from echox.errors import ConfigError, InputError, require
from echox.eval.judges import Judge
from echox.eval.model_under_test import NO_SOUND, RECORDED, Failure, at_16k, attempt, through
from echox.eval.questions import Item, fingerprint, save_sound, take
from echox.eval.results import OURS, Results
from echox.eval.scorers.states import Spaces, length_probe, modality_probe, retrieval
from echox.eval.scorers.texts import NORMALISER, bleu, bleu_interval, chrf, compare, errors_between, normaliser_of
from echox.eval.tables import Items, Table, arm_table, by_arm, failures, over_seeds, percent, pooled_rate, shared
from echox.eval.tasks.latency import peak_memory
from echox.files import refuse_others
from echox.generate.joint import JointTranslator
from echox.generate.translation import Wanted
from echox.generate.types import Reply
from echox.prepare.encode import EncoderSettings, load_encode
from echox.text.bleu import unit_bleu
from echox.text.normalize import whisper_basic
from echox.translator import SpeechTranslator, is_translator
from echox.units.extractor import CENTROIDS_FILE, extract, load_centroids

CEILING, CASCADE = "reference", "cascade"
TASKS = ("st", "mt", "asr", "cascade", "spaces")
WRITTEN = ("st", "mt", "cascade")  # what BLEU scores
BATCH, WRITTEN_BATCH = 8, 16
MEANING = (
    "RTF: seconds of work a second of the source. Unit BLEU: against the reference speech as units of the model's own. "
    "Peak MiB: of the process so far, judge and all models included; measure a model alone for its own."
)
UnitsOf = Callable[[Sequence[np.ndarray]], list[list[int]]]  # waves at 16 kHz to their de-duplicated units
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
    """Return an arm of every model (`encoder`: of units that do not bring it) and of the cascade; ConfigError for none at all."""
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


def load_writers(names: Sequence[str], device: str, dtype: str | None) -> dict[str, JointTranslator]:
    """Return the models by their folders' names; ConfigError for none, or for one that writes no text."""
    models: dict[str, Any] = {name: found.model for name, found in load_models(names, device, dtype).items()}
    if not models:
        raise ConfigError("there is nothing to measure: give --model.")
    for name, model in models.items():
        if not isinstance(model, JointTranslator):
            raise ConfigError(f"{name} writes no text: leave --tasks out to measure its speech.")
    return models


def run_tasks(
    pairs: Sequence[SpokenPair],
    models: Mapping[str, JointTranslator],
    names: Sequence[str],
    options: TranslationOptions,
    beams: int | None = None,
) -> tuple[list[Table], list[tuple[str, Spaces]]]:
    """Return the tables of the tasks of these `names`, writing tasks.jsonl, and the spaces of every model if they are among them.

    A run that was stopped goes on. Raises InputError for a pair without text.
    """
    require("sacrebleu", "eval")
    refuse_others(options.out, ["spaces.svg"], "tasks.jsonl", OURS)
    asked = take(pairs, options.limit)
    for pair in asked:
        if not pair.target_text or not pair.source_text:
            where = f"{options.source}: {pair.id}"
            raise InputError(f"{where} has no source_text or no target_text, and three tasks need both.")
    normaliser = normaliser_of(*(model.language for model in models.values()))
    settings = {"task": "tasks", "model": ", ".join(models), "questions": options.source}
    settings |= {"wer_normaliser": normaliser, "beams": beams or "own", **options.how}
    first, wanted = next(iter(models.values())), Wanted(beams)
    arms = {
        f"{name} {task}": (task, model)
        for name, model in models.items()
        for task in names
        if task == "mt" or (task != "spaces" and model.model.speech is not None)
    }

    def answer(arm: str, some: Sequence[SpokenPair]) -> Iterator[dict[str, Any]]:
        task, model = arms[arm]
        loaded = [pair.source_text if task == "mt" else attempt(partial(load_audio, pair.audio)) for pair in some]
        texts = through(loaded, partial(_written, task, model, first, wanted))
        for pair, found in zip(some, texts, strict=True):
            text, fault = ("", found.reason) if isinstance(found, Failure) else (found, "")
            reference = pair.source_text if task == "asr" else pair.target_text
            record = {"id": pair.id, "reference": reference, "text": text, "error": fault}
            yield record | errors_between(reference, text, normaliser)

    results = Results(options.out / "tasks.jsonl", settings | {"questions_mark": pairs_mark(pairs)})
    done, items = results.fill(dict.fromkeys(arms, asked), WRITTEN_BATCH, answer)
    tables = tasks_tables(done, [item for item in items if item["arm"].rpartition(" ")[2] in names])
    hearing = [(name, one) for name, one in models.items() if one.model.speech is not None and "spaces" in names]
    spaces = [(name, read_spaces(asked, one)) for name, one in hearing]
    return [*tables, *(spaces_tables(spaces) if spaces else [])], spaces


def _written(
    task: str, model: JointTranslator, first: JointTranslator, wanted: Wanted, given: Sequence[Any]
) -> list[str]:
    """Return what a model writes in one task of waves, or of texts in `mt`."""
    if task in ("st", "mt"):
        translate = model.translate if task == "st" else model.translate_texts
        return [one.text for one in translate(given, wanted)]
    words = model.transcribe(given)
    if task == "asr":
        return words
    said = iter(first.translate_texts([text for text in words if text], wanted) if any(words) else [])
    return [next(said).text if text else "" for text in words]


def tasks_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return scores by model and task, and each later model against the first on the tasks of both."""
    arms, models = by_arm(items), settings["model"].split(", ")
    rows, note, numbers = [], "", dict[str, float]()
    for arm, mine in arms.items():
        if arm.endswith(" asr"):
            cells = ("-", "-", pooled_rate(mine, "word_edits", "words"))
            numbers[arm] = 100 * sum(one["word_edits"] for one in mine) / max(1, sum(one["words"] for one in mine))
        else:
            score, letters = bleu(*_texts(mine)), chrf(*_texts(mine))
            note = f"{score.signature}; {letters.signature}; word errors of recognition alone: "
            note += settings.get("wer_normaliser", NORMALISER)
            cells, numbers[arm] = (f"{score.score:.2f}", f"{letters.score:.1f}", "-"), score.score
        rows.append((arm, str(len(mine)), *cells, str(failures(mine))))
    found = [Table("Three tasks", ("arm", "n", "BLEU", "chrF", "WER %", "failed"), tuple(rows), note)]
    found += over_seeds(numbers, "BLEU; of recognition (asr) word errors in %.")
    pairs = [(f"{name} {task}", f"{models[0]} {task}") for name in models[1:] for task in WRITTEN]
    pairs += [(f"{name} st", f"{models[0]} mt") for name in models]
    return found + against(pairs, arms, _texts, note)


def _texts(items: Items) -> tuple[list[str], list[str]]:
    return [item["text"] for item in items], [item["reference"] for item in items]


def read_spaces(pairs: Sequence[SpokenPair], model: JointTranslator) -> Spaces:
    """Return the mean encoder states of the recordings that can be read and of their transcripts."""
    means: list[list[np.ndarray]] = [[], []]
    lengths: list[list[int]] = [[], []]
    for batch in groups(pairs, WRITTEN_BATCH):
        loaded = [(pair, attempt(partial(load_audio, pair.audio))) for pair in batch]
        some = [both for both in loaded if not isinstance(both[1], Failure)]
        if not some:
            continue
        speech, _ = model.speech_states([wave for _, wave in some])
        for side, states in enumerate((speech, model.text_states([pair.source_text for pair, _ in some]))):
            for row, mask in zip(states.states_BNW, states.mask_BN, strict=True):
                means[side].append(row[mask].float().mean(0).cpu().numpy())
                lengths[side].append(int(mask.sum()))
    return Spaces(*map(np.array, (*means, *lengths)))


def spaces_tables(models: Sequence[tuple[str, Spaces]]) -> list[Table]:
    """Return the probes and the retrieval of every model, and over seeds."""
    measures = {"probe": modality_probe, "lengths": length_probe, "retrieval": retrieval}
    found = {name: {kind: measure(one) for kind, measure in measures.items()} for name, one in models}
    rows = [(name, str(len(one.text_NH)), *map(percent, found[name].values())) for name, one in models]
    note = "Fresh linear probes, five folds over sentences: speech or text? 50 % is chance; by length alone beside it."
    head = ("model", "n", "modality probe %", "length probe %", "retrieval %")
    numbers = {f"{name} {kind}": 100 * one.value for name, mine in found.items() for kind, one in mine.items()}
    return [Table("Spaces", head, tuple(rows), note), *over_seeds(numbers, "In %.")]
