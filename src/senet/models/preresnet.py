"""Pre-activation and wide residual networks for CIFAR: norm and ReLU stand before each convolution.

A network is a row of ``ROWS``. Names of modules are those of ``resnet``: "stage k" is ``layer{k-1}``.

Sources: He et al. 2016 (arXiv 1603.05027; its 1×1 projections have no norm), Zagoruyko & Komodakis 2016
(arXiv 1605.07146; without the dropout inside units, which the SE paper's source has at 0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from senet.block import SEConfig
from senet.insertion.placement import UnitChannels
from senet.models.network import Level, Network, checked_stages
from senet.models.registry import NetworkConfig, register
from senet.models.units import ResidualUnit, Stage

STAGES = (2, 3, 4)


class PreActivationUnit(ResidualUnit):
    """A unit that starts with an activation and ends with the sum.

    Where it changes size, the shortcut projects what is activated; else it is the raw input. SE-PRE gates
    what branch and shortcut both read, for the branch alone: there after the activation, here before it.
    """

    activates_sum = False
    bn1: nn.Module

    def start(self, x: Tensor) -> Tensor:
        """The activation of (N, entering, H, W), which does not overwrite it."""
        out: Tensor = self.relu(self.bn1(x))
        return out

    def run(self, x: Tensor, twin: Tensor, *, fork: bool = False) -> tuple[Tensor, Tensor]:
        """See ``ResidualUnit``."""
        if self.downsample is None:
            x = self.start(self.at("pre", x))
        else:
            twin = self.start(x)
            x = self.at("pre", twin)
        return self.join(*self.branch(x), self.shortcut(twin), fork=fork)


class PreBasicUnit(PreActivationUnit):
    """Two 3×3 convolutions.

    Args:
        entering: channels of the input.
        planes: channels of both convolutions, and of the output.
        stride: of the first convolution.
        se: the SE block's config, or None.
        placement: where the block stands; "3x3" is not defined here.
    """

    def __init__(
        self, entering: int, planes: int, stride: int, *, se: SEConfig | None, placement: str
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(entering)
        self.conv1 = nn.Conv2d(entering, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        channels = UnitChannels(entering, None, planes)
        self.finish(channels, _projection(entering, planes, stride), se, placement)

    def branch(self, x: Tensor) -> tuple[Tensor, nn.Module | None]:
        """(N, entering, H, W), activated, to (N, planes, ⌈H / stride⌉, ⌈W / stride⌉)."""
        return self.conv2(self.relu(self.bn2(self.conv1(x)))), None


class PreBottleneckUnit(PreActivationUnit):
    """1×1, 3×3, 1×1.

    Args:
        entering: channels of the input.
        planes: a quarter of the output's channels.
        stride: of the unit.
        se: the SE block's config, or None.
        placement: where the block stands; "3x3" is after the ReLU that follows the 3×3.
        stride_first: the stride sits on the first 1×1, as in the authors' code, not on the 3×3.
    """

    def __init__(
        self,
        entering: int,
        planes: int,
        stride: int,
        *,
        se: SEConfig | None,
        placement: str,
        stride_first: bool = False,
    ) -> None:
        super().__init__()
        stride1, stride2 = (stride, 1) if stride_first else (1, stride)
        self.bn1 = nn.BatchNorm2d(entering)
        self.conv1 = nn.Conv2d(entering, planes, 1, stride1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        channels = UnitChannels(entering, planes, 4 * planes)
        self.finish(channels, _projection(entering, 4 * planes, stride), se, placement)

    def branch(self, x: Tensor) -> tuple[Tensor, nn.Module | None]:
        """(N, entering, H, W), activated, to (N, 4 · planes, ⌈H / stride⌉, ⌈W / stride⌉)."""
        u = self.conv2(self.relu(self.bn2(self.conv1(x))))
        if self.se is not None and self.is_at("3x3"):
            u, _ = self.se.tail(u, norm=self.bn3, inner=self.relu)
        else:
            u = self.relu(self.bn3(u))
        return self.conv3(u), None


def _projection(entering: int, leaving: int, stride: int) -> nn.Conv2d | None:
    same = stride == 1 and entering == leaving
    return None if same else nn.Conv2d(entering, leaving, 1, stride, bias=False)


@dataclass(frozen=True)
class Row:
    """What makes one network, as data.

    Args:
        unit: makes a unit from (entering, planes, stride).
        depth: units per stage.
        planes: of the first stage; doubled with each stage.
        stem: channels of the first convolution.
        before: what runs before the stages: conv1, perhaps bn1 and relu.
        after: what runs after them, of bn and relu.
        original_unit: the unit of the original layout, where it differs.
    """

    unit: Callable[..., ResidualUnit]
    depth: int
    planes: int
    stem: int = 16
    before: tuple[str, ...] = ("conv1",)
    after: tuple[str, ...] = ("bn", "relu")
    original_unit: Callable[..., ResidualUnit] | None = None


# Depth is 6n + 2 with basic units, 9n + 2 with bottlenecks, and by the wide networks' count 6n + 4.
ROWS: dict[str, Row] = {
    "preresnet110": Row(PreBasicUnit, 18, 16),
    "preresnet164": Row(
        PreBottleneckUnit, 18, 16, original_unit=partial(PreBottleneckUnit, stride_first=True)
    ),
    "wrn16_8": Row(PreBasicUnit, 2, 8 * 16),
}


class CifarNetwork(Network):
    """A stem at full size and three stages, the last two of which halve the map; with or without SE.

    Args:
        row: the network's data.
        config: its stages are of 2 to 4; in the original layout preresnet164 has its strides on the first
            1×1 of a unit.
        dropout: before the classifier.

    Raises:
        OptionError: a stage does not exist, the placement does not fit the units, or the dropout is
            not one.
    """

    def __init__(
        self,
        row: Row,
        config: NetworkConfig,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(config, dropout)
        with_se = checked_stages(config.stages, STAGES)
        make = (config.layout == "original" and row.original_unit) or row.unit
        width = row.stem
        self.conv1 = nn.Conv2d(config.in_channels, width, 3, padding=1, bias=False)
        if "bn1" in row.before:
            self.bn1 = nn.BatchNorm2d(width)

        levels = []
        modules = ((*row.before, "layer1"), ("layer2",), ("layer3", *row.after))
        for index, (stage, names) in enumerate(zip(STAGES, modules, strict=True)):
            blocks = config.se if stage in with_se else None
            units = []
            for stride in (1 if index == 0 else 2, *[1] * (row.depth - 1)):
                unit = make(width, row.planes * 2**index, stride, se=blocks, placement=config.placement)
                width = unit.channels.leaving
                units.append(unit)
            self.add_module(f"layer{stage - 1}", Stage(*units))
            levels.append(Level(stage, names, width, 2**index))
        if "bn" in row.after:
            self.bn = nn.BatchNorm2d(width)
        # Not in place: it may read what a stage returned.
        self.relu = nn.ReLU()
        self.finish(levels)


for _name, _row in ROWS.items():
    register(
        _name,
        partial(CifarNetwork, _row),
        family="preresnet",
        input_size=(3, 32, 32),
        classes=10,
        one_layout=_row.original_unit is None,
    )
