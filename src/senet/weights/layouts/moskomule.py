"""moskomule/senet.pytorch: torchvision's names, with linear layers without biases for SE.

Not its pre-activation networks, which return nothing, nor its SE-Inception-v3, whose SE blocks never run. Its
plain networks have our names.
"""

from senet.weights.keys import Row, same
from senet.weights.layout import IMAGENET, Layout, named
from senet.weights.layouts.torchvision import RESIDUAL

_IMAGENET = (
    *RESIDUAL,
    Row("layer{s}.{u}.se.fc.0.{*}", "layer{s}.{u}.se.fc1.{*}"),
    Row("layer{s}.{u}.se.fc.2.{*}", "layer{s}.{u}.se.fc2.{*}"),
)

# What shows that it is for CIFAR is that there is no fourth stage.
_CIFAR = (
    *same("conv1.{*}", "bn1.{*}", "fc.{*}"),
    *(
        Row(f"layer{stage}.{{u}}.{theirs}.{{*}}", f"layer{stage}.{{u}}.{ours}.{{*}}")
        for stage in (1, 2, 3)
        for theirs, ours in (
            ("conv{i}", "conv{i}"),
            ("bn{i}", "bn{i}"),
            ("downsample.{i}", "downsample.{i}"),
            ("se.fc.0", "se.fc1"),
            ("se.fc.2", "se.fc2"),
        )
    ),
)

LAYOUTS = (
    Layout(
        "moskomule",
        _CIFAR,
        named("se_resnet20 se_resnet32 se_resnet56", "se_{}"),
        bias=False,
        options={"shortcut": "project"},
    ),
    Layout(
        "moskomule",
        _IMAGENET,
        named("se_resnet18 se_resnet34 se_resnet50 se_resnet101 se_resnet152", "se_{}"),
        preprocessing=IMAGENET,
        bias=False,
    ),
)
