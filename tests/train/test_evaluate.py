"""Held-out losses: means over what each batch is a mean over, on a model that is still meanwhile."""

import pytest
import torch
from torch import nn

from echox.data.batching import some_at_a_time
from echox.objectives.loss import Loss
from echox.train.evaluate import mean_loss


def test_numbers_are_means_over_rows_not_over_batches():
    model = nn.Dropout().train()

    def loss(batch):
        assert not model.training and not torch.is_grad_enabled()
        return Loss(batch.mean(), {"most": batch.max()}, tokens=9, weight=len(batch))

    batches = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([6.0])]
    assert mean_loss(model, batches, loss) == pytest.approx({"loss": 12 / 4, "most": 15 / 4})
    assert model.training
    assert mean_loss(model.eval(), batches, loss)["loss"] == 3 and not model.training


def test_rows_come_alike_in_length_as_many_as_fit():
    assert some_at_a_time("abcd", [3, 1, 2, 9], 4) == [["b", "c"], ["a"], ["d"]]
