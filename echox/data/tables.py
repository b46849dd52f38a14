"""Lines of published texts, and tab-separated tables whose first line names the columns; it knows no model."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from echox.errors import InputError
from echox.files import LINES_BYTES, read_text, write_text

ANSWER_MARK = " | "
HEADER_SHOWN = 80  # characters


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, ended by line feeds, or by carriage returns where it has none: no other separator ends one."""
    text = text.replace("\r\n", "\n")
    return text.replace("\r", " " if "\n" in text else "\n").removesuffix("\n").split("\n") if text else []


def table_rows(path: str | Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Return (line number, stripped cells by column) of every line that says something; InputError where it is no such table."""
    lines = ([cell.strip() for cell in line.split("\t")] for line in lines_of(read_text(path, LINES_BYTES)))
    header = next(lines, [])
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(
            f"{path} lacks the column {', '.join(missing)}: its first line must name {', '.join(columns)}, tab separated, "
            f"and is {' '.join(header)[:HEADER_SHOWN]!r}."
        )
    rows = []
    for number, cells in enumerate(lines, start=2):
        if len(cells) > len(header):
            raise InputError(f"{path} line {number} has {len(cells)} fields for {len(header)} columns: mend its tabs.")
        if any(cells):
            rows.append((number, dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))))
    return rows


def write_rows(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write what `table_rows` reads; tabs and line ends inside cells become blanks."""
    cells = [[" ".join(str(row.get(name, "")).split()) for name in columns] for row in rows]
    write_text(path, "".join("\t".join(line) + "\n" for line in [columns, *cells]))


def answers_in(cell: str) -> list[str]:
    """Return the accepted answers that a cell names."""
    return [answer.strip() for answer in cell.split(ANSWER_MARK.strip()) if answer.strip()]
