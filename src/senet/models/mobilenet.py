"""MobileNet: depthwise-separable convolutions (Howard et al. 2017, arXiv 1704.04861, Table 1).

The convolutions pad each side alike, so both layouts are the same network. SE follows each
pointwise convolution, as the authors of SE said (issue 64 of their repository; Table 3), after its ReLU.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from senet.errors import require
from senet.models.layers import ConvNormReLU
from senet.models.network import Level, Network
from senet.models.placing import place
from senet.models.registry import NetworkConfig, register

# The stages from 1 on; a unit is the channels of its output and its stride.
STAGES: tuple[tuple[tuple[int, int], ...], ...] = (
    ((64, 1),),
    ((128, 2), (128, 1)),
    ((256, 2), (256, 1)),
    ((512, 2), *5 * ((512, 1),)),
    ((1024, 2), (1024, 1)),
)


class SeparableUnit(nn.Module):
    """A depthwise 3×3 convolution and a pointwise one, each with batch norm and ReLU.

    Args:
        entering: channels of the input.
        leaving: channels of the output.
        stride: of the depthwise convolution.
    """

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.depthwise = ConvNormReLU(entering, entering, 3, stride=stride, groups=entering)
        self.pointwise = ConvNormReLU(entering, leaving)

    def forward(self, x: Tensor) -> Tensor:
        """(N, entering, H, W) to (N, leaving, ⌈H / stride⌉, ⌈W / stride⌉)."""
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


class MobileNet(Network):
    """MobileNet v1, with or without SE.

    Args:
        config: its placement is "standard", its stages are of 1 to 5; both layouts are the same.
        width: every layer has this many times as many channels, rounded down.

    Raises:
        OptionError: a stage does not exist, the placement is one of residual units, or the width
            leaves a layer with fewer than 8 channels.
    """

    def __init__(self, config: NetworkConfig, *, width: float = 1.0) -> None:
        super().__init__(config)
        possible = isinstance(width, int | float) and not isinstance(width, bool) and 0.25 <= width < math.inf
        require("width", width, possible, "a number of at least 0.25, for 8 channels in the first layer")

        entering = int(width * 32)
        self.conv1 = ConvNormReLU(config.in_channels, entering, 3, stride=2)
        levels = []
        before: tuple[str, ...] = ("conv1",)
        for stage, rows in enumerate(STAGES, start=1):
            units = nn.Sequential()
            for channels, stride in rows:
                leaving = int(width * channels)
                units.append(SeparableUnit(entering, leaving, stride))
                entering = leaving
            name = f"layer{stage}"
            self.add_module(name, units)
            levels.append(Level(stage, (*before, name), entering, 2**stage))
            before = ()
        self.finish(levels)
        place(self, 224)


register("mobilenet_v1", MobileNet, family="mobilenet", input_size=(3, 224, 224), one_layout=True)
