"""One HTML file about one or more runs: side by side, tables, plots, and the worst items first with audio inside.

Nothing is loaded from elsewhere, so the file can be mailed or kept. Plots need matplotlib from the eval extra and are
left out, with its install line in their place, when it is absent. Knows nothing about models.
"""

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from echox.errors import MissingDependency
from echox.eval.report.plots import draw_gap, draw_runs
from echox.eval.report.summary import all_tables, side_by_side, tables_of
from echox.eval.results import Run, qa_runs, read_beside, titles_of
from echox.eval.tables import Table, arms_of
from echox.eval.tasks.qa_tables import worst_first
from echox.files import write_text

WORST = 60  # items listed in full
PLAYERS = 16  # of those, answers with audio inside
LARGEST_WAV = 600_000  # bytes of a file that is embedded as it is; longer ones go in as FLAC

HIDDEN = ("type", "folder", "tables", "views", "typed_against_spoken")
"""Settings that are shown elsewhere or nowhere."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1c1c1c; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
td, th { border: 1px solid #ccc; padding: .3rem .6rem; text-align: left; vertical-align: top; }
th { background: #f3f3f3; } .note { color: #555; font-size: .9em; } .bad { color: #a00; } .good { color: #070; }
audio { height: 2rem; width: 16rem; } svg { max-width: 100%; height: auto; }
"""


def write_report(paths: Sequence[Path], out: Path, tell: Callable[[str], None]) -> list[Table]:
    """Return the tables of results files and write them as table.md and report.html into `out`."""
    runs = read_beside(paths)
    tables = all_tables(runs)
    write_text(out / "table.md", "\n".join(table.markdown() for table in tables))
    write_html(out / "report.html", runs, tell)
    return tables


def write_html(path: Path, runs: Sequence[Run], tell: Callable[[str], None]) -> None:
    """Write the report of `runs` (settings, items) atomically; raise OutputError when the place cannot be written."""
    asked, titles = qa_runs(runs), titles_of(runs)
    parts = [f"<h1>{html.escape(', '.join(dict.fromkeys(titles)))}</h1>"]
    if len(asked) > 1:
        parts.append(table_html(side_by_side(runs)))
    if asked:
        parts.append(_plots(lambda: draw_runs(asked), tell))
    for title, (settings, items) in zip(titles, runs, strict=True):
        parts.append(f"<h2>{html.escape(title)}</h2>")
        parts += [table_html(table) for table in tables_of(settings, items)]
        if settings.get("task") == "gap" and settings.get("views"):
            parts.append(_plots(lambda views=settings["views"]: [draw_gap(views)], tell))
        parts.append(_settings(settings))
        if settings.get("task", "qa") == "qa":
            parts.append(_items(items))
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>echox eval</title><style>{STYLE}</style>'
    page = f"{head}</head><body>{''.join(parts)}</body></html>\n"
    write_text(path, page)


def table_html(table: Table) -> str:
    """Return a table as HTML, its text escaped."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.head)
    rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return f"<h3>{html.escape(table.title)}</h3><table><tr>{head}</tr>{rows}</table>{note}"


def embedded_audio(path: Path) -> str:
    """Return a player with the file inside, long ones as FLAC, or a note when it is missing or not audio."""
    kind = "wav"
    try:
        content = path.read_bytes()
        if len(content) > LARGEST_WAV:
            content, kind = _as_flac(path), "flac"
    except (OSError, RuntimeError):
        return f'<span class="note">{html.escape(path.name)}: audio missing or broken</span>'
    data = base64.b64encode(content).decode()
    return f'<audio controls preload="none" src="data:audio/{kind};base64,{data}"></audio>'


def _as_flac(path: Path) -> bytes:
    """Return an audio file as FLAC, without loss; raise RuntimeError when it cannot be read."""
    import soundfile

    samples, rate = soundfile.read(path, dtype="int16")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _plots(draw: Callable[[], list[str]], tell: Callable[[str], None]) -> str:
    try:
        return "".join(f"<figure>{drawing}</figure>" for drawing in draw())
    except MissingDependency as error:
        tell(f"the report has no plots: {error}")
        return f'<p class="note">No plots: {html.escape(str(error))}</p>'


def _settings(settings: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(str(value))}</td></tr>"
        for key, value in settings.items()
        if key not in HIDDEN
    )
    return f"<details><summary>Settings</summary><table>{rows}</table></details>"


def _items(items: Sequence[dict[str, Any]]) -> str:
    sections = []
    for arm, own in reversed(arms_of(items).items()):
        worst = worst_first(own)[:WORST]
        players = PLAYERS
        rows = []
        for item in worst:
            rows.append(_item_row(item, players > 0))
            players -= bool(item.get("audio"))
        head = "<tr><th>id</th><th>question</th><th>answers</th><th>text</th><th>heard by the judge</th><th></th></tr>"
        summary = f"{html.escape(arm)}: the worst {len(worst)} of {len(own)}"
        sections.append(f"<details><summary>{summary}</summary><table>{head}{''.join(rows)}</table></details>")
    return "<h3>Items, worst first</h3>" + "".join(sections)


def _item_row(item: dict[str, Any], with_audio: bool) -> str:
    mark = f'<b class="{"good" if item["score"] else "bad"}">{item["score"]:g}</b>'
    if item.get("error"):
        mark += f' <span class="bad">{html.escape(item["error"])}</span>'
    if item.get("cut"):
        mark += " cut"
    if item.get("audio") and with_audio:
        mark += embedded_audio(Path(item.get("folder", ".")) / item["audio"])
    question = html.escape(item["question"])
    if item.get("heard"):
        question += f'<br><span class="note">heard: {html.escape(item["heard"])}</span>'
    said = "" if item.get("transcript") is None else html.escape(item["transcript"])
    id, answers, text = map(html.escape, (item["id"], " | ".join(item["answers"]), item["text"]))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in (id, question, answers, text, said, mark))}</tr>"
