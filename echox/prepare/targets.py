"""Answers to learn from: the text model's own where they hold a gold answer, a short carrier sentence elsewhere; file to file.

What the text model already knows it keeps in its own words; what it got wrong it is not asked to repeat. Questions without a
gold answer (small talk) take the model's own first sentence.
"""

import re
from pathlib import Path
from typing import Any

from echox.data.manifest import read_jsonl, write_jsonl
from echox.text.normalize import holds_answer

CARRIER = "The answer is {}."
LONGEST = 18  # words of a sentence that is kept


SENTENCE = re.compile(r"\s*(.+?(?<!\b[A-Z])(?<!\b(?:Mr|Dr|St))(?<!\bMrs)[.!?])(?=\s|$)", flags=re.S)


def first_sentence(text: str) -> str:
    """Return the text up to its first sentence end, or '' when it does not end."""
    match = SENTENCE.match(text)
    return " ".join(match.group(1).split()) if match else ""


def target(answers: list[str], own: str | None) -> str | None:
    """Return the answer to learn, or None when there is none worth learning."""
    sentence = first_sentence(own or "")
    short = bool(sentence) and len(sentence.split()) <= LONGEST
    if answers and not (short and holds_answer(sentence, answers)):
        return CARRIER.format(answers[0].strip().rstrip("."))
    return sentence if short else None


def write_targets(questions: Path, own: list[dict[str, Any]], out: Path) -> None:
    """Write {"id", "question", "answer"} lines.

    `questions` hold gold answers, `own` the model's typed answers by id; ids that only `own` holds are small talk.
    """
    said = {record["id"]: record for record in own}
    rows: list[dict[str, Any]] = []
    known = set()
    for record in read_jsonl(questions):
        known.add(record["id"])
        mine = said.get(record["id"], {}).get("answer")
        answer = target(record.get("answers") or [], mine)
        if answer is not None:
            rows.append({"id": record["id"], "question": record["question"], "answer": answer})
    for record in said.values():
        answer = None if record["id"] in known else target([], record["answer"])
        if answer is not None:
            rows.append({"id": record["id"], "question": record["question"], "answer": answer})
    write_jsonl(out, rows)
