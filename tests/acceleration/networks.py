"""Networks with SE of every kind, small: what is folded and simplified."""

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
import torchvision
from tests.networks import Bottleneck, Net, Unit
from torch import Tensor, nn

import senet
from senet.models import preresnet, resnet, shakeshake
from senet.models.registry import NetworkConfig
from senet.models.units import BasicUnit, BottleneckUnit


def config(name: str, placement: str = "standard") -> NetworkConfig:
    return NetworkConfig(name, 4, se=senet.SEConfig(reduction=4), placement=placement)


def basic() -> nn.Module:
    row = resnet.Row(BasicUnit, (2, 1), planes=8, stem="conv3", shortcut="pad")
    return resnet.ResNet(row, config("se_resnet20"))


def bottlenecks(placement: str = "standard") -> nn.Module:
    row = resnet.Row(BottleneckUnit, (2, 1), planes=8, stem="conv3")
    return resnet.ResNet(row, config("se_resnet50", placement))


def cifar(unit: Any, placement: str = "standard", **row: Any) -> nn.Module:
    return preresnet.CifarNetwork(preresnet.Row(unit, 2, 8, **row), config("se_wrn16_8", placement))


def shake(unit: Any, **row: Any) -> nn.Module:
    return cifar(partial(unit, even=False), before=("conv1", "bn1", "relu"), **row)


def small(name: str, **options: Any) -> nn.Module:
    return senet.build(name, num_classes=4, **options)


def inserted(placement: str = "standard") -> nn.Module:
    model = Net(Unit(), Bottleneck(16, 32, 2), Bottleneck(32, 32), leaving=32)
    senet.insert(model, placement=placement, reduction=4, init="random")
    return model


def stack() -> nn.Module:
    """A plain stack with biases, pooling and a large first linear layer, as VGG's."""

    def layer(entering: int, leaving: int, *after: nn.Module) -> list[nn.Module]:
        return [nn.Conv2d(entering, leaving, 3, padding=1), nn.ReLU(), *after]

    layers = [*layer(3, 8), *layer(8, 8, nn.MaxPool2d(2)), *layer(8, 8, nn.AdaptiveAvgPool2d(3))]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(72, 4))
    senet.insert(model, reduction=4, init="random")
    return model


class Spelled(nn.Module):
    """An SE block in another spelling: convolutions, and its product expanded."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, 4), nn.ReLU(), nn.Linear(4, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        s = self.fc(x.mean((2, 3)))[:, :, None, None]
        gated: Tensor = x * s.expand_as(x)
        return gated


class Users(nn.Module):
    """A grouped and a depthwise convolution behind SE after an activation that scales do not pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.se = Spelled(8)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.fc = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.se(nn.functional.silu(self.conv(x)))
        x = torch.cat([self.grouped(x), self.depthwise(x)], 1).relu()
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "basic": basic,
    "bottlenecks": bottlenecks,
    "preresnet": partial(cifar, preresnet.PreBasicUnit),
    "shake": partial(shake, shakeshake.ShakeBasicUnit),
    "inserted": inserted,
    "stack": stack,
    "user": Users,
    "timm efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=4),
    "timm byobnet": lambda: timm.create_model("test_byobnet", num_classes=4),
    "torchvision": lambda: torchvision.models.mobilenet_v3_small(num_classes=4),
    **{f"pre-activation {each}": partial(cifar, preresnet.PreBasicUnit, each) for each in ("pre", "post")},
    **{f"bottlenecks {each}": partial(bottlenecks, each) for each in ("pre", "post", "identity", "3x3")},
    **{f"inserted {each}": partial(inserted, each) for each in ("pre", "identity")},
}
SLOW: dict[str, Callable[[], nn.Module]] = {
    "preresnet bottlenecks": partial(cifar, preresnet.PreBottleneckUnit),
    "shake bottlenecks": partial(shake, shakeshake.ShakeBottleneckUnit, after=()),
    **{f"inserted {each}": partial(inserted, each) for each in ("post", "3x3")},
    "bn_inception": partial(small, "se_bn_inception"),
    "inception_resnet": partial(small, "se_inception_resnet_v2"),
    "mobilenet": partial(small, "se_mobilenet_v1", width=0.25),
    "shufflenet": partial(small, "se_shufflenet_v1_g3"),
    "timm efficientnet_b0": lambda: timm.create_model("efficientnet_b0", num_classes=4),
    "timm mobilenet": lambda: timm.create_model("mobilenetv3_small_050", num_classes=4),
    "timm seresnet": lambda: timm.create_model("seresnet18", num_classes=4),
    "timm legacy": lambda: timm.create_model("legacy_seresnext26_32x4d", num_classes=4),
    "timm regnet": lambda: timm.create_model("regnety_002", num_classes=4),
    "timm eca": lambda: timm.create_model("ecaresnet26t", num_classes=4),
    "torchvision regnet": lambda: torchvision.models.regnet_y_400mf(num_classes=4),
}


def images(name: str) -> Tensor:
    size = 80 if "inception_resnet" in name else 32 if "regnet" not in name else 64
    return torch.randn(3, 3, size, size, dtype=torch.float64)
