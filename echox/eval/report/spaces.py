"""The three tasks measured, with a picture of both spaces, one column a model: two principal axes and, with umap-learn, UMAP."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from echox.audio import load_audio
from echox.data.pairs import SpokenPair
from echox.errors import ConfigError, MissingDependency
from echox.eval.model_under_test import Failure, attempt
from echox.eval.questions import chosen, take
from echox.eval.report.plots import COLOURS, new_figure, to_svg, write_figure
from echox.eval.scorers.spaces import Place, Spaces, length_probe, modality_probe, plane, retrieval, umap_plane
from echox.eval.tables import Table, over_seeds, percent
from echox.eval.tasks.translation import TASKS, WRITTEN_BATCH, TranslationOptions, load_models, run_tasks
from echox.generate.joint import JointTranslator


def measure_tasks(
    pairs: Sequence[SpokenPair],
    names: Sequence[str],
    tasks: str,
    options: TranslationOptions,
    how: tuple[str, str | None, int | None],
    tell: Callable[[str], None],
) -> list[Table]:
    """Return the tables of the tasks named and write the picture of spaces where they are among them.

    `how` is the device, the dtype and the beam. Raises ConfigError for an unknown task, no model, or one that does other tasks.
    """
    wanted = chosen(tasks, TASKS, "--tasks")
    models: dict[str, Any] = {name: found.model for name, found in load_models(names, *how[:2]).items()}
    if not models:
        raise ConfigError("there is nothing to measure: give --model.")
    for name, model in models.items():
        if not isinstance(model, JointTranslator):
            raise ConfigError(f"{name} writes no text: leave --tasks out to measure its speech.")
    tables = run_tasks(pairs, models, wanted, options, how[2])
    if "spaces" not in wanted:
        return tables
    hear = [(name, one) for name, one in models.items() if one.model.speech is not None]
    spaces = [(name, read_spaces(take(pairs, options.limit), one)) for name, one in hear]
    write_figure(options.out / "spaces.svg", lambda: draw_spaces(spaces, tell), tell)
    return [*tables, *spaces_tables(spaces)]


def read_spaces(pairs: Sequence[SpokenPair], model: JointTranslator) -> Spaces:
    """Return the mean encoder states of the recordings that can be read and of their transcripts."""
    means: list[list[np.ndarray]] = [[], []]
    lengths: list[list[int]] = [[], []]
    for first in range(0, len(pairs), WRITTEN_BATCH):
        found = [(pair, attempt(partial(load_audio, pair.audio))) for pair in pairs[first : first + WRITTEN_BATCH]]
        some = [both for both in found if not isinstance(both[1], Failure)]
        if not some:
            continue
        speech, _ = model.speech_states([wave for _, wave in some])
        for side, states in enumerate((speech, model.text_states([pair.source_text for pair, _ in some]))):
            for row, mask in zip(states.states_BNW, states.mask_BN, strict=True):
                means[side].append(row[mask].float().mean(0).cpu().numpy())
                lengths[side].append(int(mask.sum()))
    return Spaces(np.stack(means[0]), np.stack(means[1]), np.array(lengths[0]), np.array(lengths[1]))


def spaces_tables(models: Sequence[tuple[str, Spaces]]) -> list[Table]:
    """Return the probes and the retrieval of every model, and over seeds."""
    measures = {"probe": modality_probe, "lengths": length_probe, "retrieval": retrieval}
    found = {name: {kind: measure(one) for kind, measure in measures.items()} for name, one in models}
    rows = [(name, str(len(one.text_NW)), *map(percent, found[name].values())) for name, one in models]
    note = "Fresh linear probes, five folds over sentences: speech or text? 50 % is chance; by length alone beside it."
    head = ("model", "n", "modality probe %", "length probe %", "retrieval %")
    numbers = {f"{name} {kind}": 100 * one.value for name, mine in found.items() for kind, one in mine.items()}
    return [Table("Spaces", head, tuple(rows), note), *over_seeds(numbers, "In %.")]


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
