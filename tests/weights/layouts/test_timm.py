"""Parity with the installed timm: a network of theirs with random weights, and ours with these."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.weights.randomised import change, randomised

import senet
from senet import weights
from senet.errors import WeightsError
from senet.weights.layouts.timm import LAYOUTS, LEGACY

timm: Any = pytest.importorskip("timm")

QUICK = ("seresnet18", "legacy_seresnet50")
NETWORKS = [
    pytest.param(theirs, ours, layout.sits, marks=() if theirs in QUICK else pytest.mark.slow)
    for layout in (*LAYOUTS, *LEGACY)
    for ours, theirs in layout.networks.items()
]


@pytest.mark.parametrize(("theirs", "ours", "sits"), NETWORKS)
def test_parity(tmp_path: Path, theirs: str, ours: str, sits: str) -> None:
    model = randomised(timm.create_model(theirs, num_classes=7))
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    network: Any = randomised(senet.load(tmp_path / "theirs.pth").double(), seed=1)
    weights.load(network, tmp_path / "theirs.pth")
    assert network.config.name == ours
    assert sits == network.config.layout
    # An odd size shows where strides and paddings sit.
    size = 95 if ours == "inception_resnet_v2" else 64 if ours == "vgg16_bn" else 65
    x = torch.randn(2, 3, size, size, dtype=torch.double)
    with torch.inference_mode():
        expected = model(x)
        assert change(network(x), expected) < 1e-9
        assert expected.std() > 1e-3  # it depends on what it sees
    # And back, as timm itself loads it.
    weights.save(network, tmp_path / "ours.safetensors", layout="timm")
    again = randomised(timm.create_model(theirs, num_classes=7), seed=2).float()
    timm.models.load_checkpoint(again, str(tmp_path / "ours.safetensors"))
    back = model.float().state_dict()
    assert all(torch.equal(value, back[key]) for key, value in again.state_dict().items())


def test_widths_in_multiples_of_eight_are_recognised(tmp_path: Path) -> None:
    torch.save(timm.create_model("seresnet18").state_dict(), tmp_path / "w.pth")
    model: Any = senet.load(tmp_path / "w.pth")
    assert model.config.se == senet.SEConfig(width_rule="timm")
    assert senet.build("se_resnet18", weights=tmp_path / "w.pth").config.se == model.config.se
    with pytest.raises(WeightsError, match=r"se\.fc1\.weight \(8, 64\), not \(4, 64\)"):
        senet.build("se_resnet18", weights=tmp_path / "w.pth", se=senet.SEConfig())


@pytest.mark.parametrize(
    "name",
    [
        "legacy_seresnet18",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("seresnet152d", "ecaresnet50d")),
    ],
)
def test_what_computes_something_else_is_refused(tmp_path: Path, name: str) -> None:
    torch.save(timm.create_model(name).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="they do not say which network they are of"):
        senet.load(tmp_path / "w.pth")
    with pytest.raises(WeightsError):
        senet.build("se_resnet18", weights=tmp_path / "w.pth", layout="original")


def test_a_config_beside_the_file_tells_networks_of_equal_tensors_apart(tmp_path: Path) -> None:
    blurred = timm.create_model("resnetblur18").state_dict()
    weights.save(senet.build("resnet18"), tmp_path / "model.safetensors", layout="timm")
    assert senet.load(tmp_path / "model.safetensors").config.name == "resnet18"  # type: ignore[union-attr]
    assert blurred.keys() == senet.build("resnet18").state_dict().keys()
    (tmp_path / "config.json").write_text('{"architecture": "resnetblur18"}')
    with pytest.raises(WeightsError, match="'resnetblur18', which is no network of senet"):
        senet.load(tmp_path / "model.safetensors")
