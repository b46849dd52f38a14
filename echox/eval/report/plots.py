"""Drawings as SVG text, by matplotlib from the eval extra; every function takes numbers and returns one `<svg>`."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from echox.errors import require
from echox.eval import stats
from echox.eval.tables import arms_of, pair

Runs = Sequence[tuple[dict[str, Any], list[dict[str, Any]]]]

COLOURS = ("#30638e", "#d1495b", "#edae49", "#00798c", "#6a4c93", "#5f6b6d")


def draw_runs(runs: Runs) -> list[str]:
    """Return the drawings of question-answering runs: accuracy by arm, the gaps, word errors of single answers.

    Raises MissingDependency without matplotlib.
    """
    drawings = [draw_accuracy(runs), draw_gaps(runs)]
    if any(item.get("words") for _, items in runs for item in items):
        drawings.append(draw_word_errors(runs))
    return [drawing for drawing in drawings if drawing]


def draw_accuracy(runs: Runs) -> str:
    """Return bars of accuracy by arm, one colour a run, with 95 % intervals."""
    arms = arms_of([item for _, items in runs for item in items])
    figure, axes = new_figure(max(5.0, 1.2 * len(arms) + 2), 3.4)
    width = 0.8 / len(runs)
    for place, (settings, items) in enumerate(runs):
        found = [(i, [float(x["score"]) for x in items if x["arm"] == arm]) for i, arm in enumerate(arms)]
        found = [(i, stats.mean(np.array(scores))) for i, scores in found if scores]
        values = np.array([100 * interval.value for _, interval in found])
        low = values - np.array([100 * interval.low for _, interval in found])
        high = np.array([100 * interval.high for _, interval in found]) - values
        at = np.array([i for i, _ in found]) + (place - (len(runs) - 1) / 2) * width
        colour = COLOURS[place % len(COLOURS)]
        axes.bar(at, values, width * 0.9, yerr=[low, high], color=colour, capsize=3, label=str(settings.get("model")))
    axes.set_xticks(range(len(arms)), arms)
    axes.set_ylabel(f"accuracy %, {runs[0][0].get('scorer', '')}")
    if len(runs) > 1:
        axes.legend(fontsize=7)
    return to_svg(figure)


def draw_gaps(runs: Runs) -> str:
    """Return the differences between arms with their intervals, or an empty string when no run has two arms."""
    names = (("s2t", "t2t"), ("s2s", "s2t"), ("s2s", "teacher"), ("s2s", "cascade"))
    figure, axes = new_figure(6.0, 2.6)
    drawn = False
    for place, (settings, items) in enumerate(runs):
        for row, (first, second) in enumerate(names):
            scores, others = pair(items, first, second)
            if not len(scores):
                continue
            found = stats.difference(scores, others)
            at = row + (place - (len(runs) - 1) / 2) * 0.2
            label = None if drawn and len(runs) == 1 else str(settings.get("model"))
            axes.plot([100 * found.low, 100 * found.high], [at, at], color=COLOURS[place % len(COLOURS)], linewidth=2)
            axes.plot([100 * found.value], [at], "o", color=COLOURS[place % len(COLOURS)], label=label)
            drawn = True
    axes.axvline(0, color="#888", linewidth=0.8)
    axes.set_yticks(range(len(names)), [f"{first} - {second}" for first, second in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("points")
    return to_svg(figure) if drawn else ""


def draw_word_errors(runs: Runs) -> str:
    """Return, by spoken arm, the share of answers whose word error rate is at most x."""
    figure, axes = new_figure(6.0, 3.0)
    for place, (settings, items) in enumerate(runs):
        for style, arm in zip(("-", "--", ":"), ("s2s", "teacher", "cascade"), strict=True):
            own = [item for item in items if item["arm"] == arm and item.get("words")]
            if not own:
                continue
            rates = np.sort([100 * item["word_edits"] / item["words"] for item in own])
            share = 100 * np.arange(1, len(rates) + 1) / len(rates)
            label = f"{settings.get('model')} {arm}"
            axes.step(
                np.clip(rates, 0, 100), share, style, where="post", color=COLOURS[place % len(COLOURS)], label=label
            )
    axes.set_xlabel("word error rate of one answer against its own text, %")
    axes.set_ylabel("answers, %")
    axes.legend(fontsize=7)
    return to_svg(figure)


def to_svg(figure: Any) -> str:
    """Return a figure as `<svg>...</svg>`, the same bytes for the same numbers."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", bbox_inches="tight", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    content = buffer.getvalue()
    return content[content.index("<svg") :]


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure in inches and its axes, a list of lists when there is more than one; needs matplotlib."""
    require("matplotlib", "eval")
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "echox"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes[0][0] if rows * columns == 1 else axes.tolist()
