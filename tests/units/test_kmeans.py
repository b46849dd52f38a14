import sys
from functools import partial

import numpy as np
import pytest
from tqdm import tqdm

from echox.errors import ConfigError, InputError
from echox.units import kmeans
from echox.units.kmeans import assign, fit_kmeans, sample_frames


def clouds(k: int = 8, per_cloud: int = 40, channels: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(k, channels)) * 20
    labels = np.repeat(np.arange(k), per_cloud)
    return (centres[labels] + rng.normal(size=(len(labels), channels))).astype(np.float32), labels


def test_same_seed_gives_the_same_centroids_and_low_inertia() -> None:
    frames, labels = clouds()
    first = fit_kmeans(frames, 8, seed=1, iterations=10)
    assert np.array_equal(first, fit_kmeans(frames, 8, seed=1, iterations=10))
    assert fit_kmeans(frames, 8, seed=2**63 - 1, iterations=1).shape == first.shape
    ideal = np.square(frames - np.stack([frames[labels == i].mean(0) for i in range(8)])[labels]).sum()
    inertia = np.square(frames - first[assign(frames, first)]).sum()
    assert first.dtype == np.float32
    assert inertia < np.square(frames - frames.mean(0)).sum() * 0.5
    assert inertia > 0.99 * ideal


def test_rounds_one_at_a_time_are_the_rounds_of_one_call() -> None:
    """The fit goes on round by round, to be seen; its slow twin is faiss in one go, with clusters that it must split."""
    faiss = pytest.importorskip("faiss")
    frames = np.repeat(clouds()[0], 3, axis=0)
    for k, seed in ((8, 0), (100, 1), (300, 2)):
        whole = faiss.Kmeans(6, k, niter=20, seed=seed, min_points_per_centroid=1, max_points_per_centroid=256)
        whole.train(frames)
        assert np.array_equal(fit_kmeans(frames, k, seed), whole.centroids.reshape(k, -1))


def test_a_terminal_sees_how_far_it_is_and_nobody_else_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit_kmeans(clouds()[0], 8)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(kmeans, "tqdm", partial(tqdm, mininterval=0))
    fit_kmeans(clouds()[0], 8)
    shown = capsys.readouterr().err
    assert "k-means" in shown and "19/20 [" in shown


def test_of_more_frames_than_are_needed_different_ones_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "POINTS_PER_CENTROID", 1)
    frames = 10 * np.arange(30, dtype=np.float32)[:, None]
    drawn = {tuple(sorted(fit_kmeans(frames, 20, seed)[:, 0].tolist())) for seed in range(4)}
    assert len(drawn) == 4 and all(len(set(row)) == 20 and set(row) <= set(frames[:, 0].tolist()) for row in drawn)


def test_more_units_than_distinct_frames_still_fits() -> None:
    centroids = fit_kmeans(np.ones((9, 2), np.float32), 4, iterations=2)
    assert np.allclose(centroids, 1.0, atol=1e-2)


@pytest.mark.parametrize("block", [16, 16_384])
def test_assign_equals_the_plain_distance_and_takes_the_lowest_of_equals(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kmeans, "CHUNK_FRAMES", block)
    rng = np.random.default_rng(0)
    frames, centroids = rng.normal(size=(50, 4)).astype(np.float32), rng.normal(size=(7, 4)).astype(np.float32)
    plain = np.square(frames[:, None] - centroids[None]).sum(-1).argmin(1)
    assert assign(frames, centroids).tolist() == plain.tolist()
    assert assign(np.zeros((1, 2), np.float32), np.ones((3, 2), np.float32)).tolist() == [0]
    assert assign(np.empty((0, 4), np.float32), centroids).tolist() == []


def test_bad_frames_and_settings_are_refused() -> None:
    frames = np.zeros((4, 2), np.float32)
    with pytest.raises(InputError, match="4 frames cannot make 5 units"):
        fit_kmeans(frames, 5)
    with pytest.raises(InputError, match="NaN"):
        fit_kmeans(np.full((4, 2), np.nan, np.float32), 2)
    with pytest.raises(InputError, match="table"):
        assign(np.zeros(3, np.float32), frames)
    with pytest.raises(InputError, match="3 channels meet centroids of 2"):
        assign(np.zeros((1, 3), np.float32), frames)
    with pytest.raises(ConfigError, match="at least 1"):
        fit_kmeans(frames, 0)


def test_sampled_frames_are_uniform_over_the_stream_and_in_order() -> None:
    stream = [np.arange(i, i + 10, dtype=np.float32)[:, None] for i in range(0, 1000, 10)]
    found = np.stack([sample_frames(iter(stream), 50, seed)[:, 0] for seed in range(40)])
    assert found.shape == (40, 50)
    assert (np.diff(found, axis=1) > 0).all()
    assert 450 < found.mean() < 550  # a sample that favours early or late frames lies outside
    assert np.array_equal(sample_frames(iter(stream), 5000), np.concatenate(stream))
    with pytest.raises(InputError, match="no frames"):
        sample_frames(iter([]), 5)
