"""`echox eval translation --tasks`: tables and a picture of what models that write do; all work is in echox/eval."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from echox.data.pairs import SpokenPair
    from echox.eval.tables import Table


def three_tasks(
    pairs: list["SpokenPair"],
    names: list[str],
    tasks: str,
    how: tuple[Path, str, int | None],
    device: str,
    dtype: str | None,
) -> list["Table"]:
    """Return the tables of the tasks named; `how` is the folder for results, the pairs' name, and the beam."""
    from echox.eval.model_under_test import marks_of
    from echox.eval.report.spaces import write_spaces_figure
    from echox.eval.tasks.three_tasks import (
        TasksOptions,
        load_models,
        parse_tasks,
        read_spaces,
        run_tasks,
        spaces_table,
    )

    wanted, models = parse_tasks(tasks), load_models(names, device, dtype)
    tables = run_tasks(pairs, models, TasksOptions(wanted, *how, weights=marks_of(names)))
    if "spaces" in wanted:
        spaces = [(name, read_spaces(pairs, one)) for name, one in models.items() if one.model.speech is not None]
        write_spaces_figure(how[0], spaces, typer.echo)
        tables.append(spaces_table(spaces))
    return tables
