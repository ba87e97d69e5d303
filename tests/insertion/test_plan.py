import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from tests.networks import Net, TwoInputs, Unit
from torch import nn

import senet
from senet.errors import InsertionError, OptionError, TraceError
from senet.insertion.sites import Site


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    model: nn.Module = torchvision.models.resnet18()
    return model


def test_a_plan_prints_counts_and_changes_nothing(resnet: nn.Module) -> None:
    keys, hooks = list(resnet.state_dict()), [dict(each._forward_hooks) for each in resnet.modules()]
    found = senet.plan(resnet)
    assert list(resnet.state_dict()) == keys
    assert [dict(each._forward_hooks) for each in resnet.modules()] == hooks
    assert len(found) == 8
    built = senet.build("se_resnet18")
    ours = sum(each.numel() for name, each in built.named_parameters() if ".se." in name)
    assert found.parameters == ours == sum(row["parameters"] for row in found.rows)
    text = str(found)
    assert text.startswith(f"ResNet: 8 places for SE, {ours:,} parameters more\n")
    assert "layer4.1  residual      5  standard   output of layer4.1.bn2       512" in text
    assert "1 x in the stem: conv1" in text
    assert "3 x in a shortcut: layer2.0.downsample.0, layer3.0.downsample.0" in text


@pytest.mark.parametrize(
    ("where", "units"),
    [
        (4, ["layer3.0", "layer3.1"]),
        ([2, 5], ["layer1.0", "layer1.1", "layer4.0", "layer4.1"]),
        ("layer?.0", ["layer1.0", "layer2.0", "layer3.0", "layer4.0"]),
        (["layer1.*", 3], ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]),
        (lambda site: site.channels > 256, ["layer4.0", "layer4.1"]),
        ("conv1", ["conv1"]),
        (["layer2.0.downsample.0", "layer2.1"], ["layer2.1", "layer2.0.downsample.0"]),
    ],
)
def test_where(resnet: nn.Module, where: object, units: list[str]) -> None:
    whole = senet.plan(resnet)
    for found in (senet.plan(resnet, where=where), whole.filter(where)):  # type: ignore[arg-type]
        assert [site.unit for site in found] == units
        assert len(found.left) + len(found) == len(whole.left) + len(whole)


def test_a_stem_or_shortcut_is_meant_only_by_its_full_name(resnet: nn.Module) -> None:
    assert {site.unit for site in senet.plan(resnet, where="*")} == {site.unit for site in senet.plan(resnet)}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (7, r"7 matches no place.*stages 2, 3, 4, 5"),
        ("layer9.*", "matches no place"),
        ("layer1.3", "Did you mean 'layer1"),
        ([], "it names nothing"),
        (lambda site: False, "takes none of the 8 places"),
    ],
)
def test_a_where_that_selects_nothing(resnet: nn.Module, where: object, message: str) -> None:
    with pytest.raises(InsertionError, match=message):
        senet.plan(resnet, where=where)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", [True, 3.0, [2.0], ["layer1.0", None]])
def test_a_where_of_another_kind(resnet: nn.Module, where: object) -> None:
    with pytest.raises(OptionError, match="Allowed: stages"):
        senet.plan(resnet, where=where)  # type: ignore[arg-type]


def test_a_stage_may_be_numpys(resnet: nn.Module) -> None:
    assert len(senet.plan(resnet, where=np.int64(3))) == 2  # type: ignore[arg-type]


def test_lazy_layers_are_refused() -> None:
    with pytest.raises(InsertionError, match="Run it once"):
        senet.plan(nn.Sequential(nn.LazyConv2d(4, 3)))


def test_options(resnet: nn.Module) -> None:
    assert senet.plan(resnet, reduction=8, bias=False).parameters == sum(
        2 * site.channels * (site.channels // 8) for site in senet.plan(resnet)
    )
    with pytest.raises(OptionError, match="Did you mean 'reduction'"):
        senet.plan(resnet, reducton=8)  # type: ignore[call-arg]
    with pytest.raises(OptionError, match="Did you mean 'identity'"):
        senet.plan(resnet, placement="identiti")


def test_places_too_narrow_for_the_reduction_are_shown() -> None:
    found = senet.plan(Net(Unit(8), channels=8, leaving=8))
    assert [site.channels for site in found.too_narrow] == [8]
    assert (found.rows[0]["hidden"], found.rows[0]["parameters"], found.parameters) == (None, None, 0)


def test_a_plan_saves(resnet: nn.Module, tmp_path: Path) -> None:
    found = senet.plan(resnet)
    found.save(tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text()) == found.rows


def test_a_network_that_does_not_run_alone_is_looked_at_in_parts() -> None:
    (site,) = senet.plan(TwoInputs())
    assert site.block == "backbone.units.0.se"
    (site,) = senet.plan(TwoInputs(), example=(torch.randn(1, 3, 8, 8), torch.tensor([1])))
    assert site.block == "backbone.units.0.se"


def test_an_example_that_does_not_fit_is_not_guessed_around() -> None:
    with pytest.raises(TraceError, match="does not run on an input of"):
        senet.plan(Net(Unit()), example=torch.randn(1, 5, 8, 8))


def test_a_detector_is_planned_in_its_backbone() -> None:
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    found = senet.plan(model)
    assert len(found) > 0
    assert all(site.block.startswith("backbone.") for site in found)


class _Script(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_wrapped_networks_are_refused() -> None:
    compiled_in_place = Net(Unit())
    compiled_in_place.compile()
    wrapped = {
        "wrapped for parallel training": nn.DataParallel(Net(Unit())),
        "it is compiled|is compiled": torch.compile(Net(Unit())),
        "compiled": compiled_in_place,
        "TorchScript": nn.Sequential(torch.jit.script(_Script())),
    }
    for message, model in wrapped.items():
        with pytest.raises(InsertionError, match=message):
            senet.plan(model)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"no torch\.nn\.Module"):
        senet.plan("resnet18")  # type: ignore[arg-type]


def test_a_site_says_what_it_is(resnet: nn.Module) -> None:
    site = next(iter(senet.plan(resnet)))
    assert isinstance(site, Site)
    assert (site.unit, site.kind, site.stage, site.placement, site.channels, site.block) == (
        "layer1.0",
        "residual",
        2,
        "standard",
        64,
        "layer1.0.se",
    )
