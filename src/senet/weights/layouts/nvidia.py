"""NVIDIA's DeepLearningExamples, image classification: stages numbered from 0, in what was released from 1.

Its SE-ResNeXt has 16 hidden units in every SE block, where the paper has C // 16. Its plain networks were
released under torchvision's names.
"""

from senet.weights.keys import Row
from senet.weights.layout import IMAGENET, Layout
from senet.weights.layouts.torchvision import RESIDUAL

_PLAIN = tuple(
    Row(f"{theirs}.{{*}}", f"{ours}.{{*}}")
    for theirs, ours in (
        ("conv1", "conv1"),
        ("bn1", "bn1"),
        ("layers.{s-1}.{u}.conv{i}", "layer{s}.{u}.conv{i}"),
        ("layers.{s-1}.{u}.bn{i}", "layer{s}.{u}.bn{i}"),
        ("layers.{s-1}.{u}.downsample.{i}", "layer{s}.{u}.downsample.{i}"),
        ("fc", "fc"),
    )
)


def _squeezed(stage: str) -> tuple[Row, ...]:
    """SE's layers: convolutions, as for TensorRT, or linear. Its loader takes either for either."""
    return tuple(
        Row(f"{stage}.{{u}}.squeeze.{theirs}.{{*}}", f"layer{{s}}.{{u}}.se.{ours}.{{*}}", kernel)
        for kernel in (1, 0)
        for theirs, ours in (("squeeze", "fc1"), ("expand", "fc2"))
    )


_SE = {"se_resnext101_32x4d": "se-resnext101-32x4d"}

LAYOUTS = (
    Layout(
        "nvidia",
        _PLAIN,
        {"resnet50": "resnet50", "resnext101_32x4d": "resnext101-32x4d"},
        preprocessing=IMAGENET,
    ),
    Layout("nvidia", (*_PLAIN, *_squeezed("layers.{s-1}")), _SE, preprocessing=IMAGENET, hidden=16),
    Layout("nvidia", (*RESIDUAL, *_squeezed("layer{s}")), _SE, preprocessing=IMAGENET, hidden=16),
)
