import json
from pathlib import Path

import numpy as np
import pytest

from echox.errors import InputError, ModelError, OutputError
from echox.units.extractor import UnitsMeta, extract, load_centroids, save_centroids

META = UnitsMeta("tiny", "abc", 3, "short", 16_000, 4, 3)
CENTROIDS = np.array([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]], np.float32)


def encode(waves: list[np.ndarray]) -> list[np.ndarray]:
    """Frame = 4 samples, its mean twice: a wave that holds a centroid's value gets that unit."""
    return [wave[: len(wave) // 4 * 4].reshape(-1, 4).mean(1)[:, None].repeat(2, 1) for wave in waves]


def wave(*values: float) -> np.ndarray:
    return np.repeat(np.array(values, np.float32), 4)


def test_units_come_back_in_the_order_of_the_waves() -> None:
    long, short, empty = wave(0, 0, 5, 1, 1), wave(5, 5), wave()
    units = extract(encode, CENTROIDS, [long, short, empty])
    assert [u.ids.tolist() for u in units] == [[0, 2, 1], [2], []]
    assert [u.durations.tolist() for u in units] == [[2, 1, 2], [2], []]


def test_save_and_load_are_bit_equal(tmp_path: Path) -> None:
    save_centroids(tmp_path, CENTROIDS, META)
    centroids, meta = load_centroids(tmp_path)
    assert meta == META
    assert centroids.tobytes() == CENTROIDS.tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["centroids.safetensors", "config.json"]


def break_config(folder: Path, **changes: object) -> None:
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(record | changes))


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json does not exist"),
        (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda f: (f / "config.json").write_text("[1]"), "config.json should hold"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "config.json cannot be read"),
        (lambda f: break_config(f, colour="red"), "config.json holds the keys"),
        (lambda f: break_config(f, k="3"), "config.json: k is '3'"),
        (lambda f: break_config(f, k=4), "centroids.safetensors holds"),
        (lambda f: save_centroids(f, CENTROIDS * np.nan, META), "centroids.safetensors holds NaN"),
        (lambda f: (f / "centroids.safetensors").unlink(), "centroids.safetensors is missing"),
        (lambda f: (f / "centroids.safetensors").write_bytes(b"\xff" * 64), "centroids.safetensors is not"),
        (lambda f: (f / "centroids.safetensors").write_bytes(b""), "centroids.safetensors has 0 bytes"),
    ],
)
def test_a_broken_folder_is_named_in_one_sentence(tmp_path: Path, damage, names: str) -> None:
    save_centroids(tmp_path, CENTROIDS, META)
    damage(tmp_path)
    with pytest.raises(ModelError, match=names) as caught:
        load_centroids(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_encoder_of_another_width_or_with_nan_is_refused() -> None:
    with pytest.raises(InputError, match="3 channels meet centroids of 2: give the encoder"):
        extract(lambda waves: [np.zeros((2, 3))], CENTROIDS, [wave(1)])
    with pytest.raises(InputError, match="NaN"):
        extract(encode, CENTROIDS, [wave(np.nan)])


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_centroids(tmp_path / "file", CENTROIDS, META)
