from collections import Counter
from typing import Any

import pytest
import timm
import torchvision
from torch import nn
from torch.nn.utils import parametrizations
from torchvision.models.resnet import Bottleneck, ResNet

import senet
from senet.acceleration.sites import OwnTail, TailSite, find_tails
from senet.graph.examples import trace_with


def _found(model: nn.Module) -> Counter[str]:
    sites = find_tails(model, trace_with(model, None)[0])
    return Counter(
        str(site) if isinstance(site, TailSite) else "own" if isinstance(site, OwnTail) else site.reason
        for site in sites
    )


RESIDUAL = "batch norm + SE + sum + relu"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("timm:seresnet50", {RESIDUAL: 16}),
        ("timm:legacy_seresnext50_32x4d", {RESIDUAL: 16}),
        ("timm:efficientnet_b0", {"batch norm + silu + SE": 16}),
        ("timm:mobilenetv3_small_100", {"batch norm + hardswish + SE": 8, "batch norm + relu + SE": 1}),
        ("timm:regnety_004", {"batch norm + relu + SE": 16}),
        ("timm:ecaresnet50t", {"it has 1 layers, and SE has two": 16}),
        ("torchvision:efficientnet_b0", {"batch norm + silu + SE": 16}),
        ("torchvision:mobilenet_v3_small", {"batch norm + hardswish + SE": 8, "batch norm + relu + SE": 1}),
        ("torchvision:regnet_y_400mf", {"batch norm + relu + SE": 16}),
        ("se_resnet20", {"own": 9}),
    ],
)
def test_the_tails_of_networks(name: str, wanted: dict[str, int]) -> None:
    assert _found(senet.load(name)) == wanted


@pytest.mark.parametrize(
    ("placement", "wanted"),
    [
        ("standard", {RESIDUAL: 4}),
        ("pre", {"SE": 4}),
        ("post", {"SE": 4}),
        ("3x3", {"batch norm + relu + SE": 4}),
    ],
)
def test_inserts_own_hooks_are_known(placement: str, wanted: dict[str, int]) -> None:
    model = ResNet(Bottleneck, [1, 1, 1, 1])
    senet.insert(model, placement=placement)
    assert _found(model) == wanted


@pytest.mark.parametrize(
    ("squeeze", "reason"),
    [
        ("max", "its squeeze is a maximum, which the norm's sums do not give"),
        ("none", "it has no squeeze: its gates are a map"),
    ],
)
def test_other_squeezes_are_left_alone(squeeze: str, reason: str) -> None:
    se = senet.SEConfig(squeeze=squeeze)
    assert _found(senet.build("se_resnet20", se=se, stages=[4])) == {reason: 3}
    assert _found(nn.Sequential(nn.Conv2d(3, 16, 1), se.build(16))) == {reason: 1}


def test_what_users_have_attached_is_left_alone() -> None:
    model: Any = timm.create_model("seresnet50")
    model.layer1[0].bn3.register_forward_hook(lambda *_: None)
    model.layer1[1].se.register_forward_hook(lambda *_: None)
    model.layer1[2].se.fc1.register_forward_pre_hook(lambda *_: None)
    parametrizations.weight_norm(model.layer2[0].se.fc2)
    own = model.layer2[1].se
    own.forward = lambda x: type(own).forward(own, x)
    assert _found(model) == {
        RESIDUAL: 11,
        "SE + sum + relu (of the norm: hooks are attached to it)": 1,
        "hooks are attached to it": 2,
        "it is parametrized": 1,
        "its forward has been replaced": 1,
    }


class _Unit(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.se = torchvision.ops.SqueezeExcitation(8, 2)
        self.act = nn.GELU() if kind == "gelu" else nn.ReLU()

    def forward(self, x):  # type: ignore[no-untyped-def]
        u = self.bn(self.conv(x))
        if self.kind == "read elsewhere":
            return self.act(self.se(u) + x) + u
        if self.kind == "gelu":
            return self.se(self.act(u)) + x
        if self.kind == "twice":
            return self.se(self.act(self.se(u) + x))
        if self.kind == "functional":
            return self.act(u * (self.se.fc2(self.se.fc1(u.mean((2, 3), True)).relu())).sigmoid() + x)
        return self.act(self.se(u) + x) if self.kind != "no activation" else self.se(u) + x


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("plain", RESIDUAL),
        ("no activation", "batch norm + SE + sum"),
        ("read elsewhere", "SE + sum + relu (what the norm gives is read elsewhere too)"),
        ("gelu", "SE + sum (between norm and SE stands gelu, which is not computed with them)"),
        ("twice", "it runs several times, with different things around it"),
        (
            "functional",
            "the attention is no module of its own that takes a map and returns it gated",
        ),
    ],
)
def test_units_written_in_many_ways(kind: str, wanted: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), _Unit(kind))
    assert _found(model) == {wanted: 1}


def test_an_addition_is_no_gate() -> None:
    assert set(_found(timm.create_model("gcresnet33ts"))) == {"it adds to the map, SE multiplies"}
