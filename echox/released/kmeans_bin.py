"""joblib k-means files (fairseq's `*_L11_km1000.bin`) to a units folder; scikit-learn is not imported.

The file holds a fitted (MiniBatch)KMeans; only `cluster_centers_`, an array (K, D), is wanted.
"""

import re
from pathlib import Path

import numpy as np

from echox.errors import InputError
from echox.released.unpickle import Record, load_joblib
from echox.units.extractor import UnitsMeta, revision_of, save_centroids


def read_centroids(path: str | Path) -> np.ndarray:
    """Return the centroids (K, D), float32, of a joblib k-means file; InputError when it holds none."""
    content = load_joblib(path)
    centers = content.values().get("cluster_centers_") if isinstance(content, Record) else content
    if not isinstance(centers, np.ndarray) or centers.ndim != 2 or centers.dtype.kind != "f":
        found = f"shape {centers.shape}" if isinstance(centers, np.ndarray) else type(content).__name__
        raise InputError(f"{path} holds no k-means centroids (found {found}); expected an array [K, D] of floats.")
    return np.ascontiguousarray(centers, dtype=np.float32)


def layer_from_name(path: str | Path) -> int | None:
    """Return the layer that fairseq's naming gives (`_L11_`), if it does."""
    match = re.search(r"_L(\d+)(?:_|\.|$)", Path(path).name)
    return int(match.group(1)) if match else None


def convert_kmeans(path: str | Path, folder: str | Path, encoder: str, layer: int | None = None) -> UnitsMeta:
    """Write the units folder of a joblib k-means file; `encoder` names the HuBERT. InputError, OutputError."""
    centroids_KD = read_centroids(path)
    layer = layer if layer is not None else layer_from_name(path)
    if layer is None:
        raise InputError(f"{path} does not tell its layer by name (_L11_): give --layer.")
    meta = UnitsMeta(
        encoder=Path(encoder).name if Path(encoder).is_dir() else encoder,
        revision=revision_of(encoder),
        layer=layer,
        window="own",
        sample_rate=16_000,
        frame_samples=320,
        k=len(centroids_KD),
    )
    save_centroids(folder, centroids_KD, meta)
    return meta
