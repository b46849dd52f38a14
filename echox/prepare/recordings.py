"""The `recordings` step: your own recordings and a table of their texts become a corpus that refers to them in place.

    id <tab> text                                         `id` alone where a voice is all that is wanted of them
    id <tab> question <tab> answers <tab> audio           a questions file of `echox eval`; `audio` may be left out: <id>.wav

Nothing is copied: manifests name the files, which are mixed to mono and resampled when they are read. It knows no model.
"""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from echox.audio import SAMPLE_RATE, load_audio
from echox.data.manifest import tell_dropped, write_shards
from echox.data.tables import answers_in, table_rows
from echox.errors import InputError
from echox.prepare.filters import MAX_REAL_SECONDS

log = logging.getLogger(__name__)


def write_recordings(table: Path, folder: Path, out: Path, longest: float = MAX_REAL_SECONDS) -> int:
    """Write the corpus `out` of the recordings that `table` names in `folder`, and return how many there are.

    Skipped and counted are recordings that cannot be read (with a warning) or are longer than `longest` seconds, and rows without
    an id, a text or an answer to their question. InputError where the table lacks a column or repeats an id, `folder` is not
    one, or nothing is left.
    """
    records: dict[str, dict[str, Any]] = {}
    dropped = Counter[str]()
    rows = [row for _, row in table_rows(table, ("id",))]
    twice = [name for name, count in Counter(row["id"] for row in rows).items() if name and count > 1]
    if twice:
        raise InputError(f"{table} gives the id {twice[0]!r} twice: give every recording its own.")
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give that of the recordings.")
    columns = set(rows[0] if rows else ())
    wordless = not {"text", "question"} & columns
    for row in rows:
        name, question, path = row["id"], row.get("question", ""), folder / (row.get("audio") or f"{row['id']}.wav")
        text, answers = row.get("text") or question, answers_in(row.get("answers", ""))
        if not name or not (text or wordless):
            dropped["without an id or a text"] += 1
            continue
        if "question" in columns and not answers:
            dropped["without an answer"] += 1
            continue
        try:
            samples = len(load_audio(path))
        except InputError as error:
            log.warning("%s", error)
            dropped["missing, silent or unreadable"] += 1
            continue
        if samples > longest * SAMPLE_RATE:
            dropped[f"over {longest:g} s"] += 1
            continue
        place = {"id": name, "audio": str(path.resolve()), "samples": samples, "sample_rate": SAMPLE_RATE}
        records[name] = place if wordless else place | {"text": text}
        if answers:
            asked = {"question_id": name, "question": question or text, "answers": answers, "answer": answers[0]}
            records[name] = records[name] | asked
    tell_dropped(dropped, len(records), "recordings")
    write_shards(out, list(records.values()))
    return len(records)
