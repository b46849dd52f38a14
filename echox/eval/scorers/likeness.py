"""Do states of words alike in sound lie together, or of words alike in meaning? Cosines, choices and probes by layer.

    cosine   between an anchor and its word alike in sound, alike in meaning, and neither, and with another anchor's word of either
             relation (the floor that length and frequency make), after taking off the mean of all words (states of one layer
             share a large common direction that would make every cosine near 1)
    choice   how often sound lies nearer than meaning, with a bootstrap interval over sets
    probe    how well a linear classifier tells an anchor's own word from another anchor's word of the same relation, on held-out
             sets; 50 % is chance. Both classes hold the same words, so what only tells words apart (their length) is worth
             nothing. A low cosine with a high probe: the information is there but not in charge.

Legend: W words, L layers, H width, N sets, R relations.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from echox.errors import InputError
from echox.eval import stats
from echox.eval.probes import StateReader, States
from echox.eval.stats import Interval

RELATIONS = ("sound", "meaning", "neither")
COSINES = (*RELATIONS, "another's sound", "another's meaning")
FOLDS = 6
RIDGE = 10.0


@dataclass(frozen=True)
class View:
    """The result of one view over `sets` sets: cosines [L, 5] as in COSINES, the choice of each layer, probes [L]."""

    name: str
    cosines_LR: np.ndarray
    choices: tuple[Interval, ...]
    sound_probe_L: np.ndarray
    meaning_probe_L: np.ndarray
    sets: int = 0

    def numbers(self) -> dict[str, Any]:
        """Return what gap.json holds of it, from which it is drawn."""
        probes = {"sound": self.sound_probe_L.tolist(), "meaning": self.meaning_probe_L.tolist()}
        choices = [[choice.value, choice.low, choice.high] for choice in self.choices]
        return {"sets": self.sets, "cosines": self.cosines_LR.tolist(), "sound_nearer": choices, "probes": probes}


def measure_view(name: str, read: Callable[[str], np.ndarray], sets: Sequence[tuple[str, str, str, str]]) -> View:
    """Return one view's numbers; `read` maps a word to its states [L, H] and is called once a word.

    A set is an anchor, a word alike in sound, one alike in meaning and one alike in neither. Sets with a word whose states
    have another shape (no units, so no embeddings) are left out; `sets` of the result says how many remain. Raises
    InputError when there are fewer than two for every fold.
    """
    found = {word: read(word) for word in dict.fromkeys(word for item in sets for word in item)}
    shape = Counter(states.shape for states in found.values()).most_common(1)[0][0]
    whole = [item for item in sets if all(found[word].shape == shape for word in item)]
    if len(whole) < 2 * FOLDS:
        raise InputError(f"{name} has states for {len(whole)} word sets only: give at least {2 * FOLDS}.")
    words = list(dict.fromkeys(word for item in whole for word in item))
    place = {word: i for i, word in enumerate(words)}
    index_N4 = np.array([[place[word] for word in item] for item in whole])
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


def probe(states_WH: np.ndarray, index_N4: np.ndarray, relation: int) -> float:
    """Return the held-out accuracy of a ridge classifier that tells an anchor's own word (`relation` 1 sound, 2
    meaning) from the same relation's word of another set in the fold.

    A pair's features are |a - b| and a * b, standardised; folds are over sets, so that no anchor is in both halves.
    """
    anchors = states_WH[index_N4[:, 0]]
    alike, apart = states_WH[index_N4[:, relation]], states_WH[rotated(index_N4, relation)]
    features = np.concatenate([_pair_features(anchors, alike), _pair_features(anchors, apart)])
    labels = np.concatenate([np.ones(len(anchors)), -np.ones(len(anchors))])
    return float(ridge_right(features, labels, np.tile(np.arange(len(anchors)) % FOLDS, 2)).mean())


def ridge_right(features_NF: np.ndarray, labels_N: np.ndarray, fold_N: np.ndarray) -> np.ndarray:
    """Return bool [N]: which of the labels, 1 or -1, a linear classifier gets right that learnt from the other folds alone.

    It is ridge regression on features standardised by what is learnt from.
    """
    right_N = np.zeros(len(labels_N), dtype=bool)
    for held in np.unique(fold_N):
        train, test = fold_N != held, fold_N == held
        mean, spread = features_NF[train].mean(axis=0), features_NF[train].std(axis=0) + 1e-9
        known, new = (features_NF[train] - mean) / spread, (features_NF[test] - mean) / spread
        kernel = known @ known.T / known.shape[1]
        weights = np.linalg.solve(kernel + RIDGE / len(known) * np.eye(len(known)), labels_N[train])
        right_N[test] = (new @ known.T / known.shape[1] @ weights > 0) == (labels_N[test] > 0)
    return right_N


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
    centres, found = (_centres(typed), _centres(spoken)), []
    for place, own in enumerate(typed):
        same, other = spoken[place], spoken[(place + 1) % len(spoken)]
        centred = _less(own, centres[0])
        pairs = ((own, same), (centred, _less(same, centres[1])), (centred, _less(other, centres[1])))
        found.append(np.stack([_layer_cosines(*pair) for pair in pairs], axis=-1))
    return np.mean(found, axis=0)


def word_states(states: States) -> np.ndarray:
    """Return float64 [layers, H]: the mean over tokens of each layer; layers of unequal width give an object error."""
    return np.stack([as_numpy(layer).mean(axis=0) for layer in states])


def as_numpy(layer: Any) -> np.ndarray:
    """Return one layer's states as float64 [tokens, H], from numpy or torch."""
    if hasattr(layer, "detach"):
        layer = layer.detach().float().cpu().numpy()
    return np.atleast_2d(np.asarray(layer, dtype=np.float64))


def _given(answer: str | None) -> tuple[str, ...]:
    return () if answer is None else (answer,)


def _layers(states: States) -> list[np.ndarray]:
    return [as_numpy(layer) for layer in states]


def _centres(sides: Sequence[list[np.ndarray]]) -> list[np.ndarray]:
    """Return the mean state of each layer over all questions."""
    return [np.mean([own[layer].mean(axis=0) for own in sides], axis=0) for layer in range(len(sides[0]))]


def _less(layers: list[np.ndarray], centres: list[np.ndarray]) -> list[np.ndarray]:
    return [layer - centre for layer, centre in zip(layers, centres, strict=True)]


def _layer_cosines(a: list[np.ndarray], b: list[np.ndarray]) -> list[float]:
    """Return one cosine a layer: token by token where both have as many tokens, else between the means."""
    found = []
    for left, right in zip(a, b, strict=True):
        if len(left) != len(right):
            left, right = left.mean(axis=0, keepdims=True), right.mean(axis=0, keepdims=True)
        found.append(float(_cosine(left, right).mean()))
    return found


def _pair_features(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.concatenate([np.abs(a - b), a * b], axis=1)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return cosines over the last axis; a zero vector gives 0."""
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(axis=-1) / np.where(length > 0, length, 1.0)
