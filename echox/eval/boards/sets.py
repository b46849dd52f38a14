"""Questions of others: items of VoiceBench, UltraEval-Audio, URO-Bench, OpenAudioBench, of public sets of typed questions; suites.

    format           an item                                          its spoken question
    voicebench       `prompt`, `reference` where there is one         `audio`: a path, or bytes in a parquet file
    ultraeval        `question`, a reference column, `WavPath`        `WavPath`
    uro              `id`, `source_text`, `target_text` (text, list)  `source_wav`, relative to the file
    openaudiobench   a CSV a set, in a folder with `audios/`          `audios/<audio_filename>`
    nq-open          `question`, `answer` (list)                      none: typed alone; also EfficientQA's files, of whose
                                                                      test set `answer` is taken, not the raters' additions
    webquestions     a JSON list of `qId`, `qText`, `answers`         none
    texts            JSONL of `id`, `question`, `answers`             none; what `echox prepare texts` writes

Written from the publishers' code: VoiceBench main.py, UltraEval-Audio audio_evals/dataset/resume.py and eval_task.py,
URO-Bench inference_for_eval.py, OpenAudioBench's data card. Knows nothing about models.

A suite is fetched by name where there is a network (needs `pip install datasets`), written once as a questions file with wavs into
a cache, and read from there. On a closed machine `--data DIR` names a copy. Test material only.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echox.data.manifest import read_jsonl
from echox.errors import ConfigError, InputError, require
from echox.eval.questions import Item, check_questions, read_questions, write_questions
from echox.files import JSON_BYTES, read_json, read_text, write_bytes
from echox.hub import cache_folder


@dataclass(frozen=True)
class Layout:
    """Where a format keeps what: the columns that may hold it, first match first, and how answers are separated."""

    question: tuple[str, ...]
    answers: tuple[str, ...]
    audio: tuple[str, ...]
    identifier: tuple[str, ...] = ("id",)
    separator: str = ""
    prefix: bool = False  # ids counted from 0 begin with the file's name, so that several files can be one pool


LAYOUTS = {
    "voicebench": Layout(("prompt",), ("reference",), ("audio",)),
    "ultraeval": Layout(
        ("question", "QuestionText", "Question"), ("answers", "answer", "ref", "Answer"), ("WavPath", "audio")
    ),
    "uro": Layout(("source_text",), ("target_text", "source_text"), ("source_wav",)),
    "openaudiobench": Layout(
        ("question", "Questions", "Prompt"),
        ("answer_normalized_aliases", "answers", "Answer", "参考答案"),
        ("audio_filename",),
        separator=";,",
    ),
    "nq-open": Layout(("question",), ("answer",), (), prefix=True),
    "webquestions": Layout(("qText",), ("answers",), (), ("qId",)),
    "texts": Layout(("question",), ("answers",), ()),
}


@dataclass(frozen=True)
class Suite:
    """A named set: its hub repository, configuration and split, its records' format, and the rule of its board."""

    repository: str
    split: str
    form: str
    config: str | None = None
    scorer: str = "qa-exist-match"


SUITES = {
    "llama-questions": Suite("TwinkStart/llama-questions", "test", "ultraeval"),
    "web-questions": Suite("TwinkStart/speech-web-questions", "test", "ultraeval"),
    "trivia-qa": Suite("TwinkStart/speech-triavia-qa", "test", "ultraeval"),
    "sd-qa": Suite("hlt-lab/voicebench", "usa", "voicebench", "sd-qa", "voicebench-qa"),
    "openbookqa": Suite("hlt-lab/voicebench", "test", "voicebench", "openbookqa", "voicebench-mcq"),
    "mmsu": Suite("hlt-lab/voicebench", "law", "voicebench", "mmsu", "voicebench-mcq"),
    "alpacaeval": Suite("hlt-lab/voicebench", "test", "voicebench", "alpacaeval", "voicebench-open"),
}


def default_scorer(suite: str) -> str:
    """Return the scorer that a suite's own board uses, qa-exist-match for none and for questions files."""
    return SUITES[suite].scorer if suite in SUITES else "qa-exist-match"


def load_questions(
    questions: Path | None, audio_dir: Path | None, suite: str, data: Path | None, spoken: bool, form: str = ""
) -> tuple[list[Item], str]:
    """Return the questions asked for and the name printed for them; with `spoken` every wav must exist.

    `form` says that the file holds another harness's items. Raises ConfigError unless exactly one of `questions` and
    `suite` is given, InputError for faults of the set.
    """
    if (questions is None) == (not suite):
        raise ConfigError("give either --questions FILE or --suite NAME.")
    if suite and suite not in SUITES:
        raise ConfigError(f"there is no suite {suite!r}: choose from {', '.join(SUITES)}.")
    found = questions or (_fetch(suite, SUITES[suite]) if data is None else find_local(data, suite))
    if not form and (questions is not None or found.suffix == ".tsv"):
        return read_questions(found, audio_dir, spoken), suite or found.name
    form = form or ("openaudiobench" if found.suffix == ".csv" else SUITES[suite].form)
    items = read_items(found, form, audio_dir)
    check_questions(items, found, spoken)
    return items, suite or found.name


def read_items(path: str | Path, form: str, audio_dir: Path | None = None) -> list[Item]:
    """Return the questions of a file in one of the formats above, with ids counted from 0 where it has none.

    Paths of audio are relative to `audio_dir`, or to the file's folder (OpenAudioBench's: its `audios/`). Raises
    ConfigError for an unknown format, InputError for a missing file or a column that is not there.
    """
    path = Path(path)
    if form not in LAYOUTS:
        raise ConfigError(f"there is no item format {form!r}: choose from {', '.join(LAYOUTS)}.")
    layout = LAYOUTS[form]
    records = {".csv": _read_csv, ".json": _read_json}.get(path.suffix, read_jsonl)(path)
    folder = audio_dir or (path.parent / "audios" if form == "openaudiobench" else path.parent)
    return [to_question(record, layout, folder, number, path) for number, record in enumerate(records)]


def to_question(record: Mapping[str, Any], layout: Layout, folder: Path, number: int, path: Path) -> Item:
    """Return one record as an Item with its audio under `folder`; raise InputError when nothing is asked."""
    question = _first(record, layout.question)
    if question is None:
        columns = ", ".join(layout.question)
        raise InputError(f"{path} item {number} has none of the columns {columns}: is it this format?")
    answers = _answers(_first(record, layout.answers), layout.separator)
    audio = _first(record, layout.audio)
    name = audio.get("path") if isinstance(audio, dict) else audio
    identifier = _first(record, layout.identifier)
    if identifier is None:
        identifier = f"{path.stem}-{number:05d}" if layout.prefix else number
    return Item(str(identifier), str(question), answers, folder / str(name) if name else None)


def find_local(folder: Path, suite: str) -> Path:
    """Return a suite's file in or below a local folder, by the suite's name or `questions`; InputError tells what was sought."""
    plain = suite.replace("-", "_")
    names = [f"{stem}.{ending}" for ending in ("tsv", "jsonl", "csv") for stem in (suite, plain, "questions", "test")]
    places = [folder, folder / suite, folder / plain, folder / "eval_datas" / plain]
    found = next((place / name for place in places for name in names if (place / name).is_file()), None)
    if found is not None:
        return found
    raise InputError(f"{folder} holds no copy of {suite}: looked for {', '.join(names[:4])} and the like in it.")


def _fetch(name: str, suite: Suite) -> Path:
    """Return the questions file of a suite from the cache, downloading it and writing its wavs the first time."""
    folder = cache_folder() / "suites" / name
    if (folder / "questions.tsv").is_file():
        return folder / "questions.tsv"
    datasets: Any = require("datasets", install="pip install datasets")
    try:
        records = datasets.load_dataset(suite.repository, suite.config, split=suite.split)
        column = next(name for name in LAYOUTS[suite.form].audio if name in records.column_names)
        records = records.cast_column(column, datasets.Audio(decode=False))
    except (OSError, ValueError, StopIteration) as error:
        raise InputError(f"{suite.repository} cannot be fetched ({error}): give its copy with --data DIR.") from error
    items = [_store(record, suite, column, number, folder) for number, record in enumerate(records)]
    write_questions(folder / "questions.tsv", items)
    return folder / "questions.tsv"


def _store(record: Mapping[str, Any], suite: Suite, column: str, number: int, folder: Path) -> Item:
    ending = Path(record[column].get("path") or "x.wav").suffix or ".wav"
    name = f"{number:05d}{ending}"
    write_bytes(folder / name, record[column]["bytes"])
    item = to_question({**record, column: name}, LAYOUTS[suite.form], folder, number, Path(suite.repository))
    return Item(f"{number:05d}", item.question, item.answers or ("-",), Path(name))


def _answers(value: Any, separator: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            value = [part.strip(" '\"") for part in value.strip("[] ").split(",")]
    parts = value if isinstance(value, list | tuple) else [str(value)]
    for mark in separator:
        if len(parts) == 1 and mark in str(parts[0]):
            parts = str(parts[0]).split(mark)
    return tuple(dict.fromkeys(str(part).strip() for part in parts if str(part).strip()))


def _first(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((record[name] for name in names if record.get(name) not in (None, "")), None)


def _read_csv(path: Path) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(io.StringIO(read_text(path, JSON_BYTES), newline="")))
    except csv.Error as error:
        raise InputError(f"{path} is not a table of commas ({error}): fetch the data set again.") from error


def _read_json(path: Path) -> list[dict[str, Any]]:
    """Return the records of a JSON list; raise InputError when the file is missing or holds something else."""
    found = read_json(path)
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise InputError(f"{path} is not a JSON list of questions: give the published file.")
    return found
