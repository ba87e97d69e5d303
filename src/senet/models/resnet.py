"""Residual networks, plain and SE from one definition: ResNet, ResNeXt, SENet-154, CIFAR ResNet.

A network is a row of ``IMAGENET_ROWS`` or ``CIFAR_ROWS``: which unit, how many, how wide, which
stem. Names of modules are torchvision's, so its checkpoints fit. "Stage k" is the paper's
conv{k}_x and the module ``layer{k-1}``.

Sources: He et al. 2015 (ResNet; section 4.2 for CIFAR), Xie et al. 2017 (ResNeXt), the SE paper's
appendix and the released prototxt (SENet-154).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from senet.errors import check_choice
from senet.models.layers import max_pool
from senet.models.network import Level, Network, checked_stages
from senet.models.registry import NetworkConfig, register
from senet.models.units import BasicUnit, BottleneckUnit, ResidualUnit, Shortcut, Stage, pad, project

SHORTCUTS: dict[str, Shortcut] = {"project": project, "pad": pad}

Unit = Callable[..., ResidualUnit]

# On CIFAR the unit is an option.
CIFAR_UNITS: dict[str, Unit] = {"basic": BasicUnit, "bottleneck": BottleneckUnit}


@dataclass(frozen=True)
class Row:
    """What makes one residual network, as data.

    Args:
        unit: makes a unit from (entering, planes, stride).
        depths: units per stage, from stage 2 on.
        planes: of the first stage; doubled with each stage.
        stem: "conv7" (7×7 with stride 2, pooling), "deep" (three 3×3 in place of the 7×7,
            SENet-154) or "conv3" (one 3×3, CIFAR).
        shortcut: where a unit changes size, a name of ``SHORTCUTS``.
        project: the projection, where it is not 1×1.
        dropout: before the classifier.
        original_unit: the unit of the original layout, where it differs.
    """

    unit: Unit
    depths: tuple[int, ...]
    planes: int = 64
    stem: str = "conv7"
    shortcut: str = "project"
    project: Shortcut = project
    dropout: float = 0.0
    original_unit: Unit | None = None


_ResNet = partial(Row, BottleneckUnit, original_unit=partial(BottleneckUnit, stride_first=True))
_ResNeXt = partial(Row, partial(BottleneckUnit, groups=32, base_width=4))
_Cifar = partial(Row, BasicUnit, planes=16, stem="conv3", shortcut="pad")

IMAGENET_ROWS: dict[str, Row] = {
    "resnet18": Row(BasicUnit, (2, 2, 2, 2)),
    "resnet34": Row(BasicUnit, (3, 4, 6, 3)),
    "resnet50": _ResNet((3, 4, 6, 3)),
    "resnet101": _ResNet((3, 4, 23, 3)),
    "resnet152": _ResNet((3, 8, 36, 3)),
    "resnext50_32x4d": _ResNeXt((3, 4, 6, 3)),
    "resnext101_32x4d": _ResNeXt((3, 4, 23, 3)),
    "senet154": Row(
        partial(BottleneckUnit, groups=64, base_width=4, halve_first=True),
        (3, 8, 36, 3),
        stem="deep",
        project=partial(project, kernel=3),
        dropout=0.2,
    ),
}

# Depth is 6n + 2 (He et al. 2015, section 4.2), and 9n + 2 with bottleneck units.
CIFAR_ROWS: dict[str, Row] = {f"resnet{6 * n + 2}": _Cifar((n, n, n)) for n in (3, 5, 7, 9, 18)}


class ResNet(Network):
    """A residual network of one row, with or without SE.

    Args:
        row: the network's data.
        config: its stages are of 2 to 5, on CIFAR of 2 to 4 (Table 13); in the original layout the stride is
            on the first 1×1 where the original has it, the stem's pooling unpadded in ceil mode, as released.
        shortcut: "project" or "pad", in place of the row's.
        dropout: before the classifier, in place of the row's.

    Raises:
        OptionError: a stage does not exist, or an option has no such value.
        UndefinedError: the placement does not fit the units, or a hidden width would be zero.
    """

    def __init__(
        self,
        row: Row,
        config: NetworkConfig,
        *,
        shortcut: str | None = None,
        dropout: float | None = None,
    ) -> None:
        super().__init__(config, row.dropout if dropout is None else dropout)
        shortcut = row.shortcut if shortcut is None else shortcut
        check_choice(f"shortcut={shortcut!r}", shortcut, SHORTCUTS)
        original = config.layout == "original"
        existing = range(2, 2 + len(row.depths))
        with_se = checked_stages(config.stages, existing)

        self.conv1, width = _first_convolution(row, config.in_channels)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.Identity()
        if row.stem != "conv3":
            self.maxpool = max_pool(config.layout)

        make = partial(
            row.original_unit if original and row.original_unit else row.unit,
            shortcut=row.project if shortcut == "project" else SHORTCUTS[shortcut],
            placement=config.placement,
        )
        # At full size, the stem is a part of the first stage.
        levels = [] if row.stem == "conv3" else [Level(1, ("conv1", "bn1", "relu"), width, 2)]
        before: tuple[str, ...] = ("conv1", "bn1", "relu", "maxpool") if row.stem == "conv3" else ("maxpool",)
        step = 1 if row.stem == "conv3" else 4
        for stage, depth in zip(existing, row.depths, strict=True):
            units = []
            for index in range(depth):
                stride = 2 if stage > 2 and index == 0 else 1
                unit = make(
                    width, row.planes * 2 ** (stage - 2), stride, se=config.se if stage in with_se else None
                )
                width = unit.channels.leaving
                units.append(unit)
            name = f"layer{stage - 1}"
            self.add_module(name, Stage(*units))
            levels.append(Level(stage, (*before, name), width, step * 2 ** (stage - 2)))
            before = ()
        self.finish(levels)


def _first_convolution(row: Row, in_channels: int) -> tuple[nn.Module, int]:
    """The stem up to its last batch norm, and its channels."""
    if row.stem == "conv3":
        return nn.Conv2d(in_channels, row.planes, 3, padding=1, bias=False), row.planes
    if row.stem == "conv7":
        return nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False), 64
    deep = nn.Sequential(
        nn.Conv2d(in_channels, 64, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 128, 3, padding=1, bias=False),
    )
    return deep, 128


def cifar_resnet(
    row: Row,
    config: NetworkConfig,
    *,
    shortcut: str | None = None,
    dropout: float | None = None,
    unit: str | None = None,
) -> ResNet:
    """A residual network for CIFAR, whose units can be chosen: SE_3×3 (Table 15) needs bottlenecks.

    Args:
        row: the network's data.
        config: see ``ResNet``, as for ``shortcut`` and ``dropout``.
        shortcut: "project" or "pad", in place of the row's.
        dropout: before the classifier, in place of the row's.
        unit: "basic" or "bottleneck", in place of the row's: as wide inside, four times as wide at its end.

    Raises:
        OptionError: as ``ResNet``, or there is no such unit.
        UndefinedError: as ``ResNet``.
    """
    if unit is not None:
        check_choice(f"unit={unit!r}", unit, CIFAR_UNITS)
        row = replace(row, unit=CIFAR_UNITS[unit])
    return ResNet(row, config, shortcut=shortcut, dropout=dropout)


for _make, _rows, _input_size, _classes in (
    (ResNet, IMAGENET_ROWS, (3, 224, 224), 1000),
    (cifar_resnet, CIFAR_ROWS, (3, 32, 32), 10),
):
    for _name, _row in _rows.items():
        register(
            _name,
            partial(_make, _row),
            family="resnet",
            input_size=_input_size,
            classes=_classes,
            one_layout=_row.stem == "conv3",
            se_by_default=_name == "senet154",
        )
