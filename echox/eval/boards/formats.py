"""Items of VoiceBench, UltraEval-Audio, URO-Bench, OpenAudioBench and of public sets of typed questions.

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
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echox.data.manifest import read_jsonl
from echox.errors import ConfigError, InputError
from echox.eval.questions import Item
from echox.files import JSON_BYTES, read_json, read_text


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
        raise InputError(
            f"{path} item {number} has none of the columns {', '.join(layout.question)}: is it this format?"
        )
    answers = _answers(_first(record, layout.answers), layout.separator)
    audio = _first(record, layout.audio)
    name = audio.get("path") if isinstance(audio, dict) else audio
    counted = f"{path.stem}-{number:05d}" if layout.prefix else str(number)
    identifier = _first(record, layout.identifier)
    return Item(
        counted if identifier is None else str(identifier), str(question), answers, folder / str(name) if name else None
    )


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
    if not path.is_file():
        raise InputError(f"{path} is missing: give the folder of the data set.")
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
