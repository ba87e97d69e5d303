"""The original release: Caffe, BGR of values from 0 to 255, classes in the order of the ILSVRC devkit.

Keys are ``LAYER.weight`` and the like: what a Scale layer holds are its batch norm's weight and bias, and the
two layers of a batch norm are one here. Layers have the names of the released prototxts.
"""

from __future__ import annotations

from senet.weights.keys import Row
from senet.weights.layout import Layout, named

# Of RGB values from 0 to 1: the release subtracts (104, 117, 123) of BGR and does not divide. Its authors
# evaluated a crop of 224 from images whose shorter edge has 256 pixels.
PREPROCESSING = {
    "channels": 3,
    "size": 224,
    "resize": 256,
    "mean": [123 / 255, 117 / 255, 104 / 255],
    "std": [1 / 255, 1 / 255, 1 / 255],
    "interpolation": "bilinear",
}


def _normed(theirs: str, convolution: str, norm: str) -> tuple[Row, ...]:
    """A convolution, its batch norm, and the scale that follows."""
    return (
        Row(f"{theirs}.{{*}}", f"{convolution}.{{*}}"),
        Row(f"{theirs}/bn.{{*}}", f"{norm}.{{*}}"),
        Row(f"{theirs}/bn/scale.{{*}}", f"{norm}.{{*}}"),
    )


_UNITS = (
    *_normed("conv{s+1}_{u+1}_1x1_reduce", "layer{s}.{u}.conv1", "layer{s}.{u}.bn1"),
    *_normed("conv{s+1}_{u+1}_3x3", "layer{s}.{u}.conv2", "layer{s}.{u}.bn2"),
    *_normed("conv{s+1}_{u+1}_1x1_increase", "layer{s}.{u}.conv3", "layer{s}.{u}.bn3"),
    *_normed("conv{s+1}_{u+1}_1x1_proj", "layer{s}.{u}.downsample.0", "layer{s}.{u}.downsample.1"),
    Row("conv{s+1}_{u+1}_1x1_down.{*}", "layer{s}.{u}.se.fc1.{*}", kernel=1),
    Row("conv{s+1}_{u+1}_1x1_up.{*}", "layer{s}.{u}.se.fc2.{*}", kernel=1),
    Row("classifier.{*}", "fc.{*}"),
)

RESIDUAL = (*_normed("conv1/7x7_s2", "conv1", "bn1"), *_UNITS)

DEEP = (
    *_normed("conv1_1/3x3_s2", "conv1.0", "conv1.1"),
    *_normed("conv1_2/3x3", "conv1.3", "conv1.4"),
    *_normed("conv1_3/3x3", "conv1.6", "bn1"),
    *_UNITS,
)

INCEPTION = (
    *(
        row
        for theirs, ours in (
            ("conv1/7x7_s2", "conv1"),
            ("conv2/3x3_reduce", "conv2_reduce"),
            ("conv2/3x3", "conv2"),
            ("inception_{M}/1x1", "inception_{M}.conv1x1.0"),
            ("inception_{M}/3x3_reduce", "inception_{M}.conv3x3.0"),
            ("inception_{M}/3x3", "inception_{M}.conv3x3.1"),
            ("inception_{M}/double3x3_reduce", "inception_{M}.double3x3.0"),
            ("inception_{M}/double3x3a", "inception_{M}.double3x3.1"),
            ("inception_{M}/double3x3b", "inception_{M}.double3x3.2"),
            ("inception_{M}/pool_proj", "inception_{M}.pool.1"),
        )
        for row in _normed(theirs, f"{ours}.conv", f"{ours}.bn")
    ),
    Row("inception_{M}_1x1_down.{*}", "inception_{M}.se.fc1.{*}", kernel=1),
    Row("inception_{M}_1x1_up.{*}", "inception_{M}.se.fc2.{*}", kernel=1),
    Row("classifier.{*}", "fc.{*}"),
)

# The poolings that are modules here; the others are means over what is left of the map.
POOLINGS = (
    Row("pool1/3x3_s2", "maxpool"),
    Row("pool1/3x3_s2", "pool1"),
    Row("pool2/3x3_s2", "pool2"),
    Row("inception_{M}/pool", "inception_{M}.pool.0"),
    Row("inception_{M}/pool/3x3_s2", "inception_{M}.pool.1"),
)

LAYOUTS = tuple(
    Layout("caffe", rows, names, sits="original", preprocessing=PREPROCESSING)
    for rows, names in (
        (
            RESIDUAL,
            {
                "se_resnet50": "SE-ResNet-50",
                "se_resnet101": "SE-ResNet-101",
                "se_resnet152": "SE-ResNet-152",
                "se_resnext50_32x4d": "SE-ResNeXt-50",
                "se_resnext101_32x4d": "SE-ResNeXt-101",
            },
        ),
        (DEEP, named("senet154", "SENet-154")),
        (INCEPTION, named("se_bn_inception", "SE-BN-Inception")),
    )
)
