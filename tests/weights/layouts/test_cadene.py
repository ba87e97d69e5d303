"""The parity of these layouts is timm's, whose legacy networks have the same names and compute the same."""

from pathlib import Path

import pytest
import torch
from tests.weights.randomised import randomised

import senet
from senet import weights
from senet.errors import WeightsError
from senet.weights.layouts import LAYOUTS

CADENE = [layout for layout in LAYOUTS if layout.library == "cadene"]


@pytest.mark.parametrize("name", ["se_resnet50", pytest.param("senet154", marks=pytest.mark.slow)])
def test_there_and_back(tmp_path: Path, name: str) -> None:
    model = randomised(senet.build(name, layout="original", num_classes=7)).float()
    weights.save(model, tmp_path / "w.safetensors", layout="cadene")
    theirs = weights.read(tmp_path / "w.safetensors")[1]
    assert {"layer0.conv1.weight", "last_linear.bias", "layer4.2.se_module.fc2.weight"} <= theirs.keys()
    assert theirs["layer1.0.se_module.fc1.weight"].shape == (16, 256, 1, 1)
    # As in the files of old, which do not count batches.
    torch.save({k: v for k, v in theirs.items() if "num_batches" not in k}, tmp_path / "old.pth")
    found = weights.recognise(tmp_path / "old.pth")
    assert (found.layout, found.function["layout"]) == ("cadene", "original")
    assert found.header["preprocessing"]["resize"] == 256
    state = senet.load(found).state_dict()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_a_network_of_the_other_layout_is_refused(tmp_path: Path) -> None:
    model = senet.build("se_resnet50", layout="original")
    weights.save(model, tmp_path / "w.safetensors", layout="cadene")
    assert senet.build("se_resnet50", weights=tmp_path / "w.safetensors").config.layout == "original"
    with pytest.raises(WeightsError, match="layout original, not modern"):
        senet.build("se_resnet50", weights=tmp_path / "w.safetensors", layout="modern")
    with pytest.raises(WeightsError, match="layout original, not modern"):
        weights.load(senet.build("se_resnet50"), tmp_path / "w.safetensors")


def test_legacy_timm_is_the_same_table() -> None:
    legacy = {layout.rows for layout in LAYOUTS if layout.library == "timm" and layout.sits == "original"}
    assert legacy == {layout.rows for layout in CADENE}
