"""The drawing of a load run: when each answer began to sound, and which of them broke off or failed."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from echox.eval.report.plots import COLOURS, new_figure, to_svg, write_figure
from echox.eval.results import read_results

MARKS = ((50, "-"), (95, "--"), (99, ":"))  # shares of answers that are marked, and how


def write_load_figure(folder: Path, tell: Callable[[str], None]) -> None:
    """Write load.svg beside a folder's load.jsonl, or tell why there is none."""
    _, answers = read_results(folder / "load.jsonl")
    write_figure(folder / "load.svg", lambda: draw_load(answers), tell)


def draw_load(answers: Sequence[Mapping[str, Any]]) -> str:
    """Return an SVG of answers in the order in which they ended: first audio of each, and the share that began by then.

    Needs matplotlib.
    """
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
    for share, style in MARKS if len(begun) else ():
        at = float(np.percentile(begun, share))
        right.axvline(at, color="#bbb", linestyle=style, linewidth=1, label=f"p{share}: {at:.3f} s")
    right.set(xlabel="first audio, s", ylabel="answers that have begun, %", ylim=(0, 102), xlim=(0, None))
    if len(begun):
        right.legend(fontsize=7)
    return to_svg(figure)
