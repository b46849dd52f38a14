"""One JSONL file a run: the settings on the first line, then one line per arm and question, written through to disk.

A run that is killed loses at most the batch it was working on. Starting it again skips what is there and refuses when
a setting changed, because two settings in one file cannot be told apart afterwards. Knows nothing about models.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from echox.config.shard import shard_of
from echox.data.batching import groups
from echox.data.manifest import read_jsonl, write_jsonl
from echox.errors import ConfigError, InputError, OutputError
from echox.eval.questions import digest
from echox.files import drop_partial_line

FREE = frozenset({"arms", "limit", "shard", "started", "machine", "load_seconds"})
"""Settings that may differ between runs of one file: they choose which lines are written, not what they say."""
Run = tuple[dict[str, Any], list[dict[str, Any]]]  # the settings and the items of one run
Answer = Callable[[str, Sequence[Any]], Iterable[dict[str, Any]]]
"""The records, each with its `id`, of some items of an arm; one that names another arm is of that."""
OURS = b'{"type": "settings"'  # how a results file begins
REPORT = ("report.html", "table.md")


class Results:
    """An append-only results file, whose `items` are by (arm, id); with `retry_failed` those that failed are done again.

    Raises ConfigError for a file of other settings, InputError for no results file, OutputError where it cannot be written.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], retry_failed: bool = False) -> None:
        self.path = Path(path)
        self.settings = {"shard": "0/1"} | json.loads(json.dumps(settings, allow_nan=False))
        self.items: dict[tuple[str, str], dict[str, Any]] = {}
        if self.path.is_file():
            drop_partial_line(self.path, OURS)
        if not self.path.is_file() or not self.path.stat().st_size:
            self._write({"type": "settings", **self.settings})
        else:
            earlier, items = read_results(self.path)
            if changed := _changes(earlier, self.settings):
                now = self.settings.get
                what = "; ".join(f"{name} was {earlier.get(name)!r} and is {now(name)!r}" for name in changed)
                raise ConfigError(f"{path} was made with other settings ({what}): use those, or choose another --out.")
            self.items = {(item["arm"], item["id"]): item for item in items}
        self.done = {key for key, item in self.items.items() if not (retry_failed and item.get("error"))}
        """The (arm, id) pairs that need no more work."""

    def append(self, item: dict[str, Any]) -> None:
        """Write one finished item, through to the disk."""
        self._write({"type": "item", **item})
        self.items[item["arm"], item["id"]] = item
        self.done.add((item["arm"], item["id"]))

    def fill(self, arms: Mapping[str, Sequence[Any]], size: int, answer: Answer) -> Run:
        """Write what `answer` says of the items of each arm that are not done yet, `size` at a time; return the whole run."""
        for arm, items in arms.items():
            batches = groups([item for item in items if (arm, item.id) not in self.done], size)
            for some in tqdm(batches, arm, disable=None if batches else True):
                for record in answer(arm, some):
                    self.append({"arm": arm, **record})
        return self.settings, list(self.items.values())

    def _write(self, record: dict[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            reason = f"{self.path} cannot be written ({error.strerror})"
            raise OutputError(f"{reason}: free some space and resume, or choose another --out.") from error


def write_results(path: Path, settings: dict[str, Any], items: Sequence[dict[str, Any]]) -> None:
    """Write a whole run at once, in place of an earlier one."""
    write_jsonl(path, [{"type": "settings", **settings}, *({"type": "item", **item} for item in items)])


def results_path(out: Path, shard: str, stem: str = "results") -> Path:
    """Return the results file of a shard: results.jsonl when there is only one."""
    index, count = shard_of(shard)
    return out / (f"{stem}.jsonl" if count == 1 else f"{stem}.{index}of{count}.jsonl")


def read_results(path: str | Path) -> Run:
    """Return the settings and the items of a results file, of each arm and id the last line; InputError when it is not whole."""
    if Path(path).suffix == ".json":
        raise InputError(f"{path} is no results file of `echox eval`, or of an older `eval gap`: run that again.")
    lines = read_jsonl(path)
    if not lines or lines[0].get("type") != "settings":
        raise InputError(f"{path} is not a results file of `echox eval`: its first line holds no settings.")
    items: dict[tuple[str, str], dict[str, Any]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if line.get("type") != "item" or "arm" not in line or "id" not in line:
            raise InputError(f"{path} line {number} is not a result item; remove it or start a new file.")
        items[line["arm"], line["id"]] = line
    return lines[0], list(items.values())


def read_files(paths: Iterable[str | Path]) -> dict[Path, Run]:
    """Return what files hold, and what the results files in folders do, each read once.

    What a folder holds besides answers to questions is left out where it cannot be read, unless it holds nothing else. Raises
    InputError for a folder without results and for a file that is not whole.
    """
    found: dict[Path, Run] = {}
    for path in map(Path, paths):
        found |= _read_folder(path) if path.is_dir() else {path: read_results(path)}
    return found


def _read_folder(folder: Path) -> dict[Path, Run]:
    found: dict[Path, Run] = {}
    fault = None
    ours = filter(_is_ours, folder.iterdir())
    for path in sorted(ours, key=lambda path: (not path.name.startswith("results"), path)):
        try:
            found[path] = read_results(path)
        except InputError as error:
            if path.name.startswith("results"):
                raise
            fault = fault or error
    if not found:
        what = "holds no results of `echox eval`: give the folder that its --out named, or a file"
        raise fault or InputError(f"{folder} {what}.")
    return found


def _is_ours(path: Path) -> bool:
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(OURS)) == OURS


def read_all(paths: Iterable[str | Path]) -> list[Run]:
    """Return the runs of files and of the folders that they are in, as `joined` does."""
    return joined(read_files(paths))


def joined(found: Mapping[Path, Run]) -> list[Run]:
    """Return (settings, items) per run, files of one run's shards joined, an item that is there twice counted once.

    Raises InputError when two files of a run hold different results for one arm and id.
    """
    runs: list[Run] = []
    for path, (settings, items) in found.items():
        for record in (settings, *items):
            record["folder"] = str(path.resolve().parent)
        same = next((run for run in runs if "shard" in settings and not _changes(run[0], settings)), None)
        if same is None:
            runs.append((settings, items))
            continue
        known = {(item["arm"], item["id"]): item for item in same[1]}
        for item in items:
            earlier = known.setdefault((item["arm"], item["id"]), item)
            if earlier | {"folder": ""} != item | {"folder": ""}:
                raise InputError(
                    f"{path} and a file before it hold different results for {item['arm']} {item['id']!r} of one run: "
                    "give only one of them."
                )
        same[1][:] = known.values()
    return runs


def _changes(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    keys = (set(earlier) | set(now)) - FREE - {"type", "folder"}
    return sorted(key for key in keys if earlier.get(key) != now.get(key))


def title_of(settings: dict[str, Any]) -> str:
    """Return the title of a run: its model, or its task where it has none."""
    return str(settings.get("model") or settings.get("task") or "run")


def titles_of(runs: Sequence[Run]) -> list[str]:
    """Return distinct titles of runs: with their questions where models of one task are the same, else numbered."""
    titles = [title_of(settings) for settings, _ in runs]
    for more in ([settings.get("questions") for settings, _ in runs], range(1, len(runs) + 1)):
        keys = [(settings.get("task", "qa"), title) for (settings, _), title in zip(runs, titles, strict=True)]
        added = [f", {one}" if one and keys.count(key) > 1 else "" for key, one in zip(keys, more, strict=True)]
        titles = [title + mark for title, mark in zip(titles, added, strict=True)]
    return titles


def runs_mark(runs: Sequence[Run]) -> str:
    """Return 16 hexadecimal digits that change with the settings and the folders of runs, whose items may still grow."""
    return digest([{name: value for name, value in settings.items() if name not in FREE} for settings, _ in runs])


def qa_runs(runs: Sequence[Run]) -> list[Run]:
    """Return the question answering runs."""
    return [run for run in runs if run[0].get("task", "qa") == "qa"]
