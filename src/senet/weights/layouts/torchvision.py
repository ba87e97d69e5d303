"""torchvision: its names are ours. So they are many others', and say nothing of the preprocessing."""

from senet.weights.keys import same
from senet.weights.layout import Layout, named

RESIDUAL = same(
    "conv1.{*}",
    "bn1.{*}",
    "layer{s}.{u}.conv{i}.{*}",
    "layer{s}.{u}.bn{i}.{*}",
    "layer{s}.{u}.downsample.{i}.{*}",
    "fc.{*}",
)

LAYOUTS = (
    Layout(
        "torchvision",
        RESIDUAL,
        named("resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d"),
        shared_names=True,
    ),
    Layout(
        "torchvision",
        same("features.{i}.{*}", "classifier.{i}.{*}"),
        named("vgg16_bn"),
        shared_names=True,
    ),
)
