import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import senet
from senet.errors import WeightsError
from senet.models import NetworkConfig, list_models
from senet.models.identify import layout_of, network_of, se_of
from senet.weights import Weights

STANDARD = {"placement": "standard", "squeeze": "avg", "gate": "sigmoid", "layout": "original"}


def tensors_of(config: NetworkConfig, **function: str) -> Weights:
    with torch.device("meta"):
        state = config.build().state_dict()
    return Weights("w", state, "timm", {}, function)


QUICK = ("resnet50", "se_resnext50_32x4d", "mobilenet_v1", "se_resnet20")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in list_models()]
)
def test_every_network_is_known_by_its_tensors(name: str) -> None:
    se = senet.SEConfig() if senet.info(name).se else None
    config = NetworkConfig(name, num_classes=7, in_channels=1, se=se, layout="original")
    assert network_of(tensors_of(config, **STANDARD)) == config


@pytest.mark.parametrize(
    "changes",
    [
        {"se": senet.SEConfig(4, bias=False)},
        {"se": senet.SEConfig(hidden=3)},
        {"se": senet.SEConfig(width_rule="timm")},
        {"se": senet.SEConfig(init="identity")},
        {"stages": (2, 4)},
        {"options": {"shortcut": "project"}},
    ],
)
def test_what_tensors_show_is_seen(changes: dict[str, Any]) -> None:
    config = dataclasses.replace(NetworkConfig("se_resnet20", se=senet.SEConfig()), **changes)
    assert network_of(tensors_of(config, **STANDARD)) == config


def test_what_tensors_do_not_show_is_asked_for() -> None:
    config = NetworkConfig("se_resnet18", se=senet.SEConfig())
    with pytest.raises(WeightsError, match="nothing says where SE stands in it and which gate it has"):
        network_of(tensors_of(config))
    function = {**STANDARD}
    del function["layout"]
    with pytest.raises(WeightsError, match="strides and paddings of se_resnet18"):
        network_of(tensors_of(config, **function))
    found = network_of(tensors_of(config, **function), layout="original")
    assert found.layout == "original"
    assert network_of(tensors_of(config, **STANDARD | {"gate": "tanh"})).se == senet.SEConfig(gate="tanh")


def test_tensors_of_no_network() -> None:
    config = NetworkConfig("se_resnet20", se=senet.SEConfig())
    whole = tensors_of(config, **STANDARD)
    lacking = {key: value for key, value in whole.tensors.items() if not key.startswith("fc.")}
    uneven = {**whole.tensors, "layer1.0.se.fc1.weight": torch.ones(3, 16)}
    hostile = {**whole.tensors, "layer1.0.se.fc1.weight": torch.ones(0, 0, 0)}
    for tensors in (lacking, uneven, hostile):
        with pytest.raises(WeightsError, match="do not say which network they are of"):
            network_of(dataclasses.replace(whole, tensors=tensors))


def test_without_weights_there_is_the_papers_block_and_the_modern_layout() -> None:
    assert se_of(None) == senet.SEConfig()
    assert layout_of("resnet50", None, None) == "modern"
    assert layout_of("resnet50", None, "original") == "original"


def test_a_folder_of_a_run_names_its_network(tmp_path: Path) -> None:
    senet.weights.save(senet.build("se_resnet20", placement="post"), tmp_path / senet.weights.LAST)
    assert network_of(senet.weights.recognise(tmp_path)).placement == "post"
