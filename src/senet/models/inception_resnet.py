"""Inception-ResNet-v2, plain and SE from one definition (Szegedy et al. 2016, arXiv 1602.07261).

The paper of SE gives 11.75 GFLOPs for its baseline, which no published variant has. This is the one of
TF-slim (10, 20 and 10 units, 13.16 GFLOPs), as weights exist for it; the text of 1602.07261 has 5, 10
and 5 (9.26). Modules and their parameters are in the order of timm's.

SE stands at the end of each unit's branch, on its last 1×1 convolution and before the residual scaling
(section 3.3, "by following similar schemes"); the stem and the modules that halve the map have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from senet.models.layers import Concatenation, Conv, chain
from senet.models.network import Level, Network
from senet.models.placing import place
from senet.models.registry import NetworkConfig, register

Branch = tuple[Conv, ...]

_chain = partial(chain, eps=1e-3)
_max_pool = partial(nn.MaxPool2d, 3, 2)
_valid = partial(Conv, kernel=3, padding=0)
_halving = partial(_valid, stride=2)

# The branches of the modules that change size; a pooling is one more.
MIXED_5B = (
    (Conv(96),),
    (Conv(48), Conv(64, 5)),
    (Conv(64), Conv(96, 3), Conv(96, 3)),
)
MIXED_6A = (
    (_halving(384),),
    (Conv(256), Conv(256, 3), _halving(384)),
)
MIXED_7A = (
    (Conv(256), _halving(384)),
    (Conv(256), _halving(288)),
    (Conv(256), Conv(288, 3), _halving(320)),
)

# The branches of the units.
BLOCK35 = (
    (Conv(32),),
    (Conv(32), Conv(32, 3)),
    (Conv(32), Conv(48, 3), Conv(64, 3)),
)
BLOCK17 = (
    (Conv(192),),
    (Conv(128), Conv(160, (1, 7)), Conv(192, (7, 1))),
)
BLOCK8 = (
    (Conv(192),),
    (Conv(192), Conv(224, (1, 3)), Conv(256, (3, 1))),
)


class Unit(nn.Module):
    """The input plus a scaled branch: an Inception module and a linear 1×1 convolution.

    Args:
        channels: of input and output.
        branches: of the Inception module.
        scale: of the branch; it steadies training (section 3.3 of 1602.07261).
        activate: whether a ReLU follows the sum.
    """

    def __init__(
        self, channels: int, branches: Sequence[Branch], scale: float, activate: bool = True
    ) -> None:
        super().__init__()
        self.branches = _concatenation(channels, branches)
        self.up = nn.Conv2d(sum(rows[-1].leaving for rows in branches), channels, 1)
        self.relu = nn.ReLU(inplace=True) if activate else nn.Identity()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same."""
        out: Tensor = self.relu(x + self.scale * self.up(self.branches(x)))
        return out


class InceptionResNetV2(Network):
    """A stem, and three stages of residual Inception units.

    Most convolutions that halve a map are unpadded, as the stem's are: a map is a little smaller than
    the image's size over its stride. Images have at least 75×75 pixels.

    Args:
        config: its placement is "standard", "post" or "identity", its stages are of 3 to 5; both layouts
            are the same.
        dropout: before the classifier.

    Raises:
        OptionError: a stage or the place does not exist, or an option has no such value.
    """

    def __init__(self, config: NetworkConfig, *, dropout: float = 0.2) -> None:
        super().__init__(config, dropout)
        self.conv1 = _chain(config.in_channels, [_halving(32), _valid(32), Conv(64, 3)])
        self.pool1 = _max_pool()
        self.conv2 = _chain(64, [Conv(80), _valid(192)])
        self.pool2 = _max_pool()
        average = nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
        pooled = nn.Sequential(average, *_chain(192, [Conv(64)]))
        self.mixed_5b = _concatenation(192, MIXED_5B, pooled)
        self.block35 = nn.Sequential(*(Unit(320, BLOCK35, 0.17) for _ in range(10)))
        self.mixed_6a = _concatenation(320, MIXED_6A, _max_pool())
        self.block17 = nn.Sequential(*(Unit(1088, BLOCK17, 0.10) for _ in range(20)))
        self.mixed_7a = _concatenation(1088, MIXED_7A, _max_pool())
        last = Unit(2080, BLOCK8, 1.0, activate=False)
        self.block8 = nn.Sequential(*(Unit(2080, BLOCK8, 0.20) for _ in range(9)), last)
        self.conv3 = _chain(2080, [Conv(1536)])
        self.finish(
            [
                Level(1, ("conv1",), 64, 2),
                Level(2, ("pool1", "conv2"), 192, 4),
                Level(3, ("pool2", "mixed_5b", "block35"), 320, 8),
                Level(4, ("mixed_6a", "block17"), 1088, 16),
                Level(5, ("mixed_7a", "block8", "conv3"), 1536, 32),
            ]
        )
        place(self, 299)


def _concatenation(entering: int, branches: Sequence[Branch], *others: nn.Module) -> Concatenation:
    """The branches of the rows, and others after them."""
    modules = (*(_chain(entering, rows) for rows in branches), *others)
    return Concatenation({f"branch{index}": module for index, module in enumerate(modules)})


register(
    "inception_resnet_v2",
    InceptionResNetV2,
    family="inception_resnet",
    input_size=(3, 299, 299),
    one_layout=True,
)
