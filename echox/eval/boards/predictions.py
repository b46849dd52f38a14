"""Answers as files that other harnesses score: VoiceBench, UltraEval-Audio, URO-Bench.

Written from the publishers' code: VoiceBench main.py, UltraEval-Audio audio_evals/dataset/resume.py and eval_task.py, URO-Bench
inference_for_eval.py. Knows nothing about models.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from echox.data.manifest import write_jsonl
from echox.errors import ConfigError, InputError
from echox.eval.results import qa_runs, read_all
from echox.eval.tasks.qa import SPOKEN_ANSWER
from echox.files import copy_file, refuse_others

EXPORTS = ("voicebench", "ultraeval", "uro")


def in_question_order(paths: Sequence[Path], arm: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the settings of one run, and an arm's items in the order of its questions file; InputError where any is missing."""
    runs, named = qa_runs(read_all(paths)), ", ".join(map(str, paths))
    if not runs:
        raise InputError(f"no run of `echox eval qa` is in {named}: give the folder that its --out named.")
    if len(runs) > 1:
        raise InputError(f"{named} hold {len(runs)} runs of `echox eval qa`: export one at a time.")
    settings, items = runs[0]
    chosen = [item for item in items if item["arm"] == arm]
    if not chosen:
        names = ", ".join(sorted({item["arm"] for item in items})) or "none"
        raise InputError(f"{paths[0]} holds no items of the arm {arm!r}: it has {names}.")
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
    """Write one arm of a run for another harness, in question order, and return where; ConfigError for an unknown format."""
    if form not in EXPORTS:
        raise ConfigError(f"there is no prediction format {form!r}: choose from {', '.join(EXPORTS)}.")
    data, dash, split = name.rpartition("-")
    if form == "voicebench" and not dash:
        raise ConfigError(f"--name {name!r} must be DATA-SPLIT, such as sd-qa-usa.")
    settings, chosen = in_question_order(results, arm)
    if form == "ultraeval":
        return write_ultraeval(out / "ultraeval.jsonl", chosen, speech=arm in SPOKEN_ANSWER)
    if form == "uro":
        return write_uro(out, chosen)
    model = str(settings["model"]).split(" ")[0].replace("/", "_")
    return write_voicebench(out, chosen, model, data, split)


def write_voicebench(folder: Path, items: Sequence[Mapping[str, Any]], model: str, data: str, split: str) -> Path:
    """Write `MODEL-DATA-SPLIT-audio.jsonl`, what VoiceBench's judge and evaluators read; return its path."""
    path = folder / f"{model}-{data}-{split}-audio.jsonl"
    records = []
    for item in items:
        timings = {"first_audio_ms": item.get("first_audio_seconds"), "total_ms": item.get("wall_seconds")}
        latency = {name: None if value is None else round(1000 * value, 1) for name, value in timings.items()}
        heard = item.get("transcript")  # of a spoken answer: what was scored of it
        record = {"prompt": item["question"], "reference": item["answers"][0] if item["answers"] else ""}
        record |= {"response": str(item["text"] if heard is None else heard), "response_audio": item.get("audio")}
        record |= {"latency": latency, "transcript": heard, "meta": {"id": item["id"], "arm": item["arm"]}}
        records.append(record)
    refuse_others(folder, [path.name], path.name, b'{"prompt": ')
    write_jsonl(path, records)
    return path


def write_ultraeval(path: Path, items: Sequence[Mapping[str, Any]], speech: bool) -> Path:
    """Write an UltraEval-Audio record for `--resume`: it then scores these answers and asks no model.

    Audio paths are relative to an item's `folder`. The items must be in the data set's order. With
    `speech` an answer is `{"audio", "text"}` for the task `s2s-aqa` (their own recogniser hears it); without, its text
    for `loose-aqa`.
    """
    lines = []
    for number, item in enumerate(items):
        content = item["text"]
        if speech:
            audio = str((Path(item["folder"]) / item["audio"]).resolve()) if item.get("audio") else ""
            content = json.dumps({"audio": audio, "text": item["text"]}, ensure_ascii=False)
        lines.append({"type": "inference", "id": number, "data": {"content": content}})
    refuse_others(path.parent, [path.name], path.name, b'{"type": "inference"')
    write_jsonl(path, lines)
    return path


def write_uro(folder: Path, items: Sequence[Mapping[str, Any]]) -> Path:
    """Write URO-Bench's output folder: pred_text, question_text, gt_text, asr_text and audio/0000.wav; return it."""
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "pred_text": lambda item: item["text"],
        "question_text": lambda item: item["question"],
        "gt_text": lambda item: " / ".join(item["answers"]),
        "asr_text": lambda item: item.get("transcript") or " ",
    }
    refuse_others(folder, [*(f"{name}.jsonl" for name in columns), "audio"], "pred_text.jsonl", b'{"0000": ')
    for name, value in columns.items():
        write_jsonl(folder / f"{name}.jsonl", [{f"{n:04d}": value(item)} for n, item in enumerate(items)])
    for number, item in enumerate(items):
        if item.get("audio"):
            copy_file(Path(item["folder"]) / item["audio"], folder / "audio" / f"{number:04d}.wav")
    return folder
