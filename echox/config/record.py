"""What a run was made of, written beside its result and compared when it goes on or is used; it knows no stage.

`out`/run.json holds the recipe, a fingerprint of every file and folder that it names, the version of the code, and how far the run
is. A recipe that differs is refused by the name of what differs; the same names, in a recipe's `allow`, let it pass.

Fingerprints are of sizes and the first and last 64 KiB of every file: cheap for large models, blind to a change in the middle of a
file that keeps its size.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from echox.errors import ConfigError, ModelError
from echox.files import MARKER, read_json, write_text

RUN = "run.json"
DIGEST = re.compile("[0-9a-f]{32}")  # what stands for a file or a folder
EDGE = 1 << 16  # bytes at both ends of a file
OF_RUNS = {RUN, MARKER, "metrics.jsonl", "tensorboard"}  # written while a run goes on
FREE = ("out",)  # of recipes that declare no `free`
FREE_BEFORE = ["train.save_every"]  # of records that did not say what they left out


@dataclass
class Record:
    """Settings by dotted name, fingerprints by the dotted name of the path (hub names as they are), and the code's version.

    `free` names what was left out since it changes no number, as the recipe declares.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    code: str = ""
    free: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, recipe: BaseModel) -> "Record":
        """Return the record of a recipe as its files are now."""
        from echox import __version__

        free: list[str] = list(getattr(recipe, "free", FREE))
        leaves = {name: value for name, value in flat(recipe) if not under(name, free)}
        inputs = {name: fingerprint(value) or str(value) for name, value in leaves.items() if isinstance(value, Path)}
        settings = {name: value for name, value in leaves.items() if name not in inputs}
        return cls(json.loads(json.dumps(settings, default=str)), inputs, __version__, free)

    def differences(self, other: "Record", only: Sequence[str] = ()) -> list[str]:
        """Return the names in which two records differ; those under `only`, if any are given.

        A setting that is none is as one that was not known yet, so that runs outlive settings that are new and not used.
        One that is free in either counts where both know it.
        """
        free = [*self.free, *other.free]
        found = ["code"] if self.code != other.code else []
        for own, theirs in ((self.settings, other.settings), (self.inputs, other.inputs)):
            names = [name for name in {**own, **theirs} if not under(name, free) or (name in own and name in theirs)]
            found += [name for name in names if own.get(name) != theirs.get(name)]
        return [name for name in found if not only or under(name, only)]


def under(name: str, names: Sequence[str]) -> bool:
    """Say whether a dotted name is one of `names` or lies under one of them."""
    return any(name == one or name.startswith(f"{one}.") for one in names)


def flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of every leaf of settings, mappings and lists."""
    if isinstance(values, BaseModel):
        values = {name: getattr(values, name) for name in type(values).model_fields}
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from flat(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(values, list | tuple) and values:
        for number, value in enumerate(values):
            yield from flat(value, f"{prefix}.{number}")
    else:
        yield prefix, values


def fingerprint(path: Path) -> str:
    """Return a digest of a file, or of all files of a folder but those that a run goes on writing; '' where there is none."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else []
    if path.is_dir():
        files = [Path(place) / name for place, _, names in _walk(path) for name in sorted(names) if name not in OF_RUNS]
    for one in files:
        size = one.stat().st_size
        digest.update(f"{one.relative_to(path) if one != path else ''}:{size}\n".encode())
        with one.open("rb") as file:
            digest.update(file.read(EDGE))
            if size > 2 * EDGE:
                file.seek(-EDGE, os.SEEK_END)
            digest.update(file.read(EDGE))
    return digest.hexdigest()[:32] if files else ""


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in OF_RUNS and not f.startswith((".", "step-")))
        yield place, folders, [name for name in names if not name.startswith(".")]


def write_run(out: Path, record: Record, at: str) -> None:
    """Write how far the run in `out` is (`done`, or where it stands) and what it is made of."""
    write_text(out / RUN, json.dumps({"at": at} | asdict(record), indent=1, default=str) + "\n")


def read_run(out: Path) -> tuple[str, Record] | None:
    """Return how far the run in `out` is and its record; None where none is; ConfigError for a broken one."""
    path = Path(out) / RUN
    if not path.is_file():
        return None
    try:
        values = read_json(path, error=ConfigError)
        free = list(values.get("free", FREE_BEFORE))
        return str(values["at"]), Record(dict(values["settings"]), dict(values["inputs"]), str(values["code"]), free)
    except (TypeError, KeyError) as error:
        raise ConfigError(f"{path} is not a record of a run: choose another `out`.") from error


def check_same(out: Path, record: Record, allow: Sequence[str] | None = None, only: Sequence[str] = ()) -> None:
    """Raise ConfigError when `out` holds a run made of something else, unless it lies under the names of `allow`.

    Without `allow` (files made from files, which would be mixed) nothing may differ `only` under some names, if any are given.
    """
    found = read_run(out)
    if found is None:
        return
    before = found[1]
    names = [name for name in before.differences(record, only) if not under(name, allow or ())]
    if "stage" in names:
        raise ConfigError(f"{out} holds a run of stage {before.settings.get('stage')}: choose another `out`.")
    if names:
        name = names[0]
        old, new = (one.settings.get(name, one.inputs.get(name)) for one in (before, record))
        changed = all(DIGEST.fullmatch(str(value)) for value in (old, new))
        how = "its content has changed" if changed else f"{old} before, {new} now"
        how = f"{before.code} before, {record.code} now" if name == "code" else how
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        way = "" if allow is None else f", or go on with train.allow=[{','.join([*allow, *names])}]"
        raise ConfigError(f"{out} was made with another {name} ({how}){more}: choose another `out`{way}.")


def check_finished(folder: str | Path) -> None:
    """Raise ModelError when `folder` is the result of an earlier run and the one beside it has not come to its end."""
    folder = Path(folder)
    found = read_run(folder.parent) if folder.name == "final" else None
    if found is not None and found[0] != "done":
        how = "is stale" if folder.exists() else "is not there yet"
        raise ModelError(f"{folder} {how}: the run in {folder.parent} stands at {found[0]}; let it come to its end.")
