"""Recorded from moskomule/senet.pytorch, commit 8cb2669."""

from pathlib import Path

import pytest
import torch
from tests.weights.randomised import randomised
from tests.weights.reimplementations import deep_ones_slow, fingerprint, layouts, recognised, theirs

import senet
from senet import weights
from senet.errors import WeightsError

NETWORKS = {
    "se_resnet20": (146, "daef87e70fba"),
    "se_resnet32": (230, "c2be297f8acd"),
    "se_resnet56": (398, "006dbf7c50d1"),
    "se_resnet18": (138, "663802dc574f"),
    "se_resnet34": (250, "b93796580683"),
    "se_resnet50": (352, "0010b692660f"),
    "se_resnet101": (692, "125d396683b6"),
    "se_resnet152": (1032, "e22137d38529"),
}


@pytest.mark.parametrize("name", deep_ones_slow(NETWORKS))
def test_names_and_shapes_are_theirs(tmp_path: Path, name: str) -> None:
    (layout,) = layouts("moskomule", name)
    assert fingerprint(theirs(layout, name)) == NETWORKS[name]
    found = recognised(layout, name, tmp_path)
    assert (found.layout, found.function["layout"], found.certain) == ("moskomule", "modern", True)
    assert found.networks == tuple(layout.networks)
    assert ("preprocessing" in found.header) == ("layer4.0.conv1.weight" in found.tensors)


def test_se_has_linear_layers_without_biases() -> None:
    tensors = theirs(layouts("moskomule", "se_resnet50")[0], "se_resnet50")
    said = {key: tuple(tensor.shape) for key, tensor in tensors.items() if key.startswith("layer2.3.se")}
    assert said == {"layer2.3.se.fc.0.weight": (32, 512), "layer2.3.se.fc.2.weight": (512, 32)}


def test_shortcuts_are_projections_on_cifar(tmp_path: Path) -> None:
    se = senet.SEConfig(bias=False)
    model = randomised(senet.build("se_resnet20", se=se, shortcut="project")).float()
    weights.save(model, tmp_path / "w.safetensors", layout="moskomule")
    loaded = senet.load(tmp_path / "w.safetensors")
    assert loaded.config == model.config
    x = torch.randn(2, 3, 27, 27)
    assert torch.equal(loaded(x), model(x))
    with pytest.raises(WeightsError, match=r"se_resnet20 has the options .*'project'"):
        weights.save(senet.build("se_resnet20"), tmp_path / "w.safetensors", layout="moskomule")
