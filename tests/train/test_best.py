"""Selection of weights: the best by a score or a loss are kept, whatever else was measured, and their mean is taken."""

import pytest
import torch
from torch import nn

from echox.errors import ConfigError
from echox.train.best import Best, Selection


class Tied(nn.Module):
    """One table under two names, and a buffer."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(2, 1), nn.Linear(1, 2, bias=False)
        self.head.weight = self.table.weight
        self.register_buffer("seen", torch.zeros(1))

    def at(self, value):
        with torch.no_grad():
            self.table.weight.fill_(value)
            self.seen.fill_(10 * value)


@pytest.mark.parametrize(
    ("by", "kept", "mean"), [("bleu", ["0002.0000", "0003.0000"], 2.5), ("loss", ["0001.0000", "0000.5000"], 5.0)]
)
def test_the_best_are_kept_and_averaged(tmp_path, by, kept, mean):
    module = Tied()
    best = Best(tmp_path, Selection(by=by, keep=2), module)
    best.take_mean()  # of nothing: the module stays
    for score, value in ((1.0, 1.0), (3.0, 3.0), (0.5, 9.0), (2.0, 2.0), (float("nan"), 7.0)):
        module.at(value)
        best.offer({by: score, "other": -score})
    assert best.scores() == kept
    best.take_mean()
    assert torch.equal(module.head.weight, torch.full((2, 1), mean)) and module.head.weight is module.table.weight
    assert float(module.seen) == 10 * mean


@pytest.mark.parametrize("keep", [1, 2])
def test_one_that_is_measured_equal_replaces_the_one_before(tmp_path, keep):
    module = Tied()
    best = Best(tmp_path, Selection(by="bleu", keep=keep), module)
    for value in (1.0, 2.0):
        module.at(value)
        assert best.offer({"bleu": 4.0})
    best.take_mean()
    assert best.scores() == ["0004.0000"] and float(module.table.weight[0].detach()) == 2.0


def test_weights_of_another_module_are_refused(tmp_path):
    best = Best(tmp_path, Selection(by="bleu"), Tied())
    best.offer({"bleu": 1.0})
    with pytest.raises(ConfigError, match="another recipe"):
        Best(tmp_path, Selection(by="bleu"), nn.Linear(1, 1)).take_mean()


def test_a_bare_number_is_how_many():
    assert Selection.parse({"by": "loss", "keep": 3}, "test").keep == 3
    with pytest.raises(ConfigError, match="keep"):
        Selection.parse({"by": "loss", "keep": 0}, "test")
