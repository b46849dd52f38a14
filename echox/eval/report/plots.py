"""Drawings as SVG text, by matplotlib from the eval extra; every function takes numbers and returns one `<svg>`."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from echox.errors import MissingDependency, require
from echox.eval import stats
from echox.eval.results import Run, titles_of
from echox.eval.scorers.states import COSINES, RELATIONS, Place, Spaces, plane, umap_plane
from echox.eval.tables import Items, arms_of, by_arm, pair
from echox.eval.tasks.gap import LENGTH_ONLY
from echox.files import write_text

LOAD_SHARES = ((50, "-"), (95, "--"), (99, ":"))  # of answers that have begun, and how they are marked
COLOURS = ("#30638e", "#d1495b", "#edae49", "#00798c", "#6a4c93", "#5f6b6d")


def draw_accuracy(runs: Sequence[Run]) -> str:
    """Return bars of accuracy by arm, one colour a run, with 95 % intervals."""
    arms = list(arms_of([item for _, items in runs for item in items]))
    figure, [[axes]] = new_figure(max(5.0, 1.2 * len(arms) + 2), 3.4)
    width = 0.8 / len(runs)
    for place, (title, (_, items)) in enumerate(zip(titles_of(runs), runs, strict=True)):
        own = by_arm(items)
        at = [i + (place - (len(runs) - 1) / 2) * width for i, arm in enumerate(arms) if arm in own]
        found = [stats.mean([item["score"] for item in own[arm]]) for arm in arms if arm in own]
        values, low, high = 100 * np.array([(one.value, one.low, one.high) for one in found]).reshape(-1, 3).T
        colour = COLOURS[place % len(COLOURS)]
        errors = np.maximum([values - low, high - values], 0)  # equal fractions differ by rounding
        axes.bar(at, values, width * 0.9, yerr=errors, color=colour, capsize=3, label=title)
    axes.set_xticks(range(len(arms)), arms)
    axes.set_ylabel(f"accuracy %, {runs[0][0].get('scorer', '')}")
    if len(runs) > 1:
        axes.legend(fontsize=7)
    return to_svg(figure)


def write_figure(path: Path, draw: Callable[[], str], tell: Callable[[str], None]) -> None:
    """Write a drawing, or tell why there is none."""
    try:
        write_text(path, draw())
    except MissingDependency as error:
        tell(f"no figure: {error}")


def draw_gaps(runs: Sequence[Run]) -> str:
    """Return the differences between arms with their intervals, or an empty string when no run has two arms."""
    names = (("s2t", "t2t"), ("s2s", "s2t"), ("s2s", "teacher"), ("s2s", "cascade"))
    figure, [[axes]] = new_figure(6.0, 2.6)
    drawn = False
    for place, (label, (_, items)) in enumerate(zip(titles_of(runs), runs, strict=True)):
        for row, (first, second) in enumerate(names):
            scores, others = pair(items, first, second)
            if not len(scores):
                continue
            found = stats.difference(scores, others)
            at, colour = row + (place - (len(runs) - 1) / 2) * 0.2, COLOURS[place % len(COLOURS)]
            axes.plot([100 * found.low, 100 * found.high], [at, at], color=colour, linewidth=2)
            axes.plot([100 * found.value], [at], "o", color=colour, label=label)
            drawn, label = True, ""  # each run is named once
    axes.axvline(0, color="#888", linewidth=0.8)
    axes.set_yticks(range(len(names)), [f"{first} - {second}" for first, second in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("points")
    if drawn and len(runs) > 1:
        axes.legend(fontsize=7)
    return to_svg(figure) if drawn else ""


def draw_gap(items: Items) -> str:
    """Return a gap's views as SVG: cosines by layer (other anchors' dashed), below them the probes, length alone's dotted."""
    views = {view["id"]: view for view in items}
    baseline = views.pop(LENGTH_ONLY, None)
    figure, axes = new_figure(2.9 * len(views) + 0.8, 4.8, rows=2, columns=len(views))
    for (upper, lower), (title, view) in zip(zip(*axes, strict=True), views.items(), strict=True):
        cosines_LR = np.array(view["cosines"])
        depth, style = np.arange(len(cosines_LR)), "o" if len(cosines_LR) == 1 else "-"
        for relation, name in enumerate(COSINES):
            dashed = style if style == "o" or relation < len(RELATIONS) else "--"
            upper.plot(depth, cosines_LR[:, relation], dashed, color=COLOURS[relation % len(RELATIONS)], label=name)
        for place, name in enumerate(RELATIONS[:2]):
            lower.plot(depth, 100 * np.array(view["probes"][name]), style, color=COLOURS[place], label=name)
            if baseline:
                lower.axhline(100 * baseline["probes"][name][0], color=COLOURS[place], linestyle=":", linewidth=1)
        upper.axhline(0, color="#bbb", linewidth=0.8)
        lower.axhline(50, color="#bbb", linewidth=0.8)
        upper.set_title(title, fontsize=10)
        lower.set(ylim=(30, 102), xlabel="layer")
    axes[0][0].set_ylabel("cosine with the anchor, centred")
    axes[1][0].set_ylabel("probe accuracy %")
    axes[0][-1].legend(fontsize=7)
    return to_svg(figure)


def draw_load(answers: Sequence[Mapping[str, Any]]) -> str:
    """Return answers in the order in which they ended as SVG: first audio of each, and the share that had begun by then."""
    figure, [[left, right]] = new_figure(8.2, 3.2, columns=2)
    places = np.arange(1, len(answers) + 1)
    broken = np.array([one["underruns"] > 0 for one in answers])
    failed = np.array([bool(one["error"]) for one in answers])
    first = np.array([np.nan if one["first_audio"] is None else one["first_audio"] for one in answers])
    for chosen, colour, name in ((~broken & ~failed, COLOURS[0], "in one go"), (broken, COLOURS[1], "broke off")):
        if chosen.any():
            left.plot(places[chosen], first[chosen], ".", color=colour, label=f"{name}: {int(chosen.sum())}")
    if failed.any():
        left.plot(places[failed], np.zeros(int(failed.sum())), "x", color=COLOURS[2], label=f"failed: {failed.sum()}")
    left.set(xlabel="answer", ylabel="first audio, s", ylim=(0, None))
    left.legend(fontsize=7)
    begun = np.sort(first[np.isfinite(first)])
    right.step(begun, 100 * np.arange(1, len(begun) + 1) / max(len(begun), 1), where="post", color=COLOURS[0])
    for share, style in LOAD_SHARES if len(begun) else ():
        at = float(np.percentile(begun, share))
        right.axvline(at, color="#bbb", linestyle=style, linewidth=1, label=f"p{share}: {at:.3f} s")
    right.set(xlabel="first audio, s", ylabel="answers that have begun, %", ylim=(0, 102), xlim=(0, None))
    if len(begun):
        right.legend(fontsize=7)
    return to_svg(figure)


def draw_spaces(models: Sequence[tuple[str, Spaces]], tell: Callable[[str], None]) -> str:
    """Return a row of panels by PCA and, where it is installed, one by UMAP, as SVG; one colour a modality."""
    ways: dict[str, Place] = {"PCA": plane}
    try:
        ways["UMAP"] = umap_plane()
    except MissingDependency as error:
        tell(f"principal axes alone: {error}")
    figure, axes = new_figure(3.2 * len(models), 3.2 * len(ways), len(ways), len(models))
    for row, (way, place) in zip(axes, ways.items(), strict=True):
        for panel, (name, found) in zip(row, models, strict=True):
            for colour, side, points in zip(COLOURS[:2], ("speech", "text"), found.placed(place), strict=True):
                panel.scatter(points[:, 0], points[:, 1], s=4, alpha=0.6, color=colour, label=side)
            panel.set(title=f"{name}, {way}", xticks=[], yticks=[])
    axes[0][0].legend(fontsize=7)
    return to_svg(figure)


def to_svg(figure: Any) -> str:
    """Return a figure as `<svg>...</svg>`, the same bytes for the same numbers."""
    buffer, notes = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata=notes)
    content = buffer.getvalue()
    return content[content.index("<svg") :]


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure in inches and its axes, a list of lists; needs matplotlib."""
    require("matplotlib", "eval")
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "echox"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes.tolist()
