"""OpenMMLab's mmpretrain, once mmclassification: torchvision's names under ``backbone``.

Strides sit on the 3×3, as all of its configs for these networks have it (``style="pytorch"``).

Not its ShuffleNet, which shuffles after the depthwise convolution, so that the order of its channels differs.
"""

from senet.weights.keys import Row
from senet.weights.layout import IMAGENET, Layout, named

_RESIDUAL = (
    *(
        Row(f"backbone.{name}.{{*}}", f"{name}.{{*}}")
        for name in (
            "conv1",
            "bn1",
            "layer{s}.{u}.conv{i}",
            "layer{s}.{u}.bn{i}",
            "layer{s}.{u}.downsample.{i}",
        )
    ),
    Row("head.fc.{*}", "fc.{*}"),
)

_SE_RESIDUAL = (
    *_RESIDUAL,
    Row("backbone.layer{s}.{u}.se_layer.conv{i}.conv.{*}", "layer{s}.{u}.se.fc{i}.{*}", kernel=1),
)

# A convolution with its norm and ReLU is one module there, three here; a pooling is one in both.
_VGG = (
    *(
        Row(f"backbone.features.{theirs}.{part}.{{*}}", f"features.{ours + shift}.{{*}}")
        for theirs, ours in zip(
            (0, 1, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16),
            (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40),
            strict=True,
        )
        for part, shift in (("conv", 0), ("bn", 1))
    ),
    Row("backbone.classifier.{i}.{*}", "classifier.{i}.{*}"),
)

LAYOUTS = (
    # Several recipes of training, with several preprocessings.
    Layout(
        "mmpretrain",
        _RESIDUAL,
        named("resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x4d"),
    ),
    Layout(
        "mmpretrain",
        _SE_RESIDUAL,
        named("se_resnet50 se_resnet101 se_resnet152 se_resnext50_32x4d se_resnext101_32x4d", "se{}"),
        preprocessing=IMAGENET,
        width_rule="mmpretrain",
    ),
    Layout("mmpretrain", _VGG, {"vgg16_bn": "vgg16bn"}, preprocessing=IMAGENET),
)
