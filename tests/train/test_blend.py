"""A blend lies on the straight line between what was tuned and what it started from."""

import torch
from torch import nn

from echox.train.checkpoint import blend


def test_every_tensor_lies_on_the_line_and_the_tuned_one_stays():
    torch.manual_seed(0)
    start, tuned = nn.Linear(3, 4), nn.Linear(3, 4)
    before = {name: value.clone() for name, value in start.state_dict().items()}
    own = {name: value.clone() for name, value in tuned.state_dict().items()}
    between = blend(start, tuned, 0.25).state_dict()
    for name, value in own.items():
        torch.testing.assert_close(between[name], 0.25 * before[name] + 0.75 * value)
        assert torch.equal(tuned.state_dict()[name], value)
