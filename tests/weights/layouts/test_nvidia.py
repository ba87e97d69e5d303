"""Recorded from NVIDIA/DeepLearningExamples, commit 729963d; SE's layers are those of its ``trt=True``."""

from pathlib import Path

import pytest
import torch
from tests.weights.reimplementations import fingerprint, layouts, recognised, theirs

import senet
from senet import weights
from senet.errors import WeightsError
from senet.weights.keys import to_ours

PLAIN = {"resnet50": (320, "6f3505a07227"), "resnext101_32x4d": (626, "888f2b43e904")}
SE = "se_resnext101_32x4d"


@pytest.mark.parametrize("name", PLAIN)
def test_names_and_shapes_are_theirs(tmp_path: Path, name: str) -> None:
    (layout,) = layouts("nvidia", name)
    assert fingerprint(theirs(layout, name)) == PLAIN[name]
    found = recognised(layout, name, tmp_path)
    assert (found.layout, found.function["layout"]) == ("nvidia", "modern")
    assert found.networks == ("resnet50", "resnext101_32x4d")


def test_the_names_of_the_code_and_of_what_was_released(tmp_path: Path) -> None:
    now, released = layouts("nvidia", SE)
    assert fingerprint(theirs(now, SE)) == (758, "372a36815030")
    assert fingerprint(theirs(released, SE)) == (758, "4ff47be6504f")
    for layout in (now, released):
        found = recognised(layout, SE, tmp_path)
        assert (found.layout, found.networks) == ("nvidia", (SE,))
    assert "layers.3.2.squeeze.squeeze.weight" in theirs(now, SE)
    assert "layer4.2.squeeze.squeeze.weight" in theirs(released, SE)


@pytest.mark.parametrize("shape", [(16, 256), (16, 256, 1, 1)])
def test_se_is_read_as_linear_layers_and_as_convolutions(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape)
    ours, unknown = to_ours(layouts("nvidia", SE)[0].rows, {"layers.0.1.squeeze.squeeze.weight": weight})
    assert not unknown
    assert torch.equal(ours["layer1.1.se.fc1.weight"], weight.reshape(16, 256))


def test_all_hidden_widths_are_16(tmp_path: Path) -> None:
    tensors = theirs(layouts("nvidia", SE)[0], SE)
    assert {tensor.shape[0] for key, tensor in tensors.items() if ".squeeze.squeeze." in key} == {16}
    with pytest.raises(WeightsError, match="its hidden width for 512 channels is 16, here it is 32"):
        weights.save(senet.build(SE), tmp_path / "w.safetensors", layout="nvidia")
