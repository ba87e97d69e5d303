import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import senet
from senet.errors import OptionError, WeightsError


def test_a_name_gives_a_fresh_network() -> None:
    model = senet.load("se_resnet20")
    assert not model.training
    assert model.config.name == "se_resnet20"  # type: ignore[union-attr]


def test_a_file_gives_the_network_it_was_saved_from(tmp_path: Path) -> None:
    saved = senet.build(
        "se_resnet20", num_classes=3, se=senet.SEConfig(gate="tanh", init="identity"), placement="post"
    ).eval()
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    senet.weights.save(saved, tmp_path / "last.safetensors")
    x = torch.randn(2, 3, 32, 32)
    for parameter in senet.load(tmp_path).parameters():
        assert parameter.requires_grad
        assert not parameter.is_meta
    for named in (tmp_path / "last.safetensors", tmp_path, str(tmp_path)):
        assert torch.equal(senet.load(named)(x), saved(x))


def test_a_name_that_is_a_path_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    senet.weights.save(senet.build("resnet20", num_classes=3), "resnet20")
    with pytest.raises(OptionError, match=r"Write \./resnet20 for the path"):
        senet.load("resnet20")
    assert senet.load("./resnet20").config.num_classes == 3  # type: ignore[union-attr]


def test_what_is_neither_name_nor_path() -> None:
    with pytest.raises(OptionError, match="Did you mean 'se_resnet5"):
        senet.load("se_resnet5")


@pytest.mark.parametrize(
    "network",
    [
        "resnet50",
        {},
        {"name": "of_the_future", "se": None, "stages": None},
        {"name": "resnet20", "se": None, "stages": None, "unknown": 1},
        {"name": "resnet20", "se": {"gait": "tanh"}, "stages": None},
        {"name": "resnet20", "se": None, "stages": None, "in_channels": 10**12},
        {"name": "resnet20", "se": None, "stages": None, "num_classes": -5},
        {"name": "resnet20", "se": None, "stages": None, "layout": "zz"},
    ],
)
def test_a_header_that_does_not_fit(tmp_path: Path, network: object) -> None:
    tensors = senet.build("resnet20").state_dict()
    save_file(tensors, tmp_path / "w.safetensors", {"senet": json.dumps({"network": network})})
    with pytest.raises(WeightsError, match=r"cannot be built|do not fit"):
        senet.load(tmp_path / "w.safetensors")


def test_a_foreign_file_does_not_say_its_network(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="do not say which network"):
        senet.load(tmp_path / "foreign.safetensors")


def test_a_layout_is_followed_or_refused(tmp_path: Path) -> None:
    assert senet.load("resnet18", layout="original").config.layout == "original"
    senet.weights.save(senet.build("resnet18"), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="layout modern, not original"):
        senet.load(tmp_path / "w.safetensors", layout="original")
    with pytest.raises(OptionError, match="'nonsense' is unknown"):
        senet.load(tmp_path / "w.safetensors", layout="nonsense")


def test_a_tag_of_timm_is_no_fresh_network() -> None:
    pytest.importorskip("timm")
    with pytest.raises(OptionError, match=r"weights='timm:seresnet50\.ra2_in1k'"):
        senet.load("timm:seresnet50.ra2_in1k")
