"""k-means over encoder frames: fitting with faiss, and assignment.

Units are row numbers of the centroids, int64 in [0, k).  It knows nothing about audio or encoders, and the same
frames, k and seed give the same centroids.  No cluster stays empty: faiss splits a large one.

Legend: N frames, D channels, K clusters.
"""

from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from echox.errors import ConfigError, InputError, require

POINTS_PER_CENTROID = 256  # more frames than this many times k are sampled; a larger sample does not move centroids
CHUNK_FRAMES = 16_384  # frames per distance block: bounds memory to CHUNK_FRAMES x K floats


def fit_kmeans(frames_ND: np.ndarray, k: int, seed: int = 0, iterations: int = 20) -> np.ndarray:
    """Fit `k` centroids, float32 [K, D], to frames [N, D].

    Raises InputError for too few or non-finite frames, ConfigError for impossible settings and MissingDependency without faiss.
    """
    frames_ND = _checked_frames(frames_ND)
    if k < 1 or iterations < 1:
        raise ConfigError(f"k = {k} and iterations = {iterations}: both should be at least 1.")
    if len(frames_ND) < k:
        raise InputError(f"{len(frames_ND)} frames cannot make {k} units: give more audio or a smaller k.")
    faiss = require("faiss", extra="train")
    if len(frames_ND) > (most := POINTS_PER_CENTROID * k):
        frames_ND = frames_ND[np.sort(np.random.default_rng(seed).choice(len(frames_ND), most, replace=False))]
    quiet = {"min_points_per_centroid": 1, "max_points_per_centroid": POINTS_PER_CENTROID}
    model = faiss.Kmeans(frames_ND.shape[1], k, niter=1, seed=seed % 2**31, **quiet)
    for _ in tqdm(range(iterations), "k-means", disable=None, leave=False):  # one at a time, to be seen
        model.train(frames_ND, init_centroids=model.centroids)
    return np.array(model.centroids, np.float32).reshape(k, -1)


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
        raise InputError(
            f"frames of {frames_ND.shape[1]} channels meet centroids of {centroids_KD.shape[1]}: give the encoder of these."
        )
    norms_K = 0.5 * np.square(centroids_KD, dtype=np.float32).sum(axis=1)
    blocks = range(0, len(frames_ND), CHUNK_FRAMES)
    ids = [np.argmin(norms_K - frames_ND[i : i + CHUNK_FRAMES] @ centroids_KD.T, axis=1) for i in blocks]
    return np.concatenate(ids).astype(np.int64) if ids else np.empty(0, np.int64)


def _checked_frames(frames_ND: np.ndarray) -> np.ndarray:
    if frames_ND.ndim != 2:
        raise InputError(f"frames should be a table [frames, channels], not of shape {frames_ND.shape}.")
    if not np.isfinite(frames_ND).all():
        raise InputError("the frames hold NaN or infinite values: check the audio and the encoder.")
    return np.ascontiguousarray(frames_ND, dtype=np.float32)
