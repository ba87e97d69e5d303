import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import senet
from senet.detection.trunk import STRIDES, Trunk
from senet.errors import OptionError
from senet.models import Network
from senet.models.foreign import load_foreign
from senet.normalisation import is_batch_norm


def seen(network: nn.Module, trunk: Trunk, x: Tensor) -> list[Any]:
    """What the whole network has at the modules that the trunk's maps are of."""
    found: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _module, _given, output, name=name: found.__setitem__(name, output)
        )
        for name in trunk.names
    ]
    network(x)
    for handle in handles:
        handle.remove()
    return [found[name] for name in trunk.names]


@pytest.mark.parametrize(
    ("name", "maps", "channels"),
    [
        ("se_resnet18", ["layer1", "layer2", "layer3", "layer4"], [64, 128, 256, 512]),
        ("se_mobilenet_v1", ["layer2", "layer3", "layer4", "layer5"], [128, 256, 512, 1024]),
        ("timm:seresnet50", ["layer1", "layer2", "layer3", "layer4"], [256, 512, 1024, 2048]),
        ("timm:mobilenetv3_small_050", ["blocks.0", "blocks.1", "blocks.3", "blocks.5"], [8, 16, 24, 288]),
        (
            "torchvision:mobilenet_v3_small",
            ["features.1", "features.3", "features.8", "features.12"],
            [16, 24, 48, 576],
        ),
    ],
)
def test_it_gives_the_networks_own_maps(name: str, maps: list[str], channels: list[int]) -> None:
    network = load_foreign(name) if ":" in name else senet.build(name)
    network.eval()
    whole = copy.deepcopy(network)
    trunk = Trunk(network).eval()
    assert trunk.names == maps
    assert trunk.channels == channels
    x = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        found = trunk(x)
        for each, expected in zip(found, seen(whole, trunk, x), strict=True):
            assert torch.equal(each, expected)
    assert [tuple(each.shape[1:]) for each in found] == [
        (count, 96 // stride, 64 // stride) for count, stride in zip(channels, STRIDES, strict=True)
    ]


def test_of_the_head_nothing_stays_and_all_else_does() -> None:
    network = senet.build("se_resnet18")
    state = network.state_dict()
    trunk = Trunk(network)
    kept = trunk.network.state_dict()
    assert state.keys() - kept.keys() == {"fc.weight", "fc.bias"}
    assert all(torch.equal(state[key], tensor) for key, tensor in kept.items())
    trunk.train()(torch.randn(2, 3, 64, 64))[-1].sum().backward()
    assert all(parameter.grad is not None for parameter in trunk.parameters())


def test_inserted_blocks_are_in_it() -> None:
    network = load_foreign("torchvision:resnet18").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = Trunk(copy.deepcopy(network))(x)[0]
        senet.insert(network, reduction=4, init="random")
        trunk = Trunk(network).eval()
        assert len([name for name in trunk.state_dict() if ".se." in name]) > 0
        assert not torch.allclose(trunk(x)[0], before)
        for each, expected in zip(trunk(x), seen(network, trunk, x), strict=True):
            assert torch.equal(each, expected)


@pytest.mark.parametrize("stages", range(6))
def test_the_first_stages_are_frozen(stages: int) -> None:
    network = senet.build("se_resnet18")
    assert isinstance(network, Network)
    trunk = Trunk(network)
    trunk.freeze(stages)
    for name, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            assert parameter.requires_grad == (network.stage_of(name) > stages)  # type: ignore[operator]
    assert any(is_batch_norm(module) for module in network.modules())


def test_networks_without_such_maps() -> None:
    with pytest.raises(OptionError, match=r"no map of stride 8, but of \[1, 2, 4\]"):
        Trunk(senet.build("resnet20"))
    with pytest.raises(OptionError, match="fails on an image of 256 pixels"):
        Trunk(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 2)))
    with pytest.raises(OptionError, match=r"frozen_stages=6.*0 to 5"):
        Trunk(senet.build("resnet18")).freeze(6)
