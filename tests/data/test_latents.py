"""Segments of what a teacher's decoder was given: aligned with units, reproducible, judged where context is whole."""

import numpy as np
import pytest

from echox.data.latents import LatentSegments, Utterances
from echox.errors import InputError

LENGTHS = (70, 23, 45)  # frames


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    rows = [length * 8 // 5 for length in LENGTHS]
    prosody = np.stack([random.choice([0.0, 30.0, 150.0], sum(rows)), np.arange(sum(rows)) / 100], axis=1)
    np.savez(
        tmp_path / "shard-00000.npz",
        latents=random.integers(-127, 128, (sum(rows), 4)).astype(np.int8),
        scale=np.array([0.1, 0.2, 0.3, 0.4], np.float32),
        prosody=prosody.astype(np.float16),
        units=np.concatenate([random.integers(0, 9, -(-n // 2)).repeat(2)[:n] for n in LENGTHS]).astype(np.int16),
        latent_offsets=np.cumsum([0, *rows]),
        unit_offsets=np.cumsum([0, *LENGTHS]),
    )
    return tmp_path


def test_utterances_know_their_rows(folder):
    utterances = Utterances(folder)
    assert [utterances.frames(i) for i in range(len(utterances))] == list(LENGTHS)
    latents, prosody = utterances.rows(1, 3, 10)
    with np.load(folder / "shard-00000.npz") as data:
        np.testing.assert_allclose(latents, data["latents"][115:125] * data["scale"])
        np.testing.assert_allclose(prosody[:, 1], data["prosody"][115:125, 1])
    assert set(prosody[:, 0].tolist()) <= {0.0, 150.0}  # 30 Hz is no voice
    mean, spread = utterances.statistics()
    assert mean.shape == spread.shape == (6,) and mean[4] == pytest.approx(np.log(150), abs=1e-3)


def test_a_segment_in_the_middle_is_aligned_and_judged_inside(folder):
    utterances = Utterances(folder)
    segments = LatentSegments(utterances, 30, 2, hops=(480, 300), margin=5)
    batch = segments.collate([(0, 20), (1, 0)])
    assert batch.frames_BT.shape == (2, 30) and batch.latents_BJL.shape == (2, 48, 4)
    np.testing.assert_array_equal(batch.frames_BT[0].numpy(), utterances.unit_rows(0)[20:50])
    np.testing.assert_allclose(batch.latents_BJL[0].numpy(), utterances.rows(0, 32, 48)[0])
    assert batch.judged_BJ[0].nonzero()[:, 0].tolist() == list(range(8, 40))
    assert batch.judged_BJ[1].nonzero()[:, 0].tolist() == list(range(36))  # all of a short utterance
    assert batch.mask_BT.sum(1).tolist() == [30, 23]
    whole = batch.whole_BU[1]
    assert int(batch.lengths_BU[1][whole].sum()) == 23
    count = int((batch.lengths_BU[0] > 0).sum())
    assert not batch.whole_BU[0, 0] and not batch.whole_BU[0, count - 1] and batch.whole_BU[0, 1 : count - 1].all()


def test_a_state_lies_beside_every_frame_of_its_word(folder):
    with np.load(folder / "shard-00000.npz") as data:
        arrays = dict(data)
    states = np.random.default_rng(1).standard_normal((30, 3)).astype(np.float16)
    state_of = np.concatenate([np.arange(70) // 5, np.full(23, -1), 14 + np.arange(45) // 5]).astype(np.int32)
    np.savez(folder / "shard-00000.npz", **arrays, states=states, state_of=state_of, writer=np.ones(3))
    utterances = Utterances(folder)
    batch = LatentSegments(utterances, 30, 2, hops=(480, 300)).collate([(0, 20), (1, 0)])
    assert utterances.state_width == 3 and batch.states_BTW.shape == (2, 30, 3)
    np.testing.assert_array_equal(batch.states_BTW[0].numpy(), states[np.arange(20, 50) // 5])
    assert not batch.states_BTW[1].any()  # of that text nobody knows the words
    np.testing.assert_array_equal(utterances.state_rows(2), states[14 + np.arange(45) // 5])


def test_a_share_of_the_segments_is_read_without_states(folder):
    with np.load(folder / "shard-00000.npz") as data:
        arrays = dict(data)
    rows = {"states": np.ones((1, 3), np.float16), "state_of": np.zeros(sum(LENGTHS), np.int32), "writer": np.ones(3)}
    np.savez(folder / "shard-00000.npz", **arrays, **rows)
    segments = LatentSegments(Utterances(folder), 30, 4, (480, 300), stateless=0.25)
    read = [bool(row.any()) for step in range(100) for row in segments[step].states_BTW]
    assert 0.65 < sum(read) / len(read) < 0.85
    plain = LatentSegments(Utterances(folder), 30, 4, (480, 300))
    assert segments[3].frames_BT.equal(plain[3].frames_BT) and plain[3].states_BTW.any(dim=(1, 2)).all()


def test_states_are_those_of_one_decoder(folder):
    with np.load(folder / "shard-00000.npz") as data:
        arrays = dict(data)
    rows = {"states": np.ones((1, 3), np.float16), "state_of": np.zeros(sum(LENGTHS), np.int32)}
    for marks in ((None, np.ones(3)), (np.ones(3), np.zeros(3))):
        for number, mark in enumerate(marks):
            more = {} if mark is None else rows | {"writer": mark}
            np.savez(folder / f"shard-0000{number}.npz", **arrays, **more)
        with pytest.raises(InputError, match="states of several T2Cs"):
            Utterances(folder)


def test_batches_are_functions_of_seed_and_step(folder):
    utterances = Utterances(folder)
    one, same, other = (LatentSegments(utterances, 30, 4, (480, 300), 0, seed) for seed in (1, 1, 2))
    assert one[7].latents_BJL.equal(same[7].latents_BJL) and not one[7].latents_BJL.equal(other[7].latents_BJL)
    starts = LatentSegments(utterances, 30, 200, (480, 300), first=2)[0]
    rows = utterances.unit_rows(2)
    assert {tuple(row.tolist()) for row in starts.frames_BT} == {
        tuple(rows[a : a + 30].tolist()) for a in (0, 5, 10, 15)
    }


def test_bad_settings_and_folders_are_named(folder, tmp_path):
    with pytest.raises(InputError, match="multiple of 5"):
        LatentSegments(Utterances(folder), 31, 2, (480, 300))
    with pytest.raises(InputError, match="held_out"):
        LatentSegments(Utterances(folder), 30, 2, (480, 300), first=3)
    with pytest.raises(InputError, match="stage teacher"):
        Utterances(tmp_path / "nothing")
