"""`echox eval hearing`: the words a model took an utterance for, against the true ones and beside a recogniser's.

Utterances are those of a spoken set or of a corpus, whose words are known, or recordings without transcripts, which a better
recogniser writes down first: it must be neither the one beside nor one that labelled training data. No answer is made: a model
with an ear is asked for its hearing alone (`hear_all`). A model that hears words in sounds in which nobody speaks, made from a
seed, invents:

    silence   the floor of an empty recording      hum      mains and its overtones
    noise     white or pink                         chords   plucked triads, one after another
    clicks    single decaying knocks at random moments
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import SAMPLE_RATE
from echox.data.tables import lines_of
from echox.errors import ConfigError, InputError
from echox.eval import stats
from echox.eval.judges import FULL_WINDOW, Judge, load_judge
from echox.eval.model_under_test import RECORDED, Failure, ask_all, attempt, sounds_of, through
from echox.eval.questions import Item, check_questions, fingerprint, load_question, read_corpus, take
from echox.eval.results import Results, results_path
from echox.eval.scorers.texts import NORMALISER, errors_between
from echox.eval.tables import Items, Table, arm_table, by_arm, decimals, failures, percent, pooled_rate
from echox.eval.tasks.spoken_set import read_set
from echox.files import JSON_BYTES, read_text
from echox.generate.types import Question
from echox.prepare.filters import SOUND_FILES, recordings_below
from echox.prepare.perturb import at_peak, coloured_noise
from echox.prepare.speak import generator
from echox.text.normalize import whisper_english

BATCH = 8
LABELS_BEAM = 5
UNKNOWN = ""  # the words of a clip that nobody has written down yet
NOTHING = "nothing said: "  # arms of sounds without speech begin with this
SECONDS = (1.0, 10.0)
PEAK_DBFS = (-30.0, -3.0)
FLOOR_DBFS = (-70.0, -50.0)
TRIADS = ((0, 4, 7), (0, 3, 7), (0, 5, 9), (0, 4, 7, 10))
Recognisers = tuple[Judge, Judge | None]
"""The recogniser that stands beside the model, and the one that writes down clips (None without clips)."""


def load_recognisers(reference: str, beam: int, labeller: str, device: str) -> Recognisers:
    """Return both recognisers in Whisper's own window, the second with a beam of its own; ConfigError when they are one."""
    if reference == labeller:
        raise ConfigError(f"{reference} cannot stand beside the model and write down its clips: give another --judge.")
    found = load_judge(reference, device, FULL_WINDOW, beam=beam)
    return found, load_judge(labeller, device, FULL_WINDOW, beam=LABELS_BEAM) if labeller else None


def gather(
    spoken: Path | None,
    conditions: Sequence[str],
    manifests: Sequence[Path],
    clips: Sequence[Path],
    only: Path | None,
    nothing: int,
) -> dict[str, list[Item]]:
    """Return utterances by condition, corpus or folder, and `nothing` sounds of each kind, by the arms that they make.

    Raises ConfigError when there is nothing to hear, InputError for a set that is not whole, a corpus with faults or a folder
    without clips.
    """
    found: dict[str, list[Item]] = {}
    if spoken is not None:
        found = {name: items for items, name, _ in (read_set(spoken, condition) for condition in conditions)}
    corpora = [(path.resolve(), partial(read_corpus, path)) for path in manifests]
    recorded = [(path.parent if path.stem == "manifest" else path.with_suffix(""), read) for path, read in corpora]
    recorded += [(path.resolve(), partial(read_clips, path, only)) for path in clips]
    for folder, read in recorded:
        if folder.name in found:
            raise ConfigError(f"recordings are told apart by folder, and two are called {folder.name}: rename one.")
        found[folder.name] = read()
    if not found and not nothing:
        raise ConfigError("there is nothing to hear: give --set, --manifest, --clips or --nothing.")
    for kind in KINDS if nothing else ():
        found[NOTHING + kind] = [Item(f"{kind}-{n}", UNKNOWN, (), kind=kind) for n in range(nothing)]
    return found


def read_clips(folder: Path, only: Path | None = None) -> list[Item]:
    """Return recordings below a folder as items by path, those in `only` if given; InputError for none, or two of one path."""
    wanted = None if only is None else {line.strip() for line in lines_of(read_text(only, JSON_BYTES))}
    paths = [path for path in recordings_below(folder) if wanted is None or path.stem in wanted]
    if not paths:
        listed = f" that {only} lists" if only is not None else ""
        kinds = ", ".join(SOUND_FILES)
        raise InputError(f"{folder} holds no recordings{listed} ({kinds}): correct the folder or the list.")
    found = [Item(path.relative_to(folder).with_suffix("").as_posix(), UNKNOWN, ("-",), path) for path in paths]
    check_questions(found, folder, need_audio=True)
    return found


def _hum(count: int, rng: np.random.Generator) -> np.ndarray:
    base, seconds = float(rng.choice([50.0, 60.0])), np.arange(count) / SAMPLE_RATE
    strengths = rng.random(8) / np.arange(1, 9)
    tones = [s * np.sin(2 * np.pi * base * n * seconds + rng.uniform(0, 6)) for n, s in enumerate(strengths, start=1)]
    return np.sum(tones, axis=0)


def _chords(count: int, rng: np.random.Generator) -> np.ndarray:
    wave, start = np.zeros(count), 0
    while start < count:
        seconds = np.arange(count - start) / SAMPLE_RATE
        root = 220 * 2 ** (int(rng.integers(-12, 13)) / 12)
        for step in TRIADS[int(rng.integers(len(TRIADS)))]:
            tone = root * 2 ** (step / 12)
            overtones = sum(np.sin(2 * np.pi * tone * n * seconds) / n**1.5 for n in (1, 2, 3, 4))
            wave[start:] += overtones * np.exp(-3 * seconds)
        start += int(rng.uniform(0.3, 1.5) * SAMPLE_RATE)
    return wave


def _clicks(count: int, rng: np.random.Generator) -> np.ndarray:
    wave = 1e-3 * rng.standard_normal(count)
    for place in rng.integers(count, size=max(1, rng.poisson(2 * count / SAMPLE_RATE))):
        seconds = np.arange(min(count - place, SAMPLE_RATE // 20)) / SAMPLE_RATE
        knock = rng.standard_normal(len(seconds))
        wave[place : place + len(seconds)] += knock * np.exp(-seconds * rng.uniform(100, 800))
    return wave


KINDS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "silence": lambda count, rng: rng.standard_normal(count),
    "noise": lambda count, rng: coloured_noise(count, str(rng.choice(["white", "pink"])), rng),
    "hum": _hum,
    "chords": _chords,
    "clicks": _clicks,
}


def no_speech(kind: str, number: int) -> np.ndarray:
    """Return one sound of a kind in `KINDS`, float32 at 16 kHz, 1 to 10 s; the same for the same number."""
    rng = generator(0, "no-speech", kind, str(number))
    count = int(rng.uniform(*SECONDS) * SAMPLE_RATE)
    wave = KINDS[kind](count, rng)
    return at_peak(np.asarray(wave), float(rng.uniform(*(FLOOR_DBFS if kind == "silence" else PEAK_DBFS))))


def hear_all(subject: Any, waves: Sequence[np.ndarray]) -> list[Any]:
    """Return what each wave (float32 at 16 kHz) was taken for, or a Failure; a model without our parts answers in text."""
    ear: Any = getattr(getattr(subject, "parts", None), "ear", None)
    if ear is None:
        answers = ask_all(subject, [Question(wave) for wave in waves], text_only=True)
        return [one if isinstance(one, Failure) else str(getattr(one, "heard", "") or "") for one in answers]
    try:
        return [one.text for one in ear.hear(list(waves))]
    except RECORDED:  # one of them cannot be heard: find which
        return [attempt(lambda wave=wave: ear.hear([wave])[0].text) for wave in waves]


def run_hearing(
    subject: Any,
    name: str,
    arms: dict[str, list[Item]],
    recognisers: Recognisers,
    out: Path,
    tell: Callable[[str], None],
    limit: int | None = None,
    shard: str = "0/1",
) -> list[Table]:
    """Hear what `hearing.jsonl` does not hold yet and return its tables."""
    spoken = [item for arm, items in arms.items() if not arm.startswith(NOTHING) for item in items]
    reference, labeller = recognisers
    settings: dict[str, Any] = {"task": "hearing", "model": name, "reference": reference.name}
    settings |= {"labels": labeller.name if labeller else "", "wer_normaliser": NORMALISER}
    settings |= {"arms": [arm.removeprefix(NOTHING) for arm in arms], "shard": shard}
    settings |= {"questions_mark": fingerprint(spoken)}
    asked, path = {arm: take(items, limit, shard) for arm, items in arms.items()}, results_path(out, shard, "hearing")
    found = Results(path, settings).fill(asked, BATCH, partial(_hear, subject, recognisers))
    if failed := failures(found[1]):
        tell(f"{failed} recordings were not heard; {path} says why")
    return hearing_tables(*found)


def _hear(subject: Any, recognisers: Recognisers, arm: str, some: Sequence[Item]) -> Iterator[dict[str, Any]]:
    silent, texts = arm.startswith(NOTHING), [item.question for item in some]
    loaded = [no_speech(item.kind, int(item.id.rpartition("-")[2])) if silent else load_question(item) for item in some]
    heard, waves = through(loaded, partial(hear_all, subject)), sounds_of(loaded)
    reference, labeller = recognisers
    recognised = reference.transcribe(waves)
    if labeller is not None and UNKNOWN in texts and not silent:
        texts = labeller.transcribe(waves)
    for item, text, found, other in zip(some, texts, heard, recognised, strict=True):
        error, said = (found.reason, "") if isinstance(found, Failure) else ("", found)
        own, beside = errors_between(text, said), errors_between(text, other)
        record = {"id": item.id, "text": text, "heard": said, "recognised": other, "words": own["words"]}
        record |= {"word_edits": own["word_edits"], "recognised_edits": beside["word_edits"]}
        words, others = (len(whisper_english()(each).split()) for each in (said, other))
        yield record | {"heard_words": words, "recognised_words": others, "error": error}


def hearing_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the word errors over speech and the share of sounds without speech in which words were heard."""
    arms = by_arm(items)
    note = f"{settings['model']} beside {settings['reference']}. "
    labels = f"Clips without transcripts: the words of {settings['labels']}. " if settings.get("labels") else ""
    how = f"{settings['wer_normaliser']}; pooled over utterances, what failed counts as deleted; 95 % paired bootstrap."
    spoken = {arm: own for arm, own in arms.items() if not arm.startswith(NOTHING)}
    quiet = {arm.removeprefix(NOTHING): own for arm, own in arms.items() if arm not in spoken}
    quiet |= {"all": [item for own in quiet.values() for item in own]} if len(quiet) > 1 else {}
    seeded = f"{note}Sounds made from a seed; words after the same normaliser."
    tables = [arm_table("Hearing", spoken, _errors, note + labels + how, "recordings")]
    tables.append(arm_table("Nothing said", quiet, _invented, seeded, "sound"))
    return [table for table in tables if table.rows]


def _errors(items: Items) -> dict[str, str]:
    own, other = ([item[name] for item in items] for name in ("word_edits", "recognised_edits"))
    return {
        "words": str(sum(item["words"] for item in items)),
        "model WER %": pooled_rate(items, "word_edits", "words"),
        "recogniser WER %": pooled_rate(items, "recognised_edits", "words"),
        "model / recogniser": decimals(stats.ratio(own, other)),
        "failed": str(failures(items)),
    }


def _invented(items: Items) -> dict[str, str]:
    who = {"model": "heard_words", "recogniser": "recognised_words"}
    return {f"{one} hears words %": percent(stats.mean([item[n] > 0 for item in items])) for one, n in who.items()}
