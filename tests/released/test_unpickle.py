"""Hostile and broken pickles: refused by name, nothing run."""

import argparse
import builtins
import functools
import io
import os
import pickle
import zipfile

import joblib
import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans

from echox.errors import InputError
from echox.released.kmeans_bin import convert_kmeans, layer_from_name, read_centroids
from echox.released.unpickle import Record, load_joblib, load_torch
from echox.units.extractor import load_centroids


class Hostile:
    """Runs a command that leaves a mark when it is unpickled."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def hostile_objects(mark):
    command = f"touch {mark}"
    yield "system", Hostile(os.system, command)
    yield "eval", Hostile(builtins.eval, f"__import__('os').system({command!r})")
    yield "exec", {"model": [{"deep": (Hostile(builtins.exec, f"open({str(mark)!r}, 'w')"),)}]}
    yield "getattr", Hostile(builtins.getattr, "text", "upper")
    yield "open", Hostile(io.open, str(mark), "w")
    yield "partial", Hostile(functools.partial, print)


@pytest.mark.parametrize("legacy", [False, True])
def test_hostile_torch_files(tmp_path, legacy):
    mark = tmp_path / "mark"
    for name, value in hostile_objects(mark):
        path = tmp_path / f"{name}.pt"
        torch.save({"generator": value, "x": torch.zeros(1)}, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(
            InputError, match=r"asks for \S*(system|eval|exec|getattr|open|partial)\b.*refused"
        ) as caught:
            load_torch(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not mark.exists()


def test_hostile_joblib_files(tmp_path):
    mark = tmp_path / "mark"
    for name, value in hostile_objects(mark):
        path = tmp_path / f"{name}.bin"
        joblib.dump(value, path)
        with pytest.raises(InputError, match=r"asks for \S*(system|eval|exec|getattr|open|partial)\b.*refused"):
            load_joblib(path)
    path.write_bytes(pickle.dumps(np.array([Hostile(os.system, f"touch {mark}")], dtype=object)))
    with pytest.raises(InputError, match="refused"):
        load_joblib(path)
    joblib.dump(np.array([Hostile(os.system, f"touch {mark}")], dtype=object), path)  # an object array hides a pickle
    with pytest.raises(InputError, match="only plain numbers"):
        load_joblib(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x04\x82\x01.", "pickle extension"),
        (b"\x80\x04\x8c\x01xQ.", "outside itself"),
        (b"\x80\x04}}b.", "state of a dict"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\x00\x00.", "bytes where"),
        (b"\x80\x04", "cannot|can be read|asks"),
        (b"\x80\x04csklearn.cluster._kmeans\nKMeans\n}b.", "state of a type"),
        (b"PK\x03\x04", "not an uncompressed joblib"),
    ],
)
def test_crafted_joblib_streams(tmp_path, data, message):
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        load_joblib(path)


def test_arrays_larger_than_the_file_are_refused(tmp_path):
    path = tmp_path / "x.bin"
    joblib.dump(np.zeros((3, 4), np.float32), path)
    data = path.read_bytes().replace(b"K\x03K\x04\x86", b"K\xffK\xff\x86")
    path.write_bytes(data)
    with pytest.raises(InputError, match="asks for 260100 bytes"):
        load_joblib(path)


def test_zip_bombs_and_broken_torch_files(tmp_path):
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", b"\0" * 5_000_000)
    with pytest.raises(InputError, match="is compressed: torch checkpoints are stored plain"):
        load_torch(bomb)
    whole = tmp_path / "whole.pt"
    torch.save({"model": {"w": torch.arange(5000.0)}}, whole)
    for name, data, message in (
        (
            "half.pt",
            whole.read_bytes()[:9000],
            r"half.pt is not a torch checkpoint that can be read \([^.]*\): download",
        ),
        ("text.pt", b"hello, this is text", "text.pt is not a torch checkpoint that can be read"),
        (
            "pointer.pt",
            b"version https://git-lfs.github.com/spec/v1\noid",
            "pointer.pt is a Git LFS pointer, .*: run git lfs",
        ),
        ("empty.pt", b"", "empty.pt has 0 bytes"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError, match=message):
            load_torch(path)
    with pytest.raises(InputError, match="not a file"):
        load_torch(tmp_path)


def test_settings_become_inert_records(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"args": argparse.Namespace(layer_norm_first=True, eval="x"), "cfg": None}, path)
    content = load_torch(path)
    assert isinstance(content["args"], Record) and not isinstance(content["args"], argparse.Namespace)
    assert content["args"].values() == {"layer_norm_first": True, "eval": "x"}


@pytest.mark.parametrize("kind", [KMeans, MiniBatchKMeans])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kmeans_of_scikit_learn(tmp_path, kind, dtype):
    frames = np.random.default_rng(0).normal(size=(200, 6)).astype(dtype)
    fitted = kind(n_clusters=7, random_state=np.random.RandomState(3), n_init=1).fit(frames)
    path = tmp_path / "mhubert_base_vp_en_es_fr_it3_L11_km7.bin"
    joblib.dump(fitted, path)
    np.testing.assert_array_equal(read_centroids(path), fitted.cluster_centers_.astype(np.float32))
    meta = convert_kmeans(path, tmp_path / "units", "facebook/mhubert")
    centroids, loaded = load_centroids(tmp_path / "units")
    np.testing.assert_array_equal(centroids, fitted.cluster_centers_.astype(np.float32))
    assert loaded == meta and meta.revision == "unknown" and (meta.layer, meta.k, meta.frame_samples) == (11, 7, 320)


def test_kmeans_files_without_centroids(tmp_path):
    path = tmp_path / "x.bin"
    joblib.dump({"cluster_centers_": [1, 2]}, path)
    with pytest.raises(InputError, match="no k-means centroids"):
        read_centroids(path)
    joblib.dump(np.asfortranarray(np.arange(6.0).reshape(2, 3)), path)
    np.testing.assert_array_equal(read_centroids(path), np.arange(6.0).reshape(2, 3))
    with pytest.raises(InputError, match="give --layer"):
        convert_kmeans(path, tmp_path / "units", "e")
    joblib.dump(np.zeros((2, 3)), path, compress=3)
    with pytest.raises(InputError, match="compress=0"):
        read_centroids(path)
    assert layer_from_name("a_L11_km1000.bin") == 11 and layer_from_name("a.bin") is None
