"""The normaliser: CTC classes to reduced units, padding without effect, strict parts."""

import pytest
import torch

from echox.errors import ModelError
from echox.models.normaliser import Normaliser, NormaliserConfig, collapse
from echox.models.ragged import pad_right


def tiny(**more):
    torch.manual_seed(0)
    sizes = {"encoder_width": 8, "units": 6, "width": 16, "heads": 2, "ffn": 32, "layers": 1}
    return Normaliser(NormaliserConfig(**sizes | more)).eval()


@pytest.mark.parametrize(
    ("classes", "units"), [([], []), ([9, 9], []), ([1, 1, 9, 1], [1]), ([9, 1, 2, 2, 9, 9, 3, 1], [1, 2, 3, 1])]
)
def test_runs_and_blanks_are_taken_out_and_neighbours_differ(classes, units):
    assert collapse(classes, 9) == units


def test_a_batch_says_what_each_row_says_alone():
    model, rows = tiny(), [torch.randn(20, 8), torch.randn(7, 8)]
    batch, mask = pad_right(rows)
    together = model.units(batch, mask.sum(1))
    assert together == [model.units(row[None], torch.tensor([len(row)]))[0] for row in rows]
    assert any(together)


def test_it_is_the_same_after_saving_and_refuses_other_states(tmp_path):
    model, states = tiny(), torch.randn(1, 12, 8)
    model.save(tmp_path)
    again = Normaliser.load(tmp_path).float().eval()
    torch.testing.assert_close(
        again(states, torch.tensor([12])), model(states, torch.tensor([12])), atol=0.01, rtol=0.01
    )
    with pytest.raises(ModelError, match="8 wide, the encoder makes 9"):
        again.check_width(9)
    with pytest.raises(ModelError, match="no units"):
        tiny(units=0)
