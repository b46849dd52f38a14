"""Padding all pieces at once equals padding row by row, values and gradients, on either side."""

import pytest
import torch

from echox.models.ragged import pad_left, pad_right, unpad


def pad_by_rows(pieces, left):
    longest = max(map(len, pieces))
    batch = pieces[0].new_zeros(len(pieces), longest, *pieces[0].shape[1:])
    mask = torch.zeros(len(pieces), longest, dtype=torch.bool)
    for row, piece in enumerate(pieces):
        where = slice(longest - len(piece), longest) if left else slice(0, len(piece))
        batch[row, where] = piece
        mask[row, where] = True
    return batch, mask


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_all_at_once_is_row_by_row(left, shape):
    torch.manual_seed(0)
    pieces = [torch.randn(length, *shape, requires_grad=True) for length in (4, 0, 1, 6)]
    twins = [piece.detach().clone().requires_grad_() for piece in pieces]
    batch, mask = (pad_left if left else pad_right)(pieces)
    slow, slow_mask = pad_by_rows(twins, left)
    assert torch.equal(batch, slow) and torch.equal(mask, slow_mask)
    for rows, mine in ((unpad(batch, mask), pieces), (unpad(slow, slow_mask), twins)):
        assert all(torch.equal(row, piece) for row, piece in zip(rows, mine, strict=True))
    weights = torch.randn(batch.shape)
    (batch * weights).sum().backward()
    (slow * weights).sum().backward()
    assert all(torch.equal(one.grad, two.grad) for one, two in zip(pieces, twins, strict=True))


def test_whole_numbers_stay_whole():
    batch, _ = pad_right([torch.tensor([1, 2]), torch.tensor([3])])
    assert batch.dtype == torch.long and batch.tolist() == [[1, 2], [3, 0]]
