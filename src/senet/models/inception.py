"""BN-Inception, plain and SE from one definition (Ioffe & Szegedy 2015).

Widths, poolings and the names of modules are those of the released SE-BN-Inception prototxt. SE stands
after each of the ten modules, on the concatenation (section 3.3, Figure 2), the two that halve the map
included. These belong to the stage whose resolution they produce.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from senet.models.layers import Concatenation, Conv, ConvNormReLU, chain, max_pool
from senet.models.network import Level, Network
from senet.models.placing import place
from senet.models.registry import NetworkConfig, register


class Row(NamedTuple):
    """One module, as data.

    Args:
        one: channels of the 1×1; 0 in the modules that halve the map, which have none.
        three: channels of the 3×3's reduction, and of the 3×3.
        double: channels of the double 3×3's reduction, and of both its 3×3.
        projected: channels after the pooling; 0 for its own, in the modules that halve the map.
        pool: "average" or "max".
    """

    one: int
    three: tuple[int, int]
    double: tuple[int, int]
    projected: int
    pool: str = "average"


# The modules of each stage.
STAGES = {
    3: {
        "3a": Row(64, (64, 64), (64, 96), 32),
        "3b": Row(64, (64, 96), (64, 96), 64),
    },
    4: {
        "3c": Row(0, (128, 160), (64, 96), 0, "max"),
        "4a": Row(224, (64, 96), (96, 128), 128),
        "4b": Row(192, (96, 128), (96, 128), 128),
        "4c": Row(160, (128, 160), (128, 160), 128),
        "4d": Row(96, (128, 192), (160, 192), 128),
    },
    5: {
        "4e": Row(0, (128, 192), (192, 256), 0, "max"),
        "5a": Row(352, (192, 320), (160, 224), 128),
        "5b": Row(352, (192, 320), (192, 224), 128, "max"),
    },
}


class BNInception(Network):
    """A stem of three convolutions and ten Inception modules.

    Args:
        config: its placement is "standard", its stages are of 3 to 5; in the original layout poolings
            with a stride are unpadded in ceil mode, as released.
        dropout: before the classifier.

    Raises:
        OptionError: a stage or the place does not exist, or an option has no such value.
    """

    def __init__(self, config: NetworkConfig, *, dropout: float = 0.0) -> None:
        super().__init__(config, dropout)
        self.conv1 = ConvNormReLU(config.in_channels, 64, 7, stride=2)
        self.pool1 = max_pool(config.layout)
        self.conv2_reduce = ConvNormReLU(64, 64)
        self.conv2 = ConvNormReLU(64, 192, 3)
        self.pool2 = max_pool(config.layout)
        levels = [
            Level(1, ("conv1",), 64, 2),
            Level(2, ("pool1", "conv2_reduce", "conv2"), 192, 4),
        ]
        width = 192
        modules = ["pool2"]
        for stage, rows in STAGES.items():
            for name, row in rows.items():
                module, width = _module(width, row, config.layout)
                modules.append(f"inception_{name}")
                self.add_module(modules[-1], module)
            levels.append(Level(stage, tuple(modules), width, 2**stage))
            modules.clear()
        self.finish(levels)
        place(self, 224)


def _module(entering: int, row: Row, layout: str) -> tuple[nn.Module, int]:
    """The module of a row, and its channels."""
    halves = not row.one
    stride = 2 if halves else 1
    (reduce, three), (reduce_double, double) = row.three, row.double
    branches = {} if halves else {"conv1x1": chain(entering, [Conv(row.one)])}
    branches["conv3x3"] = chain(entering, [Conv(reduce), Conv(three, 3, stride)])
    branches["double3x3"] = chain(entering, [Conv(reduce_double), Conv(double, 3), Conv(double, 3, stride)])
    if halves:
        branches["pool"] = _halving(layout)
    else:
        pool = nn.AvgPool2d(3, 1, padding=1) if row.pool == "average" else nn.MaxPool2d(3, 1, padding=1)
        branches["pool"] = nn.Sequential(pool, *chain(entering, [Conv(row.projected)]))
    return Concatenation(branches), row.one + three + double + (row.projected or entering)


def _halving(layout: str) -> nn.Sequential:
    """The pooling with stride 2 beside convolutions, which make ⌈n / 2⌉ of n.

    The released one, unpadded in ceil mode, makes ⌊n / 2⌋: at odd sizes the released network cannot
    concatenate. One more row and column that no maximum can take give the original layout the same
    values at even sizes, and ⌈n / 2⌉ at odd ones.
    """
    if layout == "original":
        return nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), -torch.inf), max_pool(layout))
    return nn.Sequential(max_pool(layout))


register("bn_inception", BNInception, family="inception", input_size=(3, 224, 224))
