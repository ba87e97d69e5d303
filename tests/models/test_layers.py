"""The layers that several networks share."""

import pytest
import torch
from torch import nn

from senet.models.layers import Concatenation, Conv, ConvNormReLU, chain, max_pool


def test_a_convolution_with_norm_and_relu() -> None:
    layer = ConvNormReLU(6, 9, (1, 3), stride=2, groups=3, eps=0.5).double().eval()
    x = torch.randn(2, 6, 7, 10, dtype=torch.float64)
    wanted = nn.functional.conv2d(x, layer.conv.weight, None, 2, (0, 1), 1, 3) / (1 + 0.5) ** 0.5
    torch.testing.assert_close(layer(x), wanted.relu())
    assert layer(x).shape == (2, 9, 4, 5)
    assert layer.conv.bias is None
    assert ConvNormReLU(6, 9, 3, padding=0)(x.float()).shape == (2, 9, 5, 8)


def test_a_chain_of_rows() -> None:
    layers = chain(3, [Conv(4), Conv(5, 3, 2), Conv(6, (7, 1), 1, 0)], eps=1e-3)
    convs = [layer.conv for layer in layers if isinstance(layer, ConvNormReLU)]
    assert [(conv.in_channels, conv.out_channels, conv.kernel_size) for conv in convs] == [
        (3, 4, (1, 1)),
        (4, 5, (3, 3)),
        (5, 6, (7, 1)),
    ]
    assert [(conv.stride, conv.padding) for conv in convs] == [
        ((1, 1), (0, 0)),
        ((2, 2), (1, 1)),
        ((1, 1), (0, 0)),
    ]
    assert {module.eps for module in layers.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}


def test_a_concatenation_runs_its_branches_and_nothing_else() -> None:
    branches = {"one": nn.Conv2d(3, 2, 1), "two": nn.Identity()}
    module = Concatenation(branches)
    # As an inserted block would be.
    module.se = nn.Conv2d(3, 100, 1)
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(module(x), torch.cat([branches["one"](x), x], 1))
    assert [name for name, _ in module.named_children()] == ["one", "two", "se"]


@pytest.mark.parametrize(("size", "modern", "original"), [(6, 3, 3), (7, 4, 3), (112, 56, 56), (113, 57, 56)])
def test_the_pooling_of_both_layouts(size: int, modern: int, original: int) -> None:
    x = torch.randn(1, 2, size, size)
    assert max_pool("modern")(x).shape[-1] == modern
    assert max_pool("original")(x).shape[-1] == original
    # Unpadded, the first window starts at the first pixel.
    assert torch.equal(max_pool("original")(x)[0, :, 0, 0], x[0, :, :3, :3].amax((1, 2)))
    assert torch.equal(max_pool("modern")(x)[0, :, 0, 0], x[0, :, :2, :2].amax((1, 2)))
