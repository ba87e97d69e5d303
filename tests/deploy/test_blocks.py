import copy

import pytest
import torch
from tests.acceleration.held import stirred
from tests.acceleration.networks import NETWORKS, bottlenecks, images
from torch import nn

import senet
from senet.deploy.blocks import deploy
from senet.deploy.forms import BlockedScale, Deployed

# How many SE blocks there are that stay, as what makes their gates is no SE.
STAY = {"timm byobnet": 0}


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_computes_the_same(name: str, blocked: bool) -> None:
    model, x = stirred(NETWORKS[name]()).eval(), images(name)
    wanted = model(x)
    networks = [copy.deepcopy(model)]
    if name not in ("stack", "user"):
        networks.append(senet.simplify(model, example=x))
    for network in networks:
        placed, left = deploy(network, x, blocked=blocked)
        assert placed == sum(isinstance(module, Deployed) for module in network.modules()) > 0
        assert len(left) == STAY.get(name, 0)
        assert not any(module.training for module in network.modules())
        torch.testing.assert_close(network(x), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("placement", "carried"), [("standard", 3), ("pre", 0), ("post", 0), ("3x3", 0)])
def test_a_convolution_carries_the_sum_where_one_follows(placement: str, carried: int) -> None:
    model = bottlenecks(placement).eval()
    deploy(model, torch.randn(2, 3, 16, 16), blocked=True)
    scales = [module for module in model.modules() if isinstance(module, BlockedScale)]
    assert len(scales) == 3
    assert sum(scale.carry is not None for scale in scales) == carried


def test_channels_that_fill_no_block_of_the_runtime_carry_nothing() -> None:
    model = NETWORKS["basic"]().eval()
    deploy(model, torch.randn(2, 3, 16, 16), blocked=True)
    carried = {
        int(scale.carry.in_channels)
        for scale in model.modules()
        if isinstance(scale, BlockedScale) and isinstance(scale.carry, nn.Conv2d)
    }
    # The first stage has 8.
    assert carried == {16}


@pytest.mark.parametrize(("groups", "blocked"), [(1, True), (2, True), (4, False), (32, True)])
def test_groups_that_fill_no_block_are_not_in_blocks(groups: int, blocked: bool) -> None:
    conv = nn.Conv2d(32, 32, 3, groups=groups)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 1), conv, nn.ReLU(), senet.SqueezeExcitation(32), nn.Conv2d(32, 4, 1)
    )
    deploy(model.eval(), torch.randn(2, 3, 16, 16), blocked=True)
    assert any(isinstance(module, BlockedScale) for module in model.modules()) == blocked


def test_a_block_that_cannot_be_read_stays_and_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), senet.SqueezeExcitation(8, hidden=2, squeeze="max"))
    placed, left = deploy(model.eval(), torch.randn(2, 3, 16, 16))
    assert placed == 0
    assert [each.module for each in left] == ["1"]
    assert "maximum" in left[0].reason
