"""One HTML file about one or more runs (page.html): side by side, tables, plots, and the worst items first with audio inside.

Each task of `echox eval` has tables of its own; runs of question answering stand side by side, too. Nothing is loaded from
elsewhere, so the file can be mailed or kept. Plots need matplotlib from the eval extra and are left out, with its install line in
their place, when it is absent. Knows nothing about models.
"""

import base64
import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from echox.errors import InputError, MissingDependency, require
from echox.eval import stats
from echox.eval.report.plots import draw_accuracy, draw_gap, draw_gaps
from echox.eval.results import Run, joined, qa_runs, read_all, read_files, titles_of
from echox.eval.tables import Items, Table, arms_of, by_arm, percent, shared
from echox.eval.tasks.gap import gap_tables
from echox.eval.tasks.hearing import hearing_tables
from echox.eval.tasks.ladder import ladder_tables
from echox.eval.tasks.latency import latency_tables
from echox.eval.tasks.load import load_tables
from echox.eval.tasks.qa_tables import qa_tables, worst_first
from echox.eval.tasks.speech import joins_tables, speech_tables
from echox.eval.tasks.translation import tasks_tables, translation_tables
from echox.files import JSON_BYTES, read_text, write_text

WORST = 60  # items listed in full
PLAYERS = 16  # of those, answers with audio inside
LARGEST_WAV = 600_000  # bytes of a file that is embedded as it is; longer ones go in as FLAC

TABLES: dict[str, Callable[[dict[str, Any], Items], list[Table]]] = {
    "qa": qa_tables,
    "speech": speech_tables,
    "joins": joins_tables,
    "latency": latency_tables,
    "load": load_tables,
    "ladder": ladder_tables,
    "hearing": hearing_tables,
    "translation": translation_tables,
    "tasks": tasks_tables,
    "gap": gap_tables,
}
"""What makes the tables of each task, in the order in which its file is shown where it lies beside another."""


def read_beside(paths: Sequence[Path]) -> list[Run]:
    """Return the runs of `read_all` and, where they can be read, those of every task that lie beside a given file."""
    found = read_files(paths)
    runs, known = joined(found), {path.resolve() for path in found}
    folders = dict.fromkeys(path.parent for path in known)
    for path in (folder / f"{task}.jsonl" for folder in folders for task in TABLES):
        if path.is_file() and path not in known:
            with suppress(InputError):  # an old or half-written file that nobody asked for
                runs += read_all([path])
    return runs


def tables_of(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the tables of one run, by the task that its settings name; a task without tables has none."""
    make = TABLES.get(str(settings.get("task", "qa")))
    return [] if make is None else make(settings, items)


def side_by_side(runs: Sequence[Run]) -> Table:
    """Return accuracy by arm and run, and each later run minus the first one over the questions that both have."""
    own = qa_runs(runs)
    names = [f"{chr(ord('A') + place)}: {title}" for place, title in enumerate(titles_of(own))]
    rows = []
    for arm in arms_of([item for _, items in own for item in items]):
        answers = [by_arm(items).get(arm, []) for _, items in own]
        scores = [[item["score"] for item in each] for each in answers]
        cells = [f"{percent(stats.mean(each))}, n={len(each)}" if each else "-" for each in scores]
        rows.append((arm, *cells, *(_minus(other, answers[0]) for other in answers[1:])))
    head = ("arm", *(f"{name}, %" for name in names), *(f"{name[0]} - A, points" for name in names[1:]))
    rules = {(run[0].get("scorer"), run[0].get("normaliser"), run[0].get("judge")) for run in own}
    named = [f"scorer {a or '?'} (normaliser: {b or '?'}), judge {c or 'none'}" for a, b, c in sorted(rules, key=str)]
    note = f"{'; '.join(named)}. "
    note += "Differences: the questions with the same id, text and answers in both, paired bootstrap."
    note += "" if len(rules) == 1 else " The runs were scored by different rules or judges: do not compare them."
    return Table("Side by side", head, tuple(rows), note)


def _minus(other: Items, first: Items) -> str:
    """Return the paired difference of an arm between two runs, or a dash when they share no question."""
    both = shared(sorted(other, key=lambda item: item["id"]), first)
    same = [(a, b) for a, b in both if (a["question"], a["answers"]) == (b["question"], b["answers"])]
    scores, base = ([pair[side]["score"] for pair in same] for side in (0, 1))
    return f"{percent(stats.difference(scores, base))}, n={len(scores)}" if scores else "-"


def write_report(paths: Sequence[Path], out: Path, tell: Callable[[str], None]) -> list[Table]:
    """Return the tables of results files and write them as table.md and report.html into `out`."""
    tables = write_html(out / "report.html", read_beside(paths), tell)
    write_text(out / "table.md", "\n".join(table.markdown() for table in tables))
    return tables


def write_html(path: Path, runs: Sequence[Run], tell: Callable[[str], None]) -> list[Table]:
    """Write the page of `runs` (settings, items) and return its tables, titled by their models; OutputError where it cannot be."""
    jinja = require("jinja2", "eval")
    asked, titles, shown = qa_runs(runs), titles_of(runs), []
    beside = [side_by_side(runs)] if len(asked) > 1 else []
    figures = _figures(lambda: [draw_accuracy(asked), draw_gaps(asked)] if asked else [], tell)
    for title, (settings, items) in zip(titles, runs, strict=True):
        run = {"title": title, "tables": tables_of(settings, items)}
        run["settings"] = [(name, value) for name, value in settings.items() if name not in ("type", "folder")]
        run["arms"] = _worst_by_arm(items) if settings.get("task", "qa") == "qa" else []
        views = items if settings.get("task") == "gap" else []
        run["figures"] = _figures(lambda views=views: [draw_gap(views)] if views else [], tell)
        shown.append(run)
    text = read_text(Path(__file__).with_name("page.html"), JSON_BYTES)
    page = jinja.Template(text, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    title = ", ".join(dict.fromkeys(titles))
    write_text(path, page.render(title=title, beside=beside, figures=figures, runs=shown) + "\n")
    return beside + [replace(one, title=f"{run['title']}: {one.title}") for run in shown for one in run["tables"]]


def _worst_by_arm(items: Items) -> list[dict[str, Any]]:
    """Return each arm's worst items, the first spoken ones with a player."""
    found = []
    for name, own in reversed(arms_of(items).items()):
        worst, players = [], PLAYERS
        for item in worst_first(own)[:WORST]:
            plays = item.get("audio") and players > 0
            players -= bool(item.get("audio"))
            place = Path(item.get("folder", ".")) / str(item.get("audio"))
            worst.append(item | {"player": embedded_audio(place) if plays else ""})
        found.append({"name": name, "count": len(own), "worst": worst})
    return found


def embedded_audio(path: Path) -> Markup:
    """Return a player with the file inside, long ones as FLAC, or a note when it is missing or not audio."""
    import soundfile

    buffer, kind = io.BytesIO(), "wav"
    try:
        content = path.read_bytes()
        if len(content) > LARGEST_WAV:
            samples, rate = soundfile.read(path, dtype="int16")
            soundfile.write(buffer, samples, rate, format="FLAC", subtype="PCM_16")
            content, kind = buffer.getvalue(), "flac"
    except (OSError, RuntimeError):
        return Markup('<span class="note">{}: audio missing or broken</span>').format(path.name)
    data = base64.b64encode(content).decode()
    return Markup('<audio controls preload="none" src="data:audio/{};base64,{}"></audio>').format(kind, data)


def _figures(draw: Callable[[], list[str]], tell: Callable[[str], None]) -> Markup:
    try:
        return Markup("").join(Markup(f"<figure>{drawing}</figure>") for drawing in draw() if drawing)
    except MissingDependency as error:
        tell(f"the report has no plots: {error}")
        return Markup('<p class="note">No plots: {}</p>').format(error)
