"""Whether numbers are finite: the quick answer against every number asked."""

import pytest
import torch

from echox.models.weights import is_finite


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_one_number_that_is_none_is_found_wherever_it_stands(dtype):
    whole = torch.randn(7, 33, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert is_finite(whole) and is_finite(torch.full_like(whole, torch.finfo(dtype).max))
    for bad in (float("nan"), float("inf"), float("-inf")):
        for place in (0, 100, 230):
            broken = whole.clone()
            broken.view(-1)[place] = bad
            assert is_finite(broken) is bool(torch.isfinite(broken).all()) is False


def test_what_is_empty_or_whole_numbers_is_finite():
    assert is_finite(torch.zeros(0, 3)) and is_finite(torch.tensor(3)) and is_finite(torch.tensor([True]))
