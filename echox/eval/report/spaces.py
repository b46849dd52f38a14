"""The three tasks measured, with a picture of both spaces, one column a model: two principal axes and, with umap-learn, UMAP."""

from collections.abc import Callable, Sequence
from pathlib import Path

from echox.data.pairs import SpokenPair
from echox.errors import MissingDependency
from echox.eval.model_under_test import marks_of
from echox.eval.report.plots import COLOURS, new_figure, to_svg, write_figure
from echox.eval.scorers.spaces import Place, Spaces, plane, umap_plane
from echox.eval.tables import Table
from echox.eval.tasks.three_tasks import TasksOptions, load_models, parse_tasks, read_spaces, run_tasks, spaces_tables


def measure_tasks(
    pairs: Sequence[SpokenPair],
    names: Sequence[str],
    tasks: str,
    how: tuple[Path, str, int | None],
    place: tuple[str, str | None],
    tell: Callable[[str], None],
) -> list[Table]:
    """Return the tables of the tasks named, comma-separated, and write the picture of spaces where they are among them.

    `how` is the folder for results, the pairs' name and the beam; `place` the device and the dtype.
    """
    wanted, models = parse_tasks(tasks), load_models(names, *place)
    tables = run_tasks(pairs, models, TasksOptions(wanted, *how, weights=marks_of(names)))
    if "spaces" not in wanted:
        return tables
    spaces = [(name, read_spaces(pairs, one)) for name, one in models.items() if one.model.speech is not None]
    write_figure(how[0] / "spaces.svg", lambda: draw_spaces(spaces, tell), tell)
    return [*tables, *spaces_tables(spaces)]


def draw_spaces(models: Sequence[tuple[str, Spaces]], tell: Callable[[str], None]) -> str:
    """Return an SVG: a row of panels by PCA and, where it is installed, one by UMAP; one colour a modality. Needs matplotlib."""
    ways: dict[str, Place] = {"PCA": plane}
    try:
        ways["UMAP"] = umap_plane()
    except MissingDependency as error:
        tell(f"principal axes alone: {error}")
    figure, axes = new_figure(3.2 * len(models), 3.2 * len(ways), len(ways), len(models))
    for row, (way, place) in zip(axes, ways.items(), strict=True):
        for panel, (name, found) in zip(row, models, strict=True):
            for colour, side, points in zip(COLOURS[:2], ("speech", "text"), place(found), strict=True):
                panel.scatter(points[:, 0], points[:, 1], s=4, alpha=0.6, color=colour, label=side)
            panel.set(title=f"{name}, {way}", xticks=[], yticks=[])
    axes[0][0].legend(fontsize=7)
    return to_svg(figure)
