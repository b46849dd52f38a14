"""Parallel speech: two corpora whose records share ids, the source perhaps in several voices (`PAIR@voice`); it knows no model.

    source/shard-*.jsonl   {"id": "p7@1", audio ...}  {"id": "p7@2", ...}       target/shard-*.jsonl   {"id": "p7", audio ...}

Both sides are corpora like any other (data/manifest.py), so states, units and unit language are made by the same stages. A record's
`text` is for measuring, and for the arms that are trained with text. Pairs for measuring alone stand in one table:

    id <tab> audio <tab> target_audio <tab> source_text <tab> target_text        audio may be left out: <id>.wav is meant
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echox.data.manifest import question_id
from echox.data.tables import table_rows
from echox.errors import InputError

COLUMNS = ("id", "audio", "target_audio", "source_text", "target_text")
FAULTS_SHOWN = 5


@dataclass(frozen=True)
class SpokenPair:
    """One pair for measuring: the recording to translate, the reference's text and speech where known."""

    id: str
    audio: Path
    target_text: str
    source_text: str = ""
    target_audio: Path | None = None


def matched(sources: Iterable[Any], targets: Mapping[str, Any], name: str, ids: Iterable[str]) -> list[tuple[Any, Any]]:
    """Return (source, target) of every source, in order; InputError names `name` and pairs of which one side is missing."""
    asked = [question_id({"id": one}) for one in ids]
    sides = {"target": [pair for pair in asked if pair not in targets], "source": sorted(set(targets) - set(asked))}
    for side, lacking in sides.items():
        if lacking:
            shown = ", ".join(lacking[:FAULTS_SHOWN])
            raise InputError(
                f"{name}: {len(lacking)} pairs have no {side} ({shown}): make both sides of the same pairs."
            )
    return [(source, targets[pair]) for source, pair in zip(sources, asked, strict=True)]


def read_pairs(path: str | Path, audio_dir: str | Path | None = None) -> list[SpokenPair]:
    """Return the pairs of a table; InputError tells all faults at once: columns, empty fields, ids twice, recordings missing."""
    path = Path(path)
    folder = path.parent if audio_dir is None else Path(audio_dir)
    pairs, faults, known = [], [], set()
    for number, row in table_rows(path, ("id", "target_text")):
        values = dict.fromkeys(COLUMNS, "") | row
        audio, target = folder / (values["audio"] or f"{values['id']}.wav"), folder / values["target_audio"]
        if not values["id"] or not values["target_text"]:
            faults.append(f"line {number} has no id or no target_text")
        elif values["id"] in known:
            faults.append(f"id {values['id']!r} is there twice")
        elif not os.path.isfile(audio):
            faults.append(f"the recording {audio} is missing")
        elif values["target_audio"] and not os.path.isfile(target):
            faults.append(f"the recording {target} is missing")
        else:
            kept = target if values["target_audio"] else None
            pairs.append(SpokenPair(values["id"], audio, values["target_text"], values["source_text"], kept))
        known.add(values["id"])
    if faults:
        more = f" and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise InputError(f"{path}: {'; '.join(faults[:FAULTS_SHOWN])}{more}: correct them.")
    if not pairs:
        raise InputError(f"{path} holds no pair: give at least one.")
    return pairs
