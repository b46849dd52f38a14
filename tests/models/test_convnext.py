"""Layers that are fed piece by piece against plain padded convolutions."""

import pytest
import torch
from torch.nn import functional

from echox.models.convnext import AheadConv, ConvNeXtBlock, Tail


@pytest.mark.parametrize(("ahead", "dilation"), [(None, 1), (0, 1), (2, 1), (4, 2), (0, 4)])
@pytest.mark.parametrize("cuts", [[20], [1] * 20, [3, 0, 9, 8]])
def test_pieces_equal_a_padded_convolution(ahead, dilation, cuts):
    torch.manual_seed(0)
    conv = AheadConv(3, 4, 5, ahead, dilation)
    rows_BTC = torch.randn(2, 20, 3)
    padded = functional.pad(rows_BTC.transpose(1, 2), (conv.behind, conv.ahead))
    expected = functional.conv1d(padded, conv.weight, conv.bias, dilation=dilation).transpose(1, 2)
    tail, pieces = Tail(), rows_BTC.split(cuts, dim=1)
    made = [conv(piece, tail, last=number == len(cuts) - 1) for number, piece in enumerate(pieces)]
    torch.testing.assert_close(torch.cat(made, dim=1), expected)
    assert conv.behind + conv.ahead == 4 * dilation


def test_a_block_is_a_residual_of_its_layers():
    torch.manual_seed(0)
    block = ConvNeXtBlock(6, kernel=3, expansion=2)
    rows_BTC, conv = torch.randn(2, 9, 6), block.depthwise
    mixed = functional.conv1d(rows_BTC.transpose(1, 2), conv.weight, conv.bias, padding=1, groups=6).transpose(1, 2)
    expected = rows_BTC + block.scale * block.down(functional.gelu(block.up(block.norm(mixed))))
    torch.testing.assert_close(block(rows_BTC), expected)
    tail = Tail()
    made = [block(piece, tail, last) for piece, last in zip(rows_BTC.split([4, 5], dim=1), (False, True), strict=True)]
    torch.testing.assert_close(torch.cat(made, dim=1), expected)
