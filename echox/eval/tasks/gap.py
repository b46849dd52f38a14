"""The acoustic-semantic gap as a benchmark: do states of alike-sounding words lie together, or of alike-meaning ones?

EchoX (arXiv 2509.09174, section 5.2) looked at Hi, High and Hello: a speech model's states put Hi by High, a text
model's by Hello. Here 72 such sets (`gap_words.tsv`, our own) are measured in every layer of every view of a model:

    cosine   between an anchor and its word alike in sound, alike in meaning, and neither, and with another anchor's
             word of either relation (the floor that length and frequency make), after taking off the mean of all
             words (states of one layer share a large common direction that would make every cosine near 1)
    choice   how often sound lies nearer than meaning, with a bootstrap interval over sets
    probe    how well a linear classifier tells an anchor's own word from another anchor's word of the same relation,
             on held-out sets; 50 % is chance. Both classes hold the same words, so what only tells words apart (their
             length) is worth nothing. A low cosine with a high probe: the information is there but not in charge.

One more row is made from letters and syllables alone: what a view must beat before it shows sound or meaning. The last
part compares the same question typed and spoken, layer by layer. Legend: W words, L layers, H width, N sets.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from echox.errors import InputError
from echox.eval import stats
from echox.eval.probes import StateReader, States
from echox.eval.stats import Interval
from echox.eval.tables import Table
from echox.eval.tasks.states import as_numpy

RELATIONS = ("sound", "meaning", "neither")
COSINES = (*RELATIONS, "another's sound", "another's meaning")
LENGTH_ONLY = "length alone (letters, syllables)"
FOLDS = 6
RIDGE = 10.0


@dataclass(frozen=True)
class WordSet:
    """An anchor with one word alike in sound, one alike in meaning and one alike in neither."""

    anchor: str
    sound: str
    meaning: str
    neither: str

    def words(self) -> tuple[str, str, str, str]:
        """Return the four words, the anchor first."""
        return self.anchor, self.sound, self.meaning, self.neither


@dataclass(frozen=True)
class View:
    """The result of one view over `sets` sets: cosines [L, 5] as in COSINES, the choice of each layer, probes [L]."""

    name: str
    cosines_LR: np.ndarray
    choices: tuple[Interval, ...]
    sound_probe_L: np.ndarray
    meaning_probe_L: np.ndarray
    sets: int = 0


def read_sets(path: Path | None = None) -> list[WordSet]:
    """Return the word sets of a TSV file (`anchor sound meaning neither`), ours by default.

    Raises InputError for wrong columns, a row without four different words, or an anchor that is there twice.
    """
    text = (path or files("echox.eval.tasks") / "gap_words.tsv").read_text(encoding="utf-8")  # type: ignore[union-attr]
    rows = [line.split("\t") for line in text.splitlines() if line.strip()]
    if not rows or rows[0] != ["anchor", *RELATIONS]:
        raise InputError(f"{path or 'gap_words.tsv'} must begin with the columns anchor, {', '.join(RELATIONS)}.")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != 4 or len({word.strip().lower() for word in row} - {""}) != 4:
            raise InputError(f"{path or 'gap_words.tsv'} line {number} must hold four different words, not {row}.")
    sets = [WordSet(*row) for row in rows[1:]]
    if len({item.anchor for item in sets}) != len(sets):
        raise InputError(f"{path or 'gap_words.tsv'} names an anchor twice: every set needs its own.")
    return sets


def measure_view(name: str, read: Callable[[str], np.ndarray], sets: Sequence[WordSet]) -> View:
    """Return one view's numbers; `read` maps a word to its states [L, H] and is called once a word.

    Sets with a word whose states have another shape (no units, so no embeddings) are left out; `sets` of the result
    says how many remain. Raises InputError when there are fewer than two for every fold.
    """
    found = {word: read(word) for word in dict.fromkeys(word for item in sets for word in item.words())}
    shape = Counter(states.shape for states in found.values()).most_common(1)[0][0]
    whole = [item for item in sets if all(found[word].shape == shape for word in item.words())]
    if len(whole) < 2 * FOLDS:
        raise InputError(f"{name} has states for {len(whole)} word sets only: give at least {2 * FOLDS}.")
    words = list(dict.fromkeys(word for item in whole for word in item.words()))
    place = {word: i for i, word in enumerate(words)}
    index_N4 = np.array([[place[word] for word in item.words()] for item in whole])
    states_WLH = np.stack([found[word] for word in words])
    centred_WLH = states_WLH - states_WLH.mean(axis=0)
    others = [*index_N4[:, 1:].T, rotated(index_N4, 1), rotated(index_N4, 2)]
    cosines_NLR = np.stack([_cosine(centred_WLH[index_N4[:, 0]], centred_WLH[other]) for other in others], axis=-1)
    nearer_NL = cosines_NLR[..., 0] > cosines_NLR[..., 1]
    layers = range(states_WLH.shape[1])
    return View(
        name,
        cosines_NLR.mean(axis=0),
        tuple(stats.mean(nearer_NL[:, layer].astype(float)) for layer in layers),
        np.array([probe(centred_WLH[:, layer], index_N4, 1) for layer in layers]),
        np.array([probe(centred_WLH[:, layer], index_N4, 2) for layer in layers]),
        len(whole),
    )


def rotated(index_N4: np.ndarray, relation: int, folds: int = FOLDS) -> np.ndarray:
    """Return int [N]: for each set the word of the same relation of the set before it in its fold."""
    apart_N = index_N4[:, relation].copy()
    for fold in range(folds):
        rows = np.flatnonzero(np.arange(len(index_N4)) % folds == fold)
        apart_N[rows] = index_N4[np.roll(rows, 1), relation]
    return apart_N


def length_states(word: str) -> np.ndarray:
    """Return float64 [1, 2]: a word's letters and syllables (runs of vowels, without a silent e), for the baseline."""
    spoken = re.sub(r"(?<=[^aeiouy])e$", "", word.lower()) if len(word) > 3 and not word.endswith("le") else word
    return np.array([[float(len(word)), float(max(len(re.findall(r"[aeiouy]+", spoken.lower())), 1))]])


def probe(states_WH: np.ndarray, index_N4: np.ndarray, relation: int, folds: int = FOLDS) -> float:
    """Return the held-out accuracy of a ridge classifier that tells an anchor's own word (`relation` 1 sound, 2
    meaning) from the same relation's word of another set in the fold.

    A pair's features are |a - b| and a * b, standardised; folds are over sets, so that no anchor is in both halves.
    """
    anchors = states_WH[index_N4[:, 0]]
    alike, apart = states_WH[index_N4[:, relation]], states_WH[rotated(index_N4, relation, folds)]
    features = np.concatenate([_pair_features(anchors, alike), _pair_features(anchors, apart)])
    labels = np.concatenate([np.ones(len(anchors)), -np.ones(len(anchors))])
    fold = np.tile(np.arange(len(anchors)) % folds, 2)
    right = 0
    for held in range(folds):
        train, test = fold != held, fold == held
        mean, spread = features[train].mean(axis=0), features[train].std(axis=0) + 1e-9
        known, new = (features[train] - mean) / spread, (features[test] - mean) / spread
        kernel = known @ known.T / known.shape[1]
        weights = np.linalg.solve(kernel + RIDGE / len(known) * np.eye(len(known)), labels[train])
        right += int(((new @ known.T / known.shape[1] @ weights > 0) == (labels[test] > 0)).sum())
    return right / len(labels)


def gap_table(views: Sequence[View], note: str) -> Table:
    """Return cosines, choice and probes at the first, middle and last layer of each view."""
    rows = []
    for view in views:
        last = len(view.cosines_LR) - 1
        for layer in sorted({0, last // 2, last}):
            cosines = (f"{value:+.3f}" for value in view.cosines_LR[layer])
            choice = view.choices[layer]
            share = f"{100 * choice.value:.0f} [{100 * choice.low:.0f}, {100 * choice.high:.0f}]"
            probes = (f"{100 * view.sound_probe_L[layer]:.0f}", f"{100 * view.meaning_probe_L[layer]:.0f}")
            rows.append((view.name, str(view.sets), f"{layer} of {last}", *cosines, share, *probes))
    head = (
        "view",
        "sets",
        "layer",
        *(f"cos {name}" for name in COSINES),
        "sound nearer than meaning %",
        "probe sound %",
        "probe meaning %",
    )
    return Table("Acoustic-semantic gap", head, tuple(rows), note)


def draw_views(views: Sequence[View], baseline: View | None = None) -> str:
    """Return an SVG: for every view its cosines over depth (other anchors' dashed), the probes below.

    The probes of `baseline` are dotted. Needs matplotlib.
    """
    from echox.eval.report.plots import COLOURS, new_figure, to_svg

    figure, axes = new_figure(2.9 * len(views) + 0.8, 4.8, rows=2, columns=len(views))
    for column, view in enumerate(views):
        depth = np.arange(len(view.cosines_LR))
        style = "o" if len(depth) == 1 else "-"
        for relation, name in enumerate(COSINES):
            dashed = style if style == "o" or relation < len(RELATIONS) else "--"
            colour = COLOURS[relation % len(RELATIONS)]
            axes[0][column].plot(depth, view.cosines_LR[:, relation], dashed, color=colour, label=name)
        axes[0][column].axhline(0, color="#bbb", linewidth=0.8)
        axes[0][column].set_title(view.name, fontsize=10)
        for place, (name, values) in enumerate((("sound", view.sound_probe_L), ("meaning", view.meaning_probe_L))):
            axes[1][column].plot(depth, 100 * values, style, color=COLOURS[place], label=name)
        for place, values in enumerate((baseline.sound_probe_L, baseline.meaning_probe_L) if baseline else ()):
            axes[1][column].axhline(100 * values[0], color=COLOURS[place], linestyle=":", linewidth=1)
        axes[1][column].axhline(50, color="#bbb", linewidth=0.8)
        axes[1][column].set_ylim(30, 102)
        axes[1][column].set_xlabel("layer")
    axes[0][0].set_ylabel("cosine with the anchor, centred")
    axes[1][0].set_ylabel("probe accuracy %")
    axes[0][-1].legend(fontsize=7)
    return to_svg(figure)


def typed_against_spoken(reader: StateReader, questions: Sequence[tuple[str, np.ndarray, str | None]]) -> np.ndarray:
    """Return float64 [L, 3]: mean cosines of the same question typed and spoken (as they are, then each side centred),
    and of a typed question with the next spoken one, centred: the floor.

    `questions` holds (typed text, wave at 16 kHz, answer or None). With an answer its tokens are forced after both and
    compared one by one; without, the mean state of each is. Raises InputError for fewer than two questions.
    """
    if len(questions) < 2:
        raise InputError("typed against spoken needs at least two questions.")
    typed = [_layers(reader.typed_states(text, *_given(answer))) for text, _, answer in questions]
    spoken = [_layers(reader.spoken_states(wave, *_given(answer))) for _, wave, answer in questions]
    centres = _centres(typed), _centres(spoken)
    nowhere = [np.zeros_like(centre) for centre in centres[0]], [np.zeros_like(centre) for centre in centres[1]]
    found = []
    for place, own in enumerate(typed):
        same, other = spoken[place], spoken[(place + 1) % len(spoken)]
        pairs = ((same, nowhere), (same, centres), (other, centres))
        found.append(np.stack([_layer_cosines(own, heard, *means) for heard, means in pairs], axis=-1))
    return np.mean(found, axis=0)


def _given(answer: str | None) -> tuple[str, ...]:
    return () if answer is None else (answer,)


def _layers(states: States) -> list[np.ndarray]:
    return [as_numpy(layer) for layer in states]


def _centres(sides: Sequence[list[np.ndarray]]) -> list[np.ndarray]:
    """Return the mean state of each layer over all questions."""
    return [np.mean([own[layer].mean(axis=0) for own in sides], axis=0) for layer in range(len(sides[0]))]


def _layer_cosines(
    a: list[np.ndarray], b: list[np.ndarray], mean_a: list[np.ndarray], mean_b: list[np.ndarray]
) -> np.ndarray:
    """Return one cosine a layer: token by token where both have as many tokens, else between the means."""
    found = []
    for layer_a, layer_b, centre_a, centre_b in zip(a, b, mean_a, mean_b, strict=True):
        left, right = layer_a - centre_a, layer_b - centre_b
        if len(left) != len(right):
            left, right = left.mean(axis=0, keepdims=True), right.mean(axis=0, keepdims=True)
        found.append(float(_cosine(left, right).mean()))
    return np.array(found)


def _pair_features(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.concatenate([np.abs(a - b), a * b], axis=1)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return cosines over the last axis; a zero vector gives 0."""
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(axis=-1) / np.where(length > 0, length, 1.0)
