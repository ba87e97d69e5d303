"""osmr/imgclsmob (pytorchcv): units counted from 1, each convolution with its norm in one module.

Poolings are padded. Some of its bottleneck networks have tensors alike: seresnet50b has its strides on the
3×3 and is our modern layout; seresnet50 has them on the first 1×1 and is neither of ours. Only the caller can
know which one a file is of. So it is with all of its ResNets and SE-ResNets from 50 layers on.

Not its SE-PreResNets for CIFAR (a norm after the stem, none at the end), ShuffleNet (it concatenates the
other way round), BN-Inception (its convolutions have biases) and Shake-Shake (another unit).
"""

from senet.weights.keys import Row
from senet.weights.layout import IMAGENET, Layout, named

CIFAR = {
    "channels": 3,
    "size": 32,
    "resize": 32,
    "mean": [0.4914, 0.4822, 0.4465],
    "std": [0.2023, 0.1994, 0.201],
    "interpolation": "bilinear",
}

_UNIT = "features.stage{s}.unit{u+1}"


def _normed(theirs: str, convolution: str, norm: str) -> tuple[Row, Row]:
    """A module of a convolution and a norm."""
    return (
        Row(f"{theirs}.conv.{{*}}", f"{convolution}.{{*}}"),
        Row(f"{theirs}.bn.{{*}}", f"{norm}.{{*}}"),
    )


def _units(convolutions: int) -> tuple[Row, ...]:
    """Residual units of so many convolutions."""
    return (
        *(
            row
            for i in range(1, convolutions + 1)
            for row in _normed(
                f"{_UNIT}.body.conv{i}", f"layer{{s}}.{{u}}.conv{i}", f"layer{{s}}.{{u}}.bn{i}"
            )
        ),
        *_normed(f"{_UNIT}.identity_conv", "layer{s}.{u}.downsample.0", "layer{s}.{u}.downsample.1"),
        Row(f"{_UNIT}.se.conv{{i}}.{{*}}", "layer{s}.{u}.se.fc{i}.{*}", kernel=1),
    )


_HEAD = Row("output.{*}", "fc.{*}")
_STEM = _normed("features.init_block.conv", "conv1", "bn1")

_BASIC = (*_STEM, *_units(2), _HEAD)
_BOTTLENECK = (*_STEM, *_units(3), _HEAD)

_DEEP = (
    *_normed("features.init_block.conv1", "conv1.0", "conv1.1"),
    *_normed("features.init_block.conv2", "conv1.3", "conv1.4"),
    *_normed("features.init_block.conv3", "conv1.6", "bn1"),
    *_units(3),
    Row("output.fc.{*}", "fc.{*}"),
)

_CIFAR = (*_normed("features.init_block", "conv1", "bn1"), *_units(2), _HEAD)

_PRE_ACTIVATION = (
    Row("features.init_block.{*}", "conv1.{*}"),
    *_normed(f"{_UNIT}.body.conv{{i}}", "layer{s}.{u}.conv{i}", "layer{s}.{u}.bn{i}"),
    Row(f"{_UNIT}.identity_conv.{{*}}", "layer{s}.{u}.downsample.{*}"),
    Row("features.post_activ.bn.{*}", "bn.{*}"),
    _HEAD,
)

_MOBILE = (
    *_normed("features.init_block", "conv1.conv", "conv1.bn"),
    Row(f"{_UNIT}.dw_conv.{{L}}.{{*}}", "layer{s}.{u}.depthwise.{L}.{*}"),
    Row(f"{_UNIT}.pw_conv.{{L}}.{{*}}", "layer{s}.{u}.pointwise.{L}.{*}"),
    _HEAD,
)

_VGG = (
    *(
        row
        for stage, layers in enumerate(((0, 3), (7, 10), (14, 17, 20), (24, 27, 30), (34, 37, 40)), 1)
        for unit, layer in enumerate(layers, 1)
        for row in _normed(f"features.stage{stage}.unit{unit}", f"features.{layer}", f"features.{layer + 1}")
    ),
    Row("output.fc1.fc.{*}", "classifier.0.{*}"),
    Row("output.fc2.fc.{*}", "classifier.3.{*}"),
    Row("output.fc3.{*}", "classifier.6.{*}"),
)

LAYOUTS = (
    *(
        Layout("pytorchcv", rows, names, lookalikes=lookalikes, preprocessing=IMAGENET)
        for rows, names, lookalikes in (
            (_BASIC, named("resnet18 resnet34") | named("se_resnet18 se_resnet34", "se{}"), {}),
            (
                _BOTTLENECK,
                named("resnet50 resnet101 resnet152", "{}b")
                | named("se_resnet50 se_resnet101 se_resnet152", "se{}b")
                | named("resnext50_32x4d resnext101_32x4d")
                | named("se_resnext50_32x4d se_resnext101_32x4d", "se{}"),
                named("resnet50 resnet101 resnet152")
                | named("se_resnet50 se_resnet101 se_resnet152", "se{}"),
            ),
            (_DEEP, named("senet154"), {}),
            (_MOBILE, {"mobilenet_v1": "mobilenet_w1"}, {}),
            (_VGG, {"vgg16_bn": "bn_vgg16b"}, {}),
        )
    ),
    # For each there are files of CIFAR-10, CIFAR-100 and SVHN.
    Layout(
        "pytorchcv",
        _CIFAR,
        named("resnet20 resnet56 resnet110", "{}_cifar10")
        | named("se_resnet20 se_resnet56 se_resnet110", "se{}_cifar10"),
        preprocessing=CIFAR,
        options={"shortcut": "project"},
    ),
    Layout(
        "pytorchcv",
        _PRE_ACTIVATION,
        {"preresnet110": "preresnet110_cifar10", "preresnet164": "preresnet164bn_cifar10"},
        preprocessing=CIFAR,
    ),
)
