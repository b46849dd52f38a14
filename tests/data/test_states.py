"""Encoded shards: matched by id whatever the manifest's order, refused when they are somebody else's."""

import numpy as np
import pytest

from echox.data.manifest import read_manifest, write_manifest
from echox.data.states import read_ragged, write_ragged
from echox.errors import InputError


@pytest.fixture
def corpus(tmp_path):
    records = [{"id": f"u{n}", "audio": "a.wav", "samples": 1, "sample_rate": 16_000} for n in range(4)]
    write_manifest(tmp_path / "shard-00000.jsonl", records)
    rows = [np.full((n + 1, 2), n, np.float16) for n in (0, 1, 3)]
    write_ragged(tmp_path / "frames" / "shard-00000.npz", ["u0", "u1", "u3"], rows, skipped=["u2"])
    return tmp_path


def found(corpus):
    return [(record["id"], rows.tolist()) for record, rows in read_ragged(corpus / "frames", corpus)]


def test_a_reversed_manifest_still_finds_its_own_rows(corpus):
    before = found(corpus)
    assert [name for name, _ in before] == ["u0", "u1", "u3"] and before[2][1] == [[3, 3]] * 4
    manifest = corpus / "shard-00000.jsonl"
    write_manifest(manifest, reversed(read_manifest(manifest)))
    assert found(corpus) == before[::-1]


def test_rows_are_read_from_disk_when_they_are_used(corpus):
    rows = [rows for _, rows in read_ragged(corpus / "frames", corpus)]
    with np.load(corpus / "frames" / "shard-00000.npz") as slow:
        assert np.array_equal(np.concatenate(rows), slow["frames"])
    assert all(isinstance(row, np.memmap) and not row.flags.writeable for row in rows)


@pytest.mark.parametrize("change", ["renamed", "one less", "one more", "twice"])
def test_rows_of_other_utterances_are_refused(corpus, change):
    manifest = corpus / "shard-00000.jsonl"
    records = read_manifest(manifest)
    changed = {
        "renamed": [records[0] | {"id": "v"}, *records[1:]],
        "one less": records[:3],
        "one more": [*records, records[0] | {"id": "v"}],
        "twice": [records[0], *records],
    }[change]
    write_manifest(manifest, changed)
    with pytest.raises(InputError, match="other utterances|an id twice"):
        found(corpus)


@pytest.mark.parametrize("damage", ["empty", "cut", "missing", "without ids", "compressed", "objects", "a number"])
def test_a_file_that_is_not_whole_is_named(corpus, damage):
    path = corpus / "frames" / "shard-00000.npz"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "without ids":
        np.savez(path, frames=np.zeros((4, 2)), offsets=np.arange(5))
    elif damage == "compressed":
        with np.load(path) as data:
            np.savez_compressed(path, **data)
    elif damage in ("objects", "a number"):
        frames = np.array([{}, 1], object) if damage == "objects" else np.array(1.0)
        np.savez(path, frames=frames, offsets=[0, 1, 2, 2], ids=["u0", "u1", "u3"], skipped=["u2"])
    else:
        path.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    with pytest.raises(InputError, match="shard-00000"):
        found(corpus)
