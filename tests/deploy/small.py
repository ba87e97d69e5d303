"""A network that exports in a moment, and what its weights say of themselves."""

from typing import Any

import torch
from tests.acceleration.held import stirred
from tests.acceleration.networks import bottlenecks
from torch import nn

import senet
from senet.data.preprocessing import Preprocessing

# One of each definition; the others are rows of the same.
DEFINITIONS = (
    "se_resnet18 se_resnet50 se_resnext50_32x4d senet154 se_bn_inception se_inception_resnet_v2 se_vgg16_bn "
    "se_mobilenet_v1 se_shufflenet_v1_g3 se_resnet20 se_preresnet110 se_wrn16_8 se_shakeshake26_2x96d"
).split()

CLASSES = ["cat", "dog", "horse", "ship"]


def network() -> nn.Module:
    """Three SE bottlenecks of four classes, always with the same numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return stirred(bottlenecks()).float().eval()


def preprocessing() -> Preprocessing:
    return Preprocessing(3, 32, 36, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))


def header(**more: Any) -> dict[str, Any]:
    return {"classes": CLASSES, "preprocessing": preprocessing().to_dict(), **more}


def normed(name: str) -> nn.Module:
    """A network of ours with norms as after training: rounding does not grow from layer to layer."""
    model = senet.build(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(4, *senet.info(name).input_size))
    return model.eval()
