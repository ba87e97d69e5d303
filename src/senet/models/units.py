"""Residual units: the branch, the shortcut, and SE at one of the paper's places in them (Figure 5).

Names of modules are torchvision's; the SE block of a unit is its ``se``.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senet.block import SEConfig
from senet.insertion.placement import Slot, UnitChannels, placement_named
from senet.tail import beside, is_bare

# From (entering, leaving, stride) to the shortcut, None where it is the input itself.
Shortcut = Callable[[int, int, int], nn.Module | None]


class ResidualUnit(nn.Module, Slot, abc.ABC):
    """What the kinds of unit share: a shortcut, and at most one SE block at one place."""

    downsample: nn.Module | None
    # Whether a ReLU follows the sum; none does in units that start with one.
    activates_sum = True

    def finish(
        self, channels: UnitChannels, downsample: nn.Module | None, se: SEConfig | None, placement: str
    ) -> None:
        """Adds what comes after the convolutions, in the order in which checkpoints have it.

        Args:
            channels: what enters, is in the middle, leaves.
            downsample: the shortcut, None where it is the input itself.
            se: the block's config, None for a plain unit.
            placement: where the block stands, a name of ``PLACEMENTS``.
        """
        self.channels = channels
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.placement = None if se is None else placement_named(placement)
        self.se = None
        if se is not None and self.placement is not None:
            self.se = se.build(self.placement.channels_in(channels))

    @abc.abstractmethod
    def branch(self, x: Tensor) -> tuple[Tensor, nn.Module | None]:
        """What the branch ends with but for its last norm, and that norm, None for none."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, entering, H, W) to (N, leaving, ⌈H / stride⌉, ⌈W / stride⌉)."""
        return self.run(x, x)[0]

    def shortcut(self, x: Tensor) -> Tensor:
        """What the branch is added to."""
        if self.downsample is None:
            return x
        parts = list(self.downsample) if type(self.downsample) is nn.Sequential else []
        if self.se is not None and len(parts) == 2 and is_bare(self.downsample, parts[1]):
            return beside(parts[1], parts[0](x))
        projected: Tensor = self.downsample(x)
        return projected

    def run(self, x: Tensor, twin: Tensor, *, fork: bool = False) -> tuple[Tensor, Tensor]:
        """The unit, and its output for the two readers that it has in the next unit.

        Args:
            x: for the branch.
            twin: for the shortcut: x, perhaps as a tensor of its own.
            fork: whether the output shall be two tensors; see ``Tail``.
        """
        u, norm = self.branch(x)
        return self.join(u, norm, self.shortcut(twin), fork=fork)

    def join(
        self, u: Tensor, norm: nn.Module | None, r: Tensor, *, fork: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The sum of branch and shortcut, with SE where it stands at the end of either or after it.

        Args:
            u: of the branch, before its last norm.
            norm: of the branch, None for none.
            r: the shortcut.
            fork: see ``run``.
        """
        activation = self.relu if self.activates_sum else None
        if self.se is not None and self.is_at("standard"):
            return self.se.tail(u, norm=norm, residual=r, activation=activation, fork=fork)
        u = u if norm is None else norm(u)
        if self.se is not None and self.is_at("identity"):
            return self.se.tail(r, residual=u, activation=activation, fork=fork)
        out = u + r
        out = self.at("post", out if activation is None else activation(out))
        return out, out

    def is_at(self, placement: str) -> bool:
        """Whether SE stands at ``placement``."""
        return self.placement is not None and self.placement.name == placement

    def at(self, placement: str, tensor: Tensor) -> Tensor:
        """``tensor`` gated if SE stands at ``placement``, else ``tensor`` itself."""
        if self.se is None or not self.is_at(placement):
            return tensor
        gated: Tensor = self.se(tensor)
        return gated


class Stage(nn.Sequential):
    """Units one after the other.

    The map between two of them is read by a branch and by a shortcut. Where nobody else can see it, each
    gets it as a tensor of its own, so that their gradients need no sweep to be added.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) through all units."""
        pair = (x, x)
        units = list(self)
        for unit, following in itertools.zip_longest(units, units[1:]):
            if _is_plain(unit):
                pair = unit.run(*pair, fork=_takes_two(following))
            else:
                out = unit(pair[0])
                pair = (out, out)
        return pair[0]


def _is_plain(unit: nn.Module | None) -> TypeGuard[ResidualUnit]:
    """Whether calling a unit is to run it: nobody has attached anything, or changed what it does."""
    return isinstance(unit, ResidualUnit) and type(unit).forward is ResidualUnit.forward and is_bare(unit)


def _takes_two(unit: nn.Module | None) -> bool:
    """Whether a unit reads its input twice, in training that nothing looks at."""
    known = _is_plain(unit) and unit.downsample is None
    return known and torch.is_grad_enabled() and not torch.compiler.is_compiling()


class BasicUnit(ResidualUnit):
    """Two 3×3 convolutions (ResNet-18/34, CIFAR).

    Args:
        entering: channels of the input.
        planes: channels of both convolutions, and of the output.
        stride: of the first convolution.
        shortcut: makes the shortcut.
        se: the SE block's config, or None.
        placement: where the block stands; "3x3" is not defined here.
    """

    def __init__(
        self,
        entering: int,
        planes: int,
        stride: int,
        *,
        shortcut: Shortcut,
        se: SEConfig | None,
        placement: str,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        channels = UnitChannels(entering, None, planes)
        self.finish(channels, shortcut(entering, planes, stride), se, placement)

    def branch(self, x: Tensor) -> tuple[Tensor, nn.Module | None]:
        """(N, entering, H, W) to (N, planes, ⌈H / stride⌉, ⌈W / stride⌉), before the last norm."""
        u = self.relu(self.bn1(self.conv1(self.at("pre", x))))
        return self.conv2(u), self.bn2


class BottleneckUnit(ResidualUnit):
    """1×1, 3×3, 1×1 (ResNet-50 and deeper, ResNeXt, SENet-154).

    Args:
        entering: channels of the input.
        planes: a quarter of the output's channels.
        stride: of the unit.
        shortcut: makes the shortcut.
        se: the SE block's config, or None.
        placement: where the block stands.
        groups: of the 3×3 convolution (32 in ResNeXt, 64 in SENet-154).
        base_width: the 3×3 has planes · base_width / 64 · groups channels.
        halve_first: the first 1×1 has half of those (SENet-154).
        stride_first: the stride sits on the first 1×1, as in the original ResNets, not on the 3×3.
    """

    def __init__(
        self,
        entering: int,
        planes: int,
        stride: int,
        *,
        shortcut: Shortcut,
        se: SEConfig | None,
        placement: str,
        groups: int = 1,
        base_width: int = 64,
        halve_first: bool = False,
        stride_first: bool = False,
    ) -> None:
        super().__init__()
        leaving = 4 * planes
        width = planes * base_width // 64 * groups
        first = width // 2 if halve_first else width
        stride1, stride2 = (stride, 1) if stride_first else (1, stride)
        self.conv1 = nn.Conv2d(entering, first, 1, stride1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, width, 3, stride2, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, leaving, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(leaving)
        channels = UnitChannels(entering, width, leaving)
        self.finish(channels, shortcut(entering, leaving, stride), se, placement)

    def branch(self, x: Tensor) -> tuple[Tensor, nn.Module | None]:
        """(N, entering, H, W) to (N, 4 · planes, ⌈H / stride⌉, ⌈W / stride⌉), before the last norm."""
        u = self.relu(self.bn1(self.conv1(self.at("pre", x))))
        u = self.conv2(u)
        if self.se is not None and self.is_at("3x3"):
            u, _ = self.se.tail(u, norm=self.bn2, inner=self.relu)
        else:
            u = self.relu(self.bn2(u))
        return self.conv3(u), self.bn3


class PadShortcut(nn.Module):
    """The shortcut without parameters: every stride-th pixel, zeros for the new channels.

    (He et al. 2015, option A.)

    Args:
        entering: channels of the input.
        leaving: channels of the output.
        stride: of the unit.
    """

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        before = (leaving - entering) // 2
        self.padding = (0, 0, 0, 0, before, leaving - entering - before)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, entering, H, W) to (N, leaving, ⌈H / stride⌉, ⌈W / stride⌉)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


def project(entering: int, leaving: int, stride: int, *, kernel: int = 1) -> nn.Module | None:
    """A convolution and a batch norm where the unit changes size, else None.

    Args:
        entering: channels of the input.
        leaving: channels of the output.
        stride: of the unit.
        kernel: where the stride is not 1 (3 in SENet-154); else 1.
    """
    if stride == 1:
        kernel = 1
        if entering == leaving:
            return None
    return nn.Sequential(
        nn.Conv2d(entering, leaving, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(leaving),
    )


def pad(entering: int, leaving: int, stride: int) -> nn.Module | None:
    """A PadShortcut where the unit changes size, else None."""
    return None if stride == 1 and entering == leaving else PadShortcut(entering, leaving, stride)
