"""Recorded from mmpretrain 1.2.0."""

from pathlib import Path

import pytest
from tests.weights.reimplementations import deep_ones_slow, fingerprint, layouts, recognised, theirs

NETWORKS = {
    "resnet18": (122, "8bcb712a0fe0"),
    "resnet34": (218, "ab50e43cdc25"),
    "resnet50": (320, "fa058b26da14"),
    "se_resnet50": (384, "3996e5c3126e"),
    "resnet101": (626, "3aff3effd3c9"),
    "se_resnet101": (758, "a395bf459201"),
    "resnet152": (932, "ea4a49621563"),
    "se_resnet152": (1132, "79eeca5f878d"),
    "resnext50_32x4d": (320, "bbbd8eea38f1"),
    "se_resnext50_32x4d": (384, "c7d9c39c6ca2"),
    "resnext101_32x4d": (626, "e6fe0436cd5b"),
    "se_resnext101_32x4d": (758, "f9d7e3e69be0"),
    "vgg16_bn": (97, "7ed9202ffb24"),
}


@pytest.mark.parametrize("name", deep_ones_slow(NETWORKS))
def test_names_and_shapes_are_theirs(tmp_path: Path, name: str) -> None:
    (layout,) = layouts("mmpretrain", name)
    assert fingerprint(theirs(layout, name)) == NETWORKS[name]
    found = recognised(layout, name, tmp_path)
    assert (found.layout, found.function["layout"], found.certain) == ("mmpretrain", "modern", True)
    assert found.networks == tuple(layout.networks)
    # The plain ResNets were trained by several recipes.
    assert ("preprocessing" in found.header) == (name.startswith("se_") or name == "vgg16_bn")


def test_the_backbone_is_apart_from_the_head() -> None:
    tensors = theirs(layouts("mmpretrain", "se_resnet50")[0], "se_resnet50")
    said = {key: tuple(tensor.shape) for key, tensor in tensors.items() if key.endswith(".weight")}
    assert said["backbone.layer4.2.se_layer.conv2.conv.weight"] == (2048, 128, 1, 1)
    assert said["backbone.layer1.0.downsample.1.weight"] == (256,)
    assert said["head.fc.weight"] == (1000, 2048)
