"""ShuffleNet: grouped 1×1 convolutions and a channel shuffle (Zhang et al. 2017, arXiv 1707.01083).

Where a unit has a stride, its shortcut is pooled and concatenated, not added (Figure 2c). SE gates the
branch before either, a choice: the SE paper does not say, and its Table 3 fits if its sizes are cut.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from senet.block import SEConfig
from senet.errors import UndefinedError
from senet.insertion.placement import UnitChannels
from senet.kernels.layout import dense
from senet.models.layers import ConvNormReLU, max_pool
from senet.models.network import Level, Network, checked_stages
from senet.models.registry import NetworkConfig, register
from senet.models.units import ResidualUnit, Stage

GROUPS = 3
STEM = 24
# Stage, units, channels: column g = 3 of the ShuffleNet paper's Table 1, whose stages are 2 to 4.
STAGES = ((3, 4, 240), (4, 8, 480), (5, 4, 960))


class ShuffleUnit(ResidualUnit):
    """1×1 grouped, shuffle, 3×3 depthwise, 1×1 grouped; then a sum, or with a stride a concatenation.

    Args:
        entering: channels of the input.
        leaving: channels of the output, four times those of the depthwise convolution.
        stride: of the depthwise convolution; 1 needs as many channels leaving as entering.
        groups: of the first 1×1.
        se: the SE block's config, or None.
    """

    def __init__(self, entering: int, leaving: int, stride: int, *, groups: int, se: SEConfig | None) -> None:
        super().__init__()
        middle = leaving // 4
        computed = leaving if stride == 1 else leaving - entering
        self.conv1 = nn.Conv2d(entering, middle, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, padding=1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, computed, 1, groups=GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(computed)
        shortcut = None if stride == 1 else nn.AvgPool2d(3, stride, padding=1)
        # What SE gates has the channels of the branch, which are not all that leave where there is a stride.
        self.finish(UnitChannels(entering, middle, computed), shortcut, se, "standard")

    def branch(self, x: Tensor) -> tuple[Tensor, nn.Module | None]:
        """What is computed from (N, entering, H, W), before the last norm."""
        u = shuffle(self.relu(self.bn1(self.conv1(self.at("pre", x)))), GROUPS)
        return self.conv3(self.at("3x3", self.bn2(self.conv2(u)))), self.bn3

    def run(self, x: Tensor, twin: Tensor, *, fork: bool = False) -> tuple[Tensor, Tensor]:
        """See ``ResidualUnit``."""
        if self.downsample is None:
            return super().run(x, twin, fork=fork)
        pooled = self.downsample(twin)
        u, _ = self.branch(x)
        if self.se is None:
            out = self.relu(torch.cat([pooled, self.bn3(u)], 1))
        else:
            # Apart from each other, so that the branch's can be one operation with SE.
            u, _ = self.se.tail(u, norm=self.bn3, activation=self.relu)
            out = torch.cat([self.relu(pooled), u], 1)
        return out, out


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Every channel of (N, C, H, W) to another group: the first of each, then the second of each."""
    return dense(torch.unflatten(x, 1, (groups, -1)).transpose(1, 2).flatten(1, 2), like=x)


class ShuffleNet(Network):
    """ShuffleNet v1 1x with three groups, with or without SE.

    Args:
        config: its placement is "standard", its stages are of 3 to 5; both layouts are the same.

    Raises:
        OptionError: a stage does not exist.
        UndefinedError: the placement is another.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        if config.placement != "standard":
            raise UndefinedError(
                f"placement={config.placement!r}",
                found="the units with a stride concatenate their shortcut: they have no sum",
                allowed="standard",
                do=f"senet.insert(plain network, placement={config.placement!r}) does so in the other units.",
            )
        with_se = checked_stages(config.stages, [stage for stage, _, _ in STAGES])
        self.conv1 = ConvNormReLU(config.in_channels, STEM, 3, stride=2)
        self.maxpool = max_pool("modern")
        levels = [Level(1, ("conv1",), STEM, 2), Level(2, ("maxpool",), STEM, 4)]
        entering = STEM
        for stage, depth, leaving in STAGES:
            units = Stage()
            for index in range(depth):
                # So few channels as the stem's are not taken apart (section 3.3).
                groups = 1 if entering == STEM else GROUPS
                stride = 2 if index == 0 else 1
                gate = config.se if stage in with_se else None
                units.append(ShuffleUnit(entering, leaving, stride, groups=groups, se=gate))
                entering = leaving
            name = f"layer{stage}"
            self.add_module(name, units)
            levels.append(Level(stage, (name,), leaving, 2**stage))
        self.finish(levels)


register("shufflenet_v1_g3", ShuffleNet, family="shufflenet", input_size=(3, 224, 224), one_layout=True)
