"""Recorded from MONAI 1.6.1, its networks in two dimensions."""

from pathlib import Path

import pytest
from tests.weights.reimplementations import deep_ones_slow, fingerprint, layouts, recognised, theirs

NETWORKS = {
    "se_resnet50": (384, "fe8e1451cc12"),
    "se_resnet101": (758, "afd9ef657566"),
    "se_resnet152": (1132, "3d9de06cf112"),
    "se_resnext50_32x4d": (384, "3e52441c25b6"),
    "se_resnext101_32x4d": (758, "192e02dc81c3"),
    "senet154": (1144, "54f28cfe8266"),
}


@pytest.mark.parametrize("name", deep_ones_slow(NETWORKS))
def test_names_and_shapes_are_theirs(tmp_path: Path, name: str) -> None:
    (layout,) = layouts("monai", name)
    assert fingerprint(theirs(layout, name)) == NETWORKS[name]
    found = recognised(layout, name, tmp_path)
    assert (found.layout, found.function["layout"], found.certain) == ("monai", "original", True)
    assert found.networks == tuple(layout.networks)
    assert "preprocessing" not in found.header


def test_blocks_have_names_of_their_own() -> None:
    tensors = theirs(layouts("monai", "senet154")[0], "senet154")
    said = {key: tuple(tensor.shape) for key, tensor in tensors.items() if key.endswith(".weight")}
    assert said["layer0.conv3.weight"] == (128, 64, 3, 3)
    assert said["layer2.0.project.adn.N.weight"] == (512,)
    assert said["layer3.35.se_layer.fc.2.weight"] == (1024, 64)
    assert said["last_linear.weight"] == (1000, 2048)
