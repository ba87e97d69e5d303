import json
from pathlib import Path
from typing import Any

import pytest
import torch

import senet
from senet.errors import OptionError, UndefinedError
from senet.models import NetworkConfig
from senet.models.registry import register
from senet.models.vgg import VGG


def test_every_plain_name_has_its_twin() -> None:
    plain = {name for name in senet.list_models() if not senet.info(name).se}
    assert {f"se_{name}" for name in plain} | {"senet154"} == {
        name for name in senet.list_models() if senet.info(name).se
    }


def test_patterns_filter_and_sort_by_number() -> None:
    assert senet.list_models("se_resnet1*") == ["se_resnet18", "se_resnet101", "se_resnet110", "se_resnet152"]
    assert senet.list_models("nothing*") == []


def test_info() -> None:
    info = senet.info("se_resnet20")
    assert (info.name, info.family, info.input_size, info.se) == ("se_resnet20", "resnet", (3, 32, 32), True)
    assert set(info.options) == {"shortcut", "dropout", "unit"}
    assert set(senet.info("se_resnet50").options) == {"shortcut", "dropout"}


def test_a_config_rebuilds_the_network() -> None:
    model = senet.build(
        "se_resnet20",
        num_classes=7,
        in_channels=1,
        se=senet.SEConfig(reduction=4, gate="tanh"),
        placement="identity",
        stages=[2, 4],
        layout="original",
        shortcut="project",
    )
    config = model.config
    assert isinstance(config, NetworkConfig)
    again = NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in again.build().state_dict().items()} == shapes


def test_a_layout_that_changes_nothing_is_no_other(tmp_path: Path) -> None:
    for name, one in (("resnet20", True), ("wrn16_8", True), ("preresnet164", False), ("resnet50", False)):
        with torch.device("meta"):
            model = senet.build(name, layout="original")
        assert (model.config.layout == "modern") is one
    original = senet.build("mobilenet_v1", width=0.25, layout="original")
    senet.weights.save(original, tmp_path / "w.safetensors")
    senet.build("mobilenet_v1", width=0.25, weights=tmp_path / "w.safetensors")


def test_se_overrides_the_name() -> None:
    def blocks(model: torch.nn.Module) -> int:
        return sum(isinstance(module, senet.SqueezeExcitation) for module in model.modules())

    assert blocks(senet.build("resnet20")) == 0
    assert blocks(senet.build("resnet20", se=senet.SEConfig())) == 9
    assert blocks(senet.build("se_resnet20", se=None)) == 0


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("se_resnet5", {}, "Did you mean 'se_resnet5"),
        ("resnet20", {"dropuot": 0.1}, "Did you mean 'dropout'"),
        ("resnet20", {"num_classes": 0}, "num_classes=0"),
        ("resnet20", {"in_channels": 1.5}, "in_channels=1.5"),
        ("resnet20", {"placement": "pre"}, "no SE block to place"),
        ("resnet20", {"stages": [2]}, "no SE block to place"),
        ("se_resnet20", {"placement": "before"}, "Allowed: standard, pre, post, identity, 3x3"),
        ("se_resnet20", {"placement": "3x3"}, "Use a bottleneck network"),
        ("se_resnet20", {"stages": 3}, "stages=3"),
        ("se_resnet20", {"se": True}, "se=True"),
        ("se_resnet20", {"se": {"reduction": 4}}, "an SEConfig"),
        ("se_resnet20", {"se": senet.SEConfig}, "an SEConfig"),
        ("se_resnet20", {"stages": [5]}, "there is no stage 5. Allowed: 2, 3, 4"),
        ("se_resnet20", {"stages": []}, "no stage is named"),
        ("se_resnet20", {"layout": "caffe"}, "Allowed: modern, original"),
        ("se_resnet20", {"se": "yes"}, "Allowed: auto"),
        ("se_resnet20", {"se": senet.SEConfig(reduction=32)}, "16 // 32 is 0"),
        ("resnet20", {"dropout": 1.0}, "0 <= dropout < 1"),
        ("resnet20", {"dropout": "x"}, "0 <= dropout < 1"),
        ("resnet20", {"shortcut": "A"}, "Allowed: project, pad"),
        ("resnet20", {"unit": "botleneck"}, "Did you mean 'bottleneck'"),
        ("resnet50", {"unit": "basic"}, "there is no option 'unit'"),
    ],
)
def test_what_cannot_be_built(name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        senet.build(name, **arguments)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("se_resnet20", {"placement": "3x3"}),
        ("se_resnet20", {"se": senet.SEConfig(reduction=32)}),
        ("se_shakeshake26_2x96d", {"placement": "3x3"}),
        ("se_shufflenet_v1_g3", {"placement": "post"}),
        ("se_mobilenet_v1", {"placement": "pre"}),
    ],
)
def test_what_is_not_defined_is_told_from_what_is_typed_wrongly(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(UndefinedError), torch.device("meta"):
        senet.build(name, **arguments)


def test_a_name_is_registered_once() -> None:
    with pytest.raises(OptionError, match="the name is taken"):
        register("resnet20", VGG, family="none", input_size=(3, 32, 32))
