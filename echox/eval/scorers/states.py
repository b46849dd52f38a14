"""Probes of states. Do those of words alike in sound lie together, or of words alike in meaning, by layer?

    cosine   between an anchor and its word alike in sound, alike in meaning, and neither, and with another anchor's word of either
             relation (the floor that length and frequency make), after taking off the mean of all words (states of one layer
             share a large common direction that would make every cosine near 1)
    choice   how often sound lies nearer than meaning, with a bootstrap interval over sets
    probe    how well a linear classifier tells an anchor's own word from another anchor's word of the same relation, on held-out
             sets; 50 % is chance. Both classes hold the same words, so what only tells words apart (their length) is worth
             nothing. A low cosine with a high probe: the information is there but not in charge.

Do speech and its transcripts share a space? Probes of mean states that the training never saw, and a picture.

    modality   a fresh linear probe tells speech from text, on held-out sentences: 50 % is a shared space, 100 % are two
    length     the same probe on the number of positions alone: what a probe could know without looking at the space
    retrieval  how often the transcript nearest to an utterance, by cosine, is its own: points, not spaces

Legend: W words, L layers, H width, N sets or sentences, R relations.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from echox.errors import InputError, require
from echox.eval import stats
from echox.eval.probes import States
from echox.eval.stats import Interval

RELATIONS = ("sound", "meaning", "neither")
COSINES = (*RELATIONS, "another's sound", "another's meaning")
FOLDS, SENTENCE_FOLDS = 6, 5
RIDGE = 10.0
Place = Callable[[np.ndarray], np.ndarray]  # states [N, H] to points [N, 2]


def measure_view(
    name: str, read: Callable[[str], np.ndarray], sets: Sequence[tuple[str, str, str, str]]
) -> dict[str, Any]:
    """Return one view by layer: cosines as in COSINES, how often sound is nearer with its interval, held-out probes.

    `read` maps a word to its states [L, H] and is called once a word. Sets with a word whose states have another shape (no units,
    so no embeddings) are left out; `sets` says how many remain. Raises InputError when there are fewer than two for every fold.
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
    choices = [stats.mean(nearer_N.astype(float)) for nearer_N in nearer_NL.T]
    probes = {
        name: [probe(states_WH, index_N4, relation) for states_WH in centred_WLH.swapaxes(0, 1)]
        for relation, name in enumerate(RELATIONS[:2], start=1)
    }
    nearer = [[choice.value, choice.low, choice.high] for choice in choices]
    return {"sets": len(whole), "cosines": cosines_NLR.mean(axis=0).tolist(), "sound_nearer": nearer, "probes": probes}


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
    pairs = [(anchors, alike), (anchors, apart)]
    features = np.concatenate([np.concatenate([np.abs(a - b), a * b], axis=1) for a, b in pairs])
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


def word_states(states: States) -> np.ndarray:
    """Return float64 [layers, H]: the mean over tokens of each layer, in numpy or torch; layers of unequal width give an error."""
    found = [layer.detach().float().cpu().numpy() if hasattr(layer, "detach") else layer for layer in states]
    return np.stack([np.asarray(layer, dtype=np.float64).mean(axis=0) for layer in found])


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return cosines over the last axis; a zero vector gives 0."""
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(axis=-1) / np.where(length > 0, length, 1.0)


@dataclass(frozen=True)
class Spaces:
    """Mean states [N, H] and numbers of positions [N] of utterances and of their transcripts, in one order."""

    speech_NH: np.ndarray
    text_NH: np.ndarray
    speech_lengths_N: np.ndarray
    text_lengths_N: np.ndarray

    def __post_init__(self) -> None:
        if len(self.speech_NH) != len(self.text_NH) or len(self.text_NH) < 2 * SENTENCE_FOLDS:
            counts = f"{len(self.speech_NH)} utterances and {len(self.text_NH)} transcripts"
            raise InputError(f"{counts}: give at least {2 * SENTENCE_FOLDS} pairs.")

    def placed(self, place: Place) -> list[np.ndarray]:
        """Return speech and text [N, 2] on the plane of both."""
        return np.split(place(np.concatenate([self.speech_NH, self.text_NH]).astype(float)), 2)


def modality_probe(found: Spaces) -> Interval:
    """Return how often a linear probe of mean states tells speech from text; folds are over sentences."""
    return _probe(found.speech_NH, found.text_NH)


def length_probe(found: Spaces) -> Interval:
    """Return how often a linear probe of lengths and their logarithms does."""
    sides = [np.stack([n, np.log(n)], axis=1).astype(float) for n in (found.speech_lengths_N, found.text_lengths_N)]
    return _probe(*sides)


def retrieval(found: Spaces) -> Interval:
    """Return how often an utterance's nearest transcript is its own."""
    sides = (found.speech_NH, found.text_NH)
    speech, text = (side / np.linalg.norm(side, axis=1, keepdims=True).clip(1e-12) for side in sides)
    return stats.mean(((speech @ text.T).argmax(axis=1) == np.arange(len(text))).astype(float))


def plane(states_NH: np.ndarray) -> np.ndarray:
    """Return states [N, 2] on their first two principal axes."""
    centred = states_NH - states_NH.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    axes = axes * np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])[:, None]  # the same picture every time
    return centred @ axes.T


def umap_plane() -> Place:
    """Return what places states [N, H] by UMAP; MissingDependency without umap-learn.

    UMAP keeps neighbours and not distances (McInnes et al., arXiv 1802.03426): read the probes for how far the sides are apart.
    """
    umap = require("umap", install="pip install umap-learn")
    return lambda states_NH: umap.UMAP(n_components=2, random_state=0).fit_transform(states_NH)


def _probe(speech: np.ndarray, text: np.ndarray) -> Interval:
    """Return the held-out accuracy, resampled by sentence: both sides of one are in the same fold and drawn together."""
    labels = np.concatenate([-np.ones(len(speech)), np.ones(len(text))])
    fold = np.tile(np.arange(len(speech)) % SENTENCE_FOLDS, 2)
    right = ridge_right(np.concatenate([speech, text]), labels, fold).astype(float)
    return stats.mean((right[: len(speech)] + right[len(speech) :]) / 2)
