"""k-means over encoder frames: fitting with faiss or with Lloyd's rounds in torch, and assignment.

Units are row numbers of the centroids, int64 in [0, k).  It knows nothing about audio or encoders, and the same
frames, k, seed and engine give the same centroids.  Seeding of the torch engine: k-means++ (Arthur and
Vassilvitskii, 2007).  Neither engine leaves a cluster empty: faiss splits a large one, ours takes the farthest frame.

Legend: N frames, D channels, K clusters.
"""

import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np

from echox.errors import ConfigError, InputError, require

if TYPE_CHECKING:
    import torch

POINTS_PER_CENTROID = 256  # more frames than this many times k are sampled; a larger sample does not move centroids
SEEDING_POINTS_PER_CENTROID = 64  # k-means++ costs k passes, so it reads fewer
CHUNK_FRAMES = 16_384  # frames per distance block: bounds memory to CHUNK_FRAMES x K floats

Engine = Literal["auto", "faiss", "torch"]


def fit_kmeans(
    frames_ND: np.ndarray, k: int, seed: int = 0, iterations: int = 20, engine: Engine = "auto"
) -> np.ndarray:
    """Fit `k` centroids, float32 [K, D], to frames [N, D].

    "auto" is faiss where it is installed, else torch.  Raises InputError for too few or non-finite frames,
    ConfigError for impossible settings and MissingDependency for an engine that is not installed.
    """
    frames_ND = _checked_frames(frames_ND)
    if k < 1 or iterations < 1:
        raise ConfigError(f"k = {k} and iterations = {iterations}: both should be at least 1.")
    if len(frames_ND) < k:
        raise InputError(f"{len(frames_ND)} frames cannot make {k} units: give more audio or a smaller k.")
    if engine not in ("auto", "faiss", "torch"):
        raise ConfigError(f"k-means engine {engine!r} is unknown: choose auto, faiss or torch.")
    if engine == "auto":
        engine = "faiss" if importlib.util.find_spec("faiss") else "torch"
    frames_ND = _sample(frames_ND, POINTS_PER_CENTROID * k, np.random.default_rng(seed))
    fit = _fit_faiss if engine == "faiss" else _fit_torch
    return fit(frames_ND, k, seed, iterations)


def sample_frames(encoded: Iterable[np.ndarray], limit: int, seed: int = 0) -> np.ndarray:
    """Return at most `limit` frames [N, D] drawn uniformly from a stream, holding about twice as many.

    Every frame draws a number and the smallest stay, so the order of the stream does not matter. Raises InputError for
    an empty stream.
    """
    rng = np.random.default_rng(seed)
    frames: list[np.ndarray] = []
    draws: list[np.ndarray] = []

    def keep() -> None:
        joined, drawn = np.concatenate(frames), np.concatenate(draws)
        rows = np.sort(np.argsort(drawn, kind="stable")[:limit])
        frames[:], draws[:] = [joined[rows]], [drawn[rows]]

    for part in encoded:
        frames.append(part)
        draws.append(rng.random(len(part)))
        if sum(map(len, draws)) > 2 * limit:
            keep()
    if not frames:
        raise InputError("there are no frames to cluster: give audio.")
    keep()
    return frames[0]


def assign(frames_ND: np.ndarray, centroids_KD: np.ndarray) -> np.ndarray:
    """Return the nearest centroid of every frame, int64 [N] (squared distance; the lowest id wins a tie)."""
    frames_ND = _checked_frames(frames_ND)
    if frames_ND.shape[1] != centroids_KD.shape[1]:
        raise InputError(f"frames of {frames_ND.shape[1]} channels meet centroids of {centroids_KD.shape[1]}.")
    norms_K = 0.5 * np.square(centroids_KD, dtype=np.float32).sum(axis=1)
    blocks = range(0, len(frames_ND), CHUNK_FRAMES)
    ids = [np.argmin(norms_K - frames_ND[i : i + CHUNK_FRAMES] @ centroids_KD.T, axis=1) for i in blocks]
    return np.concatenate(ids).astype(np.int64) if ids else np.empty(0, np.int64)


def _fit_faiss(frames_ND: np.ndarray, k: int, seed: int, iterations: int) -> np.ndarray:
    faiss = require("faiss", extra="train")
    quiet = {"min_points_per_centroid": 1, "max_points_per_centroid": POINTS_PER_CENTROID}
    model = faiss.Kmeans(frames_ND.shape[1], k, niter=iterations, seed=seed % 2**31, **quiet)
    model.train(frames_ND)
    return np.array(model.centroids, np.float32).reshape(k, -1)


def _fit_torch(frames_ND: np.ndarray, k: int, seed: int, iterations: int) -> np.ndarray:
    import torch

    frames = torch.from_numpy(frames_ND)
    generator = torch.Generator().manual_seed(seed)
    seeding = _sample(frames_ND, SEEDING_POINTS_PER_CENTROID * k, np.random.default_rng(seed + 1))
    centroids_KD = _plus_plus(torch.from_numpy(seeding), k, generator)
    for _ in range(iterations):
        labels_N, distances_N = _nearest(frames, centroids_KD)
        counts_K = torch.bincount(labels_N, minlength=k)
        sums_KD = torch.zeros_like(centroids_KD).index_add_(0, labels_N, frames)
        centroids_KD = sums_KD / counts_K.clamp(min=1).unsqueeze(1)
        empty_K = counts_K == 0
        if empty_K.any():
            centroids_KD[empty_K] = frames[distances_N.topk(int(empty_K.sum())).indices]
    return centroids_KD.numpy()


def _plus_plus(frames_ND: "torch.Tensor", k: int, generator: "torch.Generator") -> "torch.Tensor":
    """Draw k seeds, each with probability proportional to its squared distance from those already drawn."""
    import torch

    chosen = [int(torch.randint(len(frames_ND), (1,), generator=generator))]
    nearest_N = torch.full((len(frames_ND),), torch.inf)
    while len(chosen) < k:
        nearest_N = torch.minimum(nearest_N, (frames_ND - frames_ND[chosen[-1]]).square().sum(dim=1))
        cumulative_N = nearest_N.double().cumsum(0)
        draw = torch.rand(1, generator=generator, dtype=torch.float64) * cumulative_N[-1]
        # all frames already chosen: every distance is 0 and the search gives N, so the last frame repeats
        chosen.append(min(int(torch.searchsorted(cumulative_N, draw, right=True)), len(frames_ND) - 1))
    return frames_ND[chosen]


def _nearest(frames_ND: "torch.Tensor", centroids_KD: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
    import torch

    labels, distances = [], []
    norms_K = centroids_KD.square().sum(dim=1)
    for block_ND in frames_ND.split(CHUNK_FRAMES):
        half_NK = torch.addmm(norms_K, block_ND, centroids_KD.T, alpha=-2.0)
        best = half_NK.min(dim=1)
        labels.append(best.indices)
        distances.append(best.values + block_ND.square().sum(dim=1))
    return torch.cat(labels), torch.cat(distances)


def _checked_frames(frames_ND: np.ndarray) -> np.ndarray:
    if frames_ND.ndim != 2:
        raise InputError(f"frames should be a table [frames, channels], not of shape {frames_ND.shape}.")
    if not np.isfinite(frames_ND).all():
        raise InputError("the frames hold NaN or infinite values: check the audio and the encoder.")
    return np.ascontiguousarray(frames_ND, dtype=np.float32)


def _sample(frames_ND: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    if len(frames_ND) <= limit:
        return frames_ND
    return frames_ND[np.sort(rng.choice(len(frames_ND), limit, replace=False))]
