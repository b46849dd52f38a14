"""Named question sets: where each lives on the hub, and how its local copy is found.

A set is fetched by name where there is a network (needs `pip install datasets`), written once as a questions file
with wavs into a cache, and read from there. On a closed machine `--data DIR` names a copy. Test material only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echox.errors import ConfigError, InputError, OutputError, require
from echox.eval.boards.formats import LAYOUTS, read_items, to_question
from echox.eval.questions import Item, check_questions, read_questions, write_questions
from echox.files import write_bytes
from echox.hub import cache_folder


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
    if suite and data is None:
        return read_questions(_fetch(suite, SUITES[suite]), None, spoken), suite
    found = questions if questions is not None else find_local(data or Path(), suite)
    if not form and (questions is not None or found.suffix == ".tsv"):
        return read_questions(found, audio_dir, spoken), suite or found.name
    form = form or ("openaudiobench" if found.suffix == ".csv" else SUITES[suite].form)
    items = read_items(found, form, audio_dir)
    check_questions(items, found, spoken)
    return items, suite or found.name


def find_local(folder: Path, suite: str) -> Path:
    """Return the file of a suite in a local folder: questions.tsv, or <suite>.tsv, .jsonl or .csv in or below it.

    Raises InputError naming what was looked for.
    """
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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        items = [_store(record, suite, column, number, folder) for number, record in enumerate(records)]
        write_questions(folder / "questions.tsv", items)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}): set XDG_CACHE_HOME.") from error
    return folder / "questions.tsv"


def _store(record: Mapping[str, Any], suite: Suite, column: str, number: int, folder: Path) -> Item:
    ending = Path(record[column].get("path") or "x.wav").suffix or ".wav"
    name = f"{number:05d}{ending}"
    write_bytes(folder / name, record[column]["bytes"])
    item = to_question({**record, column: name}, LAYOUTS[suite.form], folder, number, Path(suite.repository))
    clean = [" ".join(text.split()).replace("|", "/") for text in (item.question, *item.answers)]
    return Item(f"{number:05d}", clean[0], tuple(clean[1:]) or ("-",), Path(name))
