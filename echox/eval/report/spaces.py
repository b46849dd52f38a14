"""The picture of both spaces: speech and transcripts on their first two principal axes, one panel a model."""

from collections.abc import Callable, Sequence
from pathlib import Path

from echox.errors import MissingDependency
from echox.eval.report.plots import COLOURS, new_figure, to_svg
from echox.eval.scorers.spaces import Spaces, plane
from echox.files import write_text


def write_spaces_figure(folder: Path, models: Sequence[tuple[str, Spaces]], tell: Callable[[str], None]) -> None:
    """Write spaces.svg into `folder`, or tell why there is none."""
    try:
        write_text(folder / "spaces.svg", draw_spaces(models))
    except MissingDependency as error:
        tell(f"no figure: {error}")


def draw_spaces(models: Sequence[tuple[str, Spaces]]) -> str:
    """Return an SVG: one panel a model, one colour a modality. Needs matplotlib."""
    figure, axes = new_figure(3.2 * len(models), 3.2, columns=len(models))
    for panel, (name, found) in zip(axes[0], models, strict=True):
        for place, (side, points) in enumerate(zip(("speech", "text"), plane(found), strict=True)):
            panel.scatter(points[:, 0], points[:, 1], s=4, alpha=0.6, color=COLOURS[place], label=side)
        panel.set(title=name, xticks=[], yticks=[])
    axes[0][0].legend(fontsize=7)
    return to_svg(figure)
