"""Do speech and its transcripts share a space? Probes of mean states that the training never saw, and a picture.

    modality   a fresh linear probe tells speech from text, on held-out sentences: 50 % is a shared space, 100 % are two
    length     the same probe on the number of positions alone: what a probe could know without looking at the space
    retrieval  how often the transcript nearest to an utterance, by cosine, is its own: points, not spaces

Legend: N sentences, W width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from echox.errors import InputError, require
from echox.eval import stats
from echox.eval.scorers.likeness import ridge_right
from echox.eval.stats import Interval

FOLDS = 5


@dataclass(frozen=True)
class Spaces:
    """Mean states [N, W] and numbers of positions [N] of utterances and of their transcripts, in one order."""

    speech_NW: np.ndarray
    text_NW: np.ndarray
    speech_lengths_N: np.ndarray
    text_lengths_N: np.ndarray

    def __post_init__(self) -> None:
        if len(self.speech_NW) != len(self.text_NW) or len(self.text_NW) < 2 * FOLDS:
            raise InputError(
                f"{len(self.speech_NW)} utterances and {len(self.text_NW)} transcripts: give at least {2 * FOLDS} pairs."
            )

    def together(self) -> np.ndarray:
        """Return the states [2N, W] of both sides, speech first."""
        return np.concatenate([self.speech_NW, self.text_NW]).astype(float)


Place = Callable[[Spaces], tuple[np.ndarray, np.ndarray]]
"""Both sides [N, 2] on a plane."""


def modality_probe(found: Spaces) -> Interval:
    """Return how often a linear probe of mean states tells speech from text; folds are over sentences."""
    return _probe(found.speech_NW, found.text_NW)


def length_probe(found: Spaces) -> Interval:
    """Return how often a linear probe of lengths and their logarithms does."""
    sides = [np.stack([n, np.log(n)], axis=1).astype(float) for n in (found.speech_lengths_N, found.text_lengths_N)]
    return _probe(*sides)


def retrieval(found: Spaces) -> Interval:
    """Return how often an utterance's nearest transcript is its own."""
    speech, text = (
        side / np.linalg.norm(side, axis=1, keepdims=True).clip(1e-12) for side in (found.speech_NW, found.text_NW)
    )
    return stats.mean(((speech @ text.T).argmax(axis=1) == np.arange(len(text))).astype(float))


def plane(found: Spaces) -> tuple[np.ndarray, np.ndarray]:
    """Return both sides [N, 2] on the first two principal axes of all states together."""
    both = found.together()
    centred = both - both.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    axes = axes * np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])[:, None]  # the same picture every time
    return _sides(centred @ axes.T)


def umap_plane() -> Place:
    """Return what places both sides [N, 2] by UMAP of all states together; MissingDependency without umap-learn.

    UMAP keeps neighbours and not distances (McInnes et al., arXiv 1802.03426): read the probes for how far the sides are apart.
    """
    umap = require("umap", install="pip install umap-learn")

    def place(found: Spaces) -> tuple[np.ndarray, np.ndarray]:
        return _sides(np.asarray(umap.UMAP(n_components=2, random_state=0).fit_transform(found.together())))

    return place


def _sides(both: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return both[: len(both) // 2], both[len(both) // 2 :]


def _probe(speech: np.ndarray, text: np.ndarray) -> Interval:
    """Return the held-out accuracy, resampled by sentence: both sides of one are in the same fold and drawn together."""
    labels = np.concatenate([-np.ones(len(speech)), np.ones(len(text))])
    fold = np.tile(np.arange(len(speech)) % FOLDS, 2)
    right = ridge_right(np.concatenate([speech, text]), labels, fold).astype(float)
    return stats.mean((right[: len(speech)] + right[len(speech) :]) / 2)
