"""Cadene's pretrained-models.pytorch, ported from the original Caffe release; many libraries carry it on.

Strides sit on the first 1×1 of SE-ResNet's bottlenecks, and the pooling is unpadded in ceil mode, as there.
"""

from senet.weights.keys import Row
from senet.weights.layout import IMAGENET, Layout, named

PREPROCESSING = IMAGENET

_UNITS = (
    *(
        Row(f"layer{{s}}.{{u}}.{part}.{{*}}", f"layer{{s}}.{{u}}.{part}.{{*}}")
        for part in ("conv{i}", "bn{i}", "downsample.{i}")
    ),
    Row("layer{s}.{u}.se_module.fc{i}.{*}", "layer{s}.{u}.se.fc{i}.{*}", kernel=1),
    Row("last_linear.{*}", "fc.{*}"),
)

RESIDUAL = (
    Row("layer0.conv1.{*}", "conv1.{*}"),
    Row("layer0.bn1.{*}", "bn1.{*}"),
    *_UNITS,
)

# Three convolutions in the stem: SENet-154.
DEEP = (
    Row("layer0.conv1.{*}", "conv1.0.{*}"),
    Row("layer0.bn1.{*}", "conv1.1.{*}"),
    Row("layer0.conv2.{*}", "conv1.3.{*}"),
    Row("layer0.bn2.{*}", "conv1.4.{*}"),
    Row("layer0.conv3.{*}", "conv1.6.{*}"),
    Row("layer0.bn3.{*}", "bn1.{*}"),
    *_UNITS,
)

LAYOUTS = (
    Layout(
        "cadene",
        RESIDUAL,
        named("se_resnet50 se_resnet101 se_resnet152 se_resnext50_32x4d se_resnext101_32x4d", "se_{}"),
        sits="original",
        preprocessing=PREPROCESSING,
    ),
    Layout("cadene", DEEP, named("senet154"), sits="original", preprocessing=PREPROCESSING),
)
