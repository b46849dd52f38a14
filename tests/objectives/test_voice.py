"""The voice objective: every term on numbers worked by hand, and the columns that the vocoder reads."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from echox.data.latents import LatentBatch
from echox.objectives.voice import Regression, VoiceObjective, VoicePass


def test_every_term_by_hand():
    """Two latents, pitch, energy, voicing; the second frame is unvoiced and its pitch of no account."""
    outputs_NO = torch.tensor([[1.0, 2.0, 5.5, 4.0, 0.0], [1.0, 5.0, 99.0, 1.0, 0.0]])
    wanted_NO = torch.tensor([[1.0, 2.0, 5.0, 3.0], [1.0, 2.0, 0.0, 4.0]])
    found = Regression(outputs_NO, wanted_NO, torch.tensor([True, False]), torch.zeros(3, 4), torch.tensor([0, 3, 1]))
    loss = VoiceObjective(prosody=0.3, durations=0.1)(found)
    parts = {"latents": 2.5 / 4, "voicing": math.log(2), "pitch": 0.5, "energy": 2.0, "durations": math.log(4)}
    assert {name: float(value) for name, value in loss.parts.items()} == pytest.approx(parts)
    assert float(loss.total) == pytest.approx(2.5 / 4 + 0.3 * (math.log(2) + 2.5) + 0.1 * math.log(4))
    assert loss.tokens == 2
    found.outputs_NO[:, -1] = torch.tensor([9.0, -9.0])  # above zero is voiced
    assert float(VoiceObjective()(found).parts["voicing"]) < 0.001


def test_parts_are_means_over_what_they_are_of_and_a_batch_without_whole_units_has_no_durations():
    outputs_NO, wanted_NO = torch.zeros(4, 5), torch.tensor([[0.0, 0.0, 3.0, 0.0]] * 4)
    voiced = torch.tensor([True, False, False, False])
    cut = Regression(outputs_NO, wanted_NO, voiced, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    whole = Regression(outputs_NO[:1], wanted_NO[:1], voiced[1:2], torch.zeros(2, 4), torch.tensor([0, 3]))
    sums: dict[str, tuple[float, float]] = {}
    for found in (cut, whole):
        VoiceObjective()(found).add_to(sums)
    means = {name: total / count for name, (total, count) in sums.items()}
    assert means["durations"] == pytest.approx(math.log(4)) and means["pitch"] == 3.0
    assert math.isfinite(means["loss"])


class Still(nn.Module):
    """A vocoder of two latents that predicts zeros, and lengths of up to three frames."""

    def __init__(self):
        super().__init__()
        self.mean_O, self.spread_O = torch.tensor([1.0, 0.0, 3.0, 2.0]), torch.tensor([1.0, 2.0, 0.5, 4.0])
        self.config = SimpleNamespace(max_duration=3)

    def predict(self, frames_BT, mask_BT, states_BTW):
        return torch.zeros(*frames_BT.shape, 5)

    def durations(self, units_BU, states_BUW, mask_BU):
        self.read = states_BUW
        return torch.zeros(*units_BU.shape, 3)


def test_targets_are_standardised_and_only_what_is_judged_or_whole_counts():
    batch = LatentBatch(
        frames_BT=torch.tensor([[4, 5, 5]]),
        mask_BT=torch.ones(1, 3, dtype=torch.bool),
        states_BTW=torch.tensor([[[1.0, 2.0], [3.0, 4.0], [3.0, 4.0]]]),
        latents_BJL=torch.tensor([[[3.0, 4.0], [9.0, 9.0], [1.0, 2.0]]]),
        f0_BJ=torch.tensor([[math.e**4, 99.0, 0.0]]),
        energy_BJ=torch.tensor([[6.0, 99.0, 2.0]]),
        judged_BJ=torch.tensor([[True, False, True]]),
        units_BU=torch.tensor([[4, 5, 6]]),
        lengths_BU=torch.tensor([[1, 2, 9]]),
        whole_BU=torch.tensor([[True, False, True]]),
    )
    still = Still()
    found = VoicePass(still)(batch)
    assert still.read[0, :2].tolist() == [[1.0, 2.0], [3.0, 4.0]]  # a unit's state is that of its first frame
    torch.testing.assert_close(found.wanted_NO, torch.tensor([[2.0, 2.0, 2.0, 1.0], [0.0, 1.0, -6.0, 0.0]]))
    assert found.voiced_N.tolist() == [True, False] and found.outputs_NO.shape == (2, 5)
    assert found.lengths_N.tolist() == [0, 2] and found.logits_ND.shape == (2, 3)  # nothing is longer than the longest
