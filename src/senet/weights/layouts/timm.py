"""timm: SE's layers are 1×1 convolutions with widths in multiples of 8.

The preprocessing differs from one set of weights to the next, and travels in ``config.json`` beside them.
"""

from senet.weights.keys import Row, same
from senet.weights.layout import Layout, named
from senet.weights.layouts.cadene import DEEP, PREPROCESSING
from senet.weights.layouts.cadene import RESIDUAL as CADENE
from senet.weights.layouts.torchvision import RESIDUAL

_SE_RESIDUAL = (
    *RESIDUAL,
    *same("conv1.{i}.{*}"),
    Row("layer{s}.{u}.se.fc{i}.{*}", "layer{s}.{u}.se.fc{i}.{*}", kernel=1),
)

# The head as convolutions, so that it can run over larger images.
_VGG = (
    *same("features.{i}.{*}"),
    Row("pre_logits.fc1.{*}", "classifier.0.{*}", kernel=7),
    Row("pre_logits.fc2.{*}", "classifier.3.{*}", kernel=1),
    Row("head.fc.{*}", "classifier.6.{*}"),
)

_INCEPTION_RESNET = (
    Row("conv2d_1a.{L}.{*}", "conv1.0.{L}.{*}"),
    Row("conv2d_2a.{L}.{*}", "conv1.1.{L}.{*}"),
    Row("conv2d_2b.{L}.{*}", "conv1.2.{L}.{*}"),
    Row("conv2d_3b.{L}.{*}", "conv2.0.{L}.{*}"),
    Row("conv2d_4a.{L}.{*}", "conv2.1.{L}.{*}"),
    # A branch of one layer is that layer.
    Row("mixed_5b.branch0.{L}.{*}", "mixed_5b.branch0.0.{L}.{*}"),
    Row("mixed_6a.branch0.{L}.{*}", "mixed_6a.branch0.0.{L}.{*}"),
    *same(*(f"mixed_{name}.branch{{b}}.{{i}}.{{L}}.{{*}}" for name in ("5b", "6a", "7a"))),
    *(
        row
        # The last unit, which has no ReLU, stands apart.
        for theirs, ours in (
            ("block8", "block8.9"),
            ("repeat.{u}", "block35.{u}"),
            ("repeat_1.{u}", "block17.{u}"),
            ("repeat_2.{u}", "block8.{u}"),
        )
        for row in (
            Row(f"{theirs}.branch0.{{L}}.{{*}}", f"{ours}.branches.branch0.0.{{L}}.{{*}}"),
            Row(f"{theirs}.branch{{b}}.{{i}}.{{L}}.{{*}}", f"{ours}.branches.branch{{b}}.{{i}}.{{L}}.{{*}}"),
            Row(f"{theirs}.conv2d.{{*}}", f"{ours}.up.{{*}}"),
        )
    ),
    Row("conv2d_7b.{L}.{*}", "conv3.0.{L}.{*}"),
    Row("classif.{*}", "fc.{*}"),
)

LAYOUTS = (
    Layout(
        "timm",
        RESIDUAL,
        named("resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x4d"),
        shared_names=True,
    ),
    Layout(
        "timm",
        _SE_RESIDUAL,
        named("se_resnet18 se_resnet34 se_resnet50 se_resnet101 se_resnet152", "se{}")
        | named("se_resnext50_32x4d se_resnext101_32x4d", "se{}")
        | named("senet154"),
        width_rule="timm",
    ),
    Layout("timm", _VGG, named("vgg16_bn")),
    Layout("timm", _INCEPTION_RESNET, named("inception_resnet_v2")),
)

# Ports of Cadene's. Not legacy_seresnet18 and 34, which have a ReLU between their last batch norm and SE.
LEGACY = tuple(
    Layout("timm", rows, names, sits="original", preprocessing=PREPROCESSING)
    for rows, names in (
        (
            CADENE,
            named("se_resnet50 se_resnet101 se_resnet152", "legacy_se{}")
            | named("se_resnext50_32x4d se_resnext101_32x4d", "legacy_se{}"),
        ),
        (DEEP, named("senet154", "legacy_{}")),
    )
)
