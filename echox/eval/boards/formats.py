"""Items of VoiceBench, UltraEval-Audio, URO-Bench and OpenAudioBench in, and predictions that their scorers read out.

    format           an item                                          its spoken question
    voicebench       `prompt`, `reference` where there is one         `audio`: a path, or bytes in a parquet file
    ultraeval        `question`, a reference column, `WavPath`        `WavPath`
    uro              `id`, `source_text`, `target_text` (text, list)  `source_wav`, relative to the file
    openaudiobench   a CSV a set, in a folder with `audios/`          `audios/<audio_filename>`
    nq-open          `question`, `answer` (list)                      none: typed alone; also EfficientQA's files
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

from echox.data.manifest import read_jsonl, write_jsonl
from echox.errors import ConfigError, InputError
from echox.eval.questions import Question
from echox.files import JSON_BYTES, copy_file, read_text


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
EXPORTS = ("voicebench", "ultraeval", "uro")


def read_items(path: str | Path, form: str, audio_dir: Path | None = None) -> list[Question]:
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


def write_voicebench(folder: Path, items: Sequence[Mapping[str, Any]], model: str, data: str, split: str) -> Path:
    """Write `MODEL-DATA-SPLIT-audio.jsonl`, what VoiceBench's judge and evaluators read; return its path."""
    path = folder / f"{model}-{data}-{split}-audio.jsonl"
    records = []
    for item in items:
        timings = {"first_audio_ms": item.get("first_audio_seconds"), "total_ms": item.get("wall_seconds")}
        latency = {name: None if value is None else round(1000 * value, 1) for name, value in timings.items()}
        record = {"prompt": item["question"], "reference": item["answers"][0] if item["answers"] else ""}
        record |= {"response": prediction(item), "response_audio": item.get("audio"), "latency": latency}
        records.append(record | {"transcript": item.get("transcript"), "meta": {"id": item["id"], "arm": item["arm"]}})
    write_jsonl(path, records)
    return path


def write_ultraeval(path: Path, items: Sequence[Mapping[str, Any]], root: Path, speech: bool) -> Path:
    """Write an UltraEval-Audio record for `--resume`: it then scores these answers and asks no model.

    Relative audio paths start at an item's own `folder`, else at `root`. The items must be in the data set's order. With
    `speech` an answer is `{"audio", "text"}` for the task `s2s-aqa` (their own recogniser hears it); without, its text
    for `loose-aqa`.
    """
    lines = []
    for number, item in enumerate(items):
        content = item["text"]
        if speech:
            audio = str((_folder(item, root) / item["audio"]).resolve()) if item.get("audio") else ""
            content = json.dumps({"audio": audio, "text": item["text"]}, ensure_ascii=False)
        lines.append({"type": "inference", "id": number, "data": {"content": content}})
    write_jsonl(path, lines)
    return path


def write_uro(folder: Path, items: Sequence[Mapping[str, Any]], root: Path) -> Path:
    """Write URO-Bench's output folder: pred_text, question_text, gt_text, asr_text and audio/0000.wav; return it."""
    keys = [str(number).zfill(4) for number in range(len(items))]
    columns: dict[str, list[str]] = {
        "pred_text": [item["text"] for item in items],
        "question_text": [item["question"] for item in items],
        "gt_text": [" / ".join(item["answers"]) for item in items],
        "asr_text": [item.get("transcript") or " " for item in items],
    }
    for name, values in columns.items():
        write_jsonl(folder / f"{name}.jsonl", [{key: value} for key, value in zip(keys, values, strict=True)])
    for key, item in zip(keys, items, strict=True):
        if item.get("audio"):
            copy_file(_folder(item, root) / item["audio"], folder / "audio" / f"{key}.wav")
    return folder


def prediction(item: Mapping[str, Any]) -> str:
    """Return what was scored of an item: the judge's transcript of a spoken answer, else its text."""
    return str(item["text"] if item.get("transcript") is None else item["transcript"])


def to_question(record: Mapping[str, Any], layout: Layout, folder: Path, number: int, path: Path) -> Question:
    """Return one record as a Question with its audio under `folder`; raise InputError when nothing is asked."""
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
    return Question(
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
    try:
        found = json.loads(read_text(path, JSON_BYTES))
    except ValueError as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): give the published file.") from error
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise InputError(f"{path} is not a JSON list of questions: give the published file.")
    return found


def _folder(item: Mapping[str, Any], root: Path) -> Path:
    return Path(item.get("folder", root))


def in_question_order(paths: Sequence[Path], arm: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the settings of one run and an arm's items in the order of its questions file, shards joined.

    Raises InputError when the files are of several runs, the arm is not there, or a question has no answer.
    """
    from echox.eval.results import read_all

    runs = read_all(paths)
    if len(runs) > 1:
        raise InputError(f"{', '.join(map(str, paths))} are of {len(runs)} runs: export one run at a time.")
    settings, items = runs[0]
    chosen = [item for item in items if item["arm"] == arm]
    if not chosen:
        names = ", ".join(sorted({item["arm"] for item in items})) or "none"
        raise InputError(f"{paths[0]} holds no items of the arm {arm!r}: it has {names}.")
    if any(item.get("place") is None for item in chosen):
        if len(paths) > 1:
            raise InputError(f"{paths[0]} does not say which place each question has: export one file at a time.")
        return settings, chosen
    chosen = sorted(chosen, key=lambda item: item["place"])
    count = settings.get("count") or 0
    last = min(settings.get("limit") or count, count)
    absent = sorted(set(range(max(last, chosen[-1]["place"] + 1))) - {item["place"] for item in chosen})
    if absent:
        raise InputError(
            f"{len(absent)} questions of the arm {arm!r} have no answer, the first at place {absent[0]}: finish the run or "
            "name the files of its other shards."
        )
    return settings, chosen


def export_items(results: Sequence[Path], form: str, arm: str, out: Path, name: str) -> Path:
    """Write one arm of a run's results files for another harness, in question order, and return where.

    Raises ConfigError for an unknown format or a name without a split, InputError when answers are missing.
    """
    if form not in EXPORTS:
        raise ConfigError(f"there is no prediction format {form!r}: choose from {', '.join(EXPORTS)}.")
    data, dash, split = name.rpartition("-")
    if form == "voicebench" and not dash:
        raise ConfigError(f"--name {name!r} must be DATA-SPLIT, such as sd-qa-usa.")
    settings, chosen = in_question_order(results, arm)
    out.mkdir(parents=True, exist_ok=True)
    root = results[0].parent
    if form == "ultraeval":
        return write_ultraeval(out / "ultraeval.jsonl", chosen, root, speech=arm in ("s2s", "teacher", "cascade"))
    if form == "uro":
        return write_uro(out, chosen, root)
    model = str(settings["model"]).split(" ")[0].replace("/", "_")
    return write_voicebench(out, chosen, model, data, split)
