"""`echox eval hearing`: the words a model took an utterance for, against the true ones and beside a recogniser's.

Utterances are those of a spoken set, whose words are known, or recordings without transcripts, which a better recogniser
writes down first: it must be neither the one beside nor one that labelled training data. Sounds without speech show what
a model invents. No answer is made: a model with an ear is asked for its hearing alone (`hear_all`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from echox.errors import ConfigError, InputError
from echox.eval import stats
from echox.eval.judges import FULL_WINDOW, Judge, load_judge
from echox.eval.model_under_test import RECORDED, Failure, ask_all, attempt, sounds_of
from echox.eval.no_speech import KINDS, no_speech
from echox.eval.questions import Item, fingerprint, load_question, take
from echox.eval.results import Results, results_path
from echox.eval.scorers.word_errors import NORMALISER, errors_between
from echox.eval.tables import Items, Table, by_arm, decimals, failures, percent
from echox.eval.tasks.spoken_set import read_set
from echox.files import JSON_BYTES, read_text
from echox.generate.types import Question
from echox.prepare.filters import SOUND_FILES, recordings_below
from echox.text.normalize import whisper_english

BATCH = 8
UNKNOWN = ""
"""The words of a clip that nobody has written down yet."""
NOTHING = "nothing said: "
"""Arms of sounds without speech begin with this."""


@dataclass(frozen=True)
class Recognisers:
    """The recogniser that stands beside the model, and the one that writes down clips (None without clips)."""

    reference: Judge
    labeller: Judge | None = None

    @classmethod
    def load(cls, reference: str, reference_beam: int, labeller: str, labeller_beam: int, device: str) -> "Recognisers":
        """Load both in Whisper's own window; raise ConfigError when they are one."""
        if reference == labeller:
            raise ConfigError(
                f"{reference} cannot stand beside the model and write down its clips: give another --judge."
            )
        where = "cuda" if device == "cuda" else "cpu"
        found = load_judge(reference, where, FULL_WINDOW, beam=reference_beam)
        return cls(found, load_judge(labeller, where, FULL_WINDOW, beam=labeller_beam) if labeller else None)


def gather(
    spoken: Path | None, conditions: Sequence[str], clips: Sequence[Path], only: Path | None, nothing: int
) -> dict[str, list[Item]]:
    """Return utterances by condition or folder, and `nothing` sounds of each kind, by the arms that they make.

    Raises ConfigError when there is nothing to hear, InputError for a set that is not whole or a folder without clips.
    """
    found: dict[str, list[Item]] = {}
    for condition in conditions if spoken is not None else ():
        one = read_set(spoken or Path(), condition)
        found[one.name] = one.questions
    for folder in clips:
        found[folder.resolve().name] = read_clips(folder, only)
    if not found and not nothing:
        raise ConfigError("there is nothing to hear: give --set, --clips or --nothing.")
    for kind in KINDS if nothing else ():
        found[NOTHING + kind] = [Item(f"{kind}-{n}", UNKNOWN, (), kind=kind) for n in range(nothing)]
    return found


def read_clips(folder: Path, only: Path | None = None) -> list[Item]:
    """Return the recordings below a folder in the order of their names, those listed in `only` where it is given.

    Raises InputError when there are none.
    """
    wanted = None if only is None else set(read_text(only, JSON_BYTES).split())
    paths = [path for path in recordings_below(folder) if wanted is None or path.stem in wanted]
    if not paths:
        listed = f" that {only} lists" if only is not None else ""
        raise InputError(
            f"{folder} holds no recordings{listed} ({', '.join(SOUND_FILES)}): correct the folder or the list."
        )
    return [Item(path.stem, UNKNOWN, ("-",), path) for path in paths]


def hear_all(subject: Any, waves: Sequence[np.ndarray]) -> list[Any]:
    """Return the words that each wave (float32 at 16 kHz) was taken for, or a Failure.

    A model with parts is asked for its hearing alone; another has to answer in text, and says what it heard with that.
    """
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
    settings: dict[str, Any] = {"task": "hearing", "model": name, "reference": recognisers.reference.name}
    settings |= {"labels": recognisers.labeller.name if recognisers.labeller else "", "wer_normaliser": NORMALISER}
    settings |= {"questions_mark": fingerprint(spoken), "arms": [arm.removeprefix(NOTHING) for arm in arms]}
    settings |= {"shard": shard}
    with Results(results_path(out, shard, "hearing"), settings) as results:
        for arm, items in arms.items():
            _hear_arm(subject, arm, take(items, limit, shard), recognisers, results)
    if failed := failures(results.rows):
        tell(f"{failed} recordings were not heard; {results.path} says why")
    return hearing_tables(settings, results.rows)


def _hear_arm(subject: Any, arm: str, items: Sequence[Item], recognisers: Recognisers, results: Results) -> None:
    silent, batches = arm.startswith(NOTHING), results.batches(arm, items, BATCH)
    for batch in track(batches, arm, disable=not batches):
        loaded = [
            no_speech(item.kind, int(item.id.rpartition("-")[2])) if silent else load_question(item) for item in batch
        ]
        waves = sounds_of(loaded)
        whole = [index for index, wave in enumerate(loaded) if not isinstance(wave, Failure)]
        heard = dict(zip(whole, hear_all(subject, [waves[index] for index in whole]) if whole else (), strict=True))
        recognised = recognisers.reference.transcribe(waves)
        texts = [item.question for item in batch]
        if recognisers.labeller is not None and UNKNOWN in texts and not silent:
            texts = recognisers.labeller.transcribe(waves)
        for index, item in enumerate(batch):
            results.append(_record(arm, item.id, texts[index], heard.get(index, loaded[index]), recognised[index]))


def _record(arm: str, id: str, text: str, heard: Any, recognised: str) -> dict[str, Any]:
    said = "" if isinstance(heard, Failure) else heard
    own, other = errors_between(text, said), errors_between(text, recognised)
    counts = [len(whisper_english()(words).split()) for words in (said, recognised)]
    record = {"arm": arm, "id": id, "text": text, "heard": said, "recognised": recognised, "words": own.words}
    record |= {"word_edits": own.word_edits, "recognised_edits": other.word_edits}
    record |= {"heard_words": counts[0], "recognised_words": counts[1]}
    return record | {"error": heard.reason if isinstance(heard, Failure) else ""}


def hearing_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the word errors over speech and the share of sounds without speech in which words were heard."""
    arms = by_arm(items)
    note = f"{settings['model']} beside {settings['reference']}. "
    labels = f"Clips without transcripts: the words of {settings['labels']}. " if settings.get("labels") else ""
    how = f"{settings['wer_normaliser']}; pooled over utterances, what failed counts as deleted; 95 % paired bootstrap."
    spoken = tuple(_errors(arm, own) for arm, own in arms.items() if not arm.startswith(NOTHING))
    head = ("recordings", "n", "words", "model WER %", "recogniser WER %", "model / recogniser", "failed")
    quiet = {arm.removeprefix(NOTHING): own for arm, own in arms.items() if arm.startswith(NOTHING)}
    quiet |= {"all": [item for own in quiet.values() for item in own]} if len(quiet) > 1 else {}
    heard = tuple((kind, str(len(own)), _share(own, "heard"), _share(own, "recognised")) for kind, own in quiet.items())
    columns = ("sound", "n", "model hears words %", "recogniser hears words %")
    tables = [
        Table("Hearing", head, spoken, note + labels + how),
        Table("Nothing said", columns, heard, f"{note}Sounds made from a seed; words after the same normaliser."),
    ]
    return [table for table in tables if table.rows]


def _errors(arm: str, items: Items) -> tuple[str, ...]:
    words, own, other = (
        np.array([item[name] for item in items], float) for name in ("words", "word_edits", "recognised_edits")
    )
    rates = (percent(stats.ratio(edits, words)) for edits in (own, other))
    counts = (str(len(items)), str(int(words.sum())))
    return (arm, *counts, *rates, decimals(stats.ratio(own, other)), str(failures(items)))


def _share(items: Items, name: str) -> str:
    return percent(stats.mean([float(item[f"{name}_words"] > 0) for item in items]))
