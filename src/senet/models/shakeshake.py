"""Shake-Shake: two branches a unit, mixed at random (Gastaldi 2017, arXiv 1705.07485).

A network is a row of ``ROWS``; names of modules are those of ``preresnet``.

Whether SE gates each branch or their mix, the SE paper does not say. It gates the mix: both branches
together are the unit's non-identity branch, which section 3.3 takes for F_tr.

In Gastaldi's code ReLUs overwrite their input, but an identity shortcut has been copied before. So it is
the raw input here too, and nothing is overwritten that somebody else reads.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from senet.block import SEConfig
from senet.insertion.placement import UnitChannels
from senet.models.preresnet import CifarNetwork, PreActivationUnit, Row
from senet.models.registry import register
from senet.models.units import ResidualUnit, project


class _Shake(torch.autograd.Function):
    """alpha · a + (1 - alpha) · b, with beta in place of alpha in the gradient."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        ctx.save_for_backward(beta)
        return torch.lerp(b, a, alpha)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (beta,) = ctx.saved_tensors
        return g * beta, g * (1 - beta), None, None


class Mix(nn.Module):
    """The mean of two maps; in training a random mix for each image, whose gradient is another.

    (Shake-Shake-Image and Shake-Even-Image; the gradient can be taken once.)

    Args:
        even: the gradient is that of the mean (Shake-Even), else that of another random mix.
    """

    def __init__(self, *, even: bool) -> None:
        super().__init__()
        self.even = even

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two (N, C, H, W) to one."""
        if not self.training:
            return torch.lerp(a, b, 0.5)
        alpha, beta = torch.rand(2, a.shape[0], 1, 1, 1, dtype=a.dtype, device=a.device)
        out: Tensor = _Shake.apply(a, b, alpha, torch.full_like(beta, 0.5) if self.even else beta)
        return out


class ShiftedProjection(nn.Module):
    """Half of the channels from every stride-th pixel, half from its neighbour above and to the left.

    Args:
        entering: channels of the input.
        leaving: channels of the output.
        stride: of the unit.
    """

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving // 2, 1, stride, bias=False)
        self.conv2 = nn.Conv2d(entering, leaving // 2, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, entering, H, W) to (N, leaving, ⌈H / stride⌉, ⌈W / stride⌉)."""
        return torch.cat([self.conv1(x), self.conv2(F.pad(x, (1, -1, 1, -1)))], 1)


class ShakeBasicUnit(PreActivationUnit):
    """Branches of two 3×3 convolutions, after a ReLU that they share (26 2x96d).

    Args:
        entering: channels of the input.
        planes: channels of all convolutions, and of the output.
        stride: of the first convolutions.
        even: see ``Mix``.
        se: the SE block's config, or None.
        placement: where the block stands; "3x3" is not defined here.
    """

    def __init__(
        self, entering: int, planes: int, stride: int, *, even: bool, se: SEConfig | None, placement: str
    ) -> None:
        super().__init__()
        # The unit's own ReLU is in place.
        self.relu1 = nn.ReLU()
        self.branch1, self.branch2 = (
            nn.Sequential(
                nn.Conv2d(entering, planes, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(planes),
                nn.ReLU(inplace=True),
                nn.Conv2d(planes, planes, 3, padding=1, bias=False),
                nn.BatchNorm2d(planes),
            )
            for _ in range(2)
        )
        self.mix = Mix(even=even)
        shortcut = None
        if stride > 1 or entering != planes:
            projection = ShiftedProjection(entering, planes, stride)
            shortcut = nn.Sequential(projection, nn.BatchNorm2d(planes))
        self.finish(UnitChannels(entering, None, planes), shortcut, se, placement)

    def start(self, x: Tensor) -> Tensor:
        """The ReLU of (N, entering, H, W)."""
        out: Tensor = self.relu1(x)
        return out

    def branch(self, x: Tensor) -> tuple[Tensor, nn.Module | None]:
        """(N, entering, H, W), activated, to (N, planes, ⌈H / stride⌉, ⌈W / stride⌉)."""
        return self.mix(self.branch1(x), self.branch2(x)), None


class ShakeBottleneckUnit(ResidualUnit):
    """Branches of a 1×1, a grouped 3×3 and a 1×1 (29 2x4x64d).

    Args:
        entering: channels of the input.
        planes: a quarter of the channels inside and of the output's.
        stride: of the 3×3 convolutions.
        even: see ``Mix``.
        se: the SE block's config, or None.
        placement: where the block stands; "3x3" is not defined: two stand side by side.
    """

    def __init__(
        self, entering: int, planes: int, stride: int, *, even: bool, se: SEConfig | None, placement: str
    ) -> None:
        super().__init__()
        width = 4 * planes
        self.branch1, self.branch2 = (
            nn.Sequential(
                nn.Conv2d(entering, width, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 3, stride, padding=1, groups=4, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 1, bias=False),
                nn.BatchNorm2d(width),
            )
            for _ in range(2)
        )
        self.mix = Mix(even=even)
        self.finish(UnitChannels(entering, None, width), project(entering, width, stride), se, placement)

    def branch(self, x: Tensor) -> tuple[Tensor, nn.Module | None]:
        """(N, entering, H, W) to (N, 4 · planes, ⌈H / stride⌉, ⌈W / stride⌉)."""
        x = self.at("pre", x)
        return self.mix(self.branch1(x), self.branch2(x)), None


# The names are depth, branches × (groups ×) width of the first stage. With the classes for which it is made.
ROWS: dict[str, tuple[Row, int]] = {
    "shakeshake26_2x96d": (
        Row(partial(ShakeBasicUnit, even=False), 4, 96, before=("conv1", "bn1"), after=("relu",)),
        10,
    ),
    "shakeeven29_2x4x64d": (
        Row(
            partial(ShakeBottleneckUnit, even=True),
            3,
            64,
            stem=64,
            before=("conv1", "bn1", "relu"),
            after=(),
        ),
        100,
    ),
}

for _name, (_row, _classes) in ROWS.items():
    register(
        _name,
        partial(CifarNetwork, _row),
        family="shakeshake",
        input_size=(3, 32, 32),
        classes=_classes,
        one_layout=True,
    )
