"""Layers that several networks are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


class ConvNormReLU(nn.Module):
    """A convolution without bias, a batch norm and a ReLU.

    Args:
        entering: channels of the input.
        leaving: channels of the output.
        kernel: (height, width), or one number for both.
        stride: in both directions.
        padding: None for that which keeps the size at stride 1.
        groups: of the convolution.
        eps: of the norm.
    """

    def __init__(
        self,
        entering: int,
        leaving: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        around = (height // 2, width // 2) if padding is None else (padding, padding)
        self.conv = nn.Conv2d(
            entering, leaving, (height, width), stride, padding=around, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(leaving, eps=eps)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, entering, H, W) to (N, leaving, H', W')."""
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class Conv(NamedTuple):
    """A ConvNormReLU as a row of a table: what leaves it, and the rest as there."""

    leaving: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padding: int | None = None


def chain(entering: int, rows: Iterable[Conv], *, eps: float = 1e-5) -> nn.Sequential:
    """A ConvNormReLU for each row, one after the other.

    Args:
        entering: channels of the first one's input.
        rows: a row each.
        eps: of the norms.
    """
    layers = nn.Sequential()
    for leaving, kernel, stride, padding in rows:
        layers.append(ConvNormReLU(entering, leaving, kernel, stride=stride, padding=padding, eps=eps))
        entering = leaving
    return layers


class Concatenation(nn.Module):
    """Branches of one input, their outputs one after the other along the channels.

    Args:
        branches: by name, in the order of their outputs.
    """

    def __init__(self, branches: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)
        # An SE block that is inserted becomes a child too, and is no branch.
        self.branches = tuple(branches)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, the sum of the branches' channels, H', W')."""
        return torch.cat([getattr(self, name)(x) for name in self.branches], 1)


def max_pool(layout: str) -> nn.MaxPool2d:
    """The 3×3 pooling with stride 2: unpadded in ceil mode as Caffe's in the original layout, else padded."""
    return nn.MaxPool2d(3, 2, ceil_mode=True) if layout == "original" else nn.MaxPool2d(3, 2, padding=1)
