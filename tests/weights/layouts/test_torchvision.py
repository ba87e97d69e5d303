from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from tests.weights.randomised import change, randomised

import senet
from senet import weights
from senet.weights.layouts.torchvision import LAYOUTS

NETWORKS = [
    pytest.param(name, marks=() if name == "resnet18" else pytest.mark.slow)
    for layout in LAYOUTS
    for name in layout.networks
]


@pytest.mark.parametrize("name", NETWORKS)
def test_parity(tmp_path: Path, name: str) -> None:
    model = randomised(torchvision.models.get_model(name, weights=None, num_classes=7))
    torch.save({"model": model.state_dict(), "epoch": 9}, tmp_path / "theirs.pth")
    network: Any = senet.load(tmp_path / "theirs.pth").double()
    weights.load(network, tmp_path / "theirs.pth")
    assert (network.config.name, network.config.layout) == (name, "modern")
    x = torch.randn(2, 3, 65, 65, dtype=torch.double)
    with torch.inference_mode():
        assert change(network(x), model(x)) < 1e-9
    weights.save(network, tmp_path / "ours.safetensors", layout="torchvision")
    _, back = weights.read(tmp_path / "ours.safetensors")
    assert all(torch.equal(back[key], value) for key, value in model.state_dict().items())


def test_names_that_are_ours_too_leave_the_caller_the_last_word(tmp_path: Path) -> None:
    model = senet.build("resnet18", layout="original")
    torch.save(model.state_dict(), tmp_path / "w.pth")
    assert senet.build("resnet18", weights=tmp_path / "w.pth").config.layout == "modern"
    loaded = senet.build("resnet18", weights=tmp_path / "w.pth", layout="original")
    assert loaded.config.layout == "original"
    weights.load(senet.build("resnet18", layout="original"), tmp_path / "w.pth")
