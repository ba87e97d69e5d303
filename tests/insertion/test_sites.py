import pytest
import torch
import torchvision
from tests.networks import (
    SUMS,
    Bottleneck,
    DataDependent,
    HandSwish,
    Mixture,
    Nested,
    Net,
    Resnet1d,
    Reused,
    SharedActivation,
    SqueezeByHand,
    UNet,
    Unit,
    conv,
)
from torch import Tensor, nn

import senet
from senet.graph.examples import trace_with
from senet.insertion.sites import find_sites

# By hand: (unit, what is gated, channels, block) of each site, and the reasons for what has none.
HOOKED_TWICE = "its modules run more than once: one block would serve several places"
CASES: dict[str, tuple[nn.Module, list[tuple[str, str, int, str]], set[str]]] = {
    **{
        how: (
            Net(Unit(how=how)),
            [("units.0", "output of units.0.b2", 16, "units.0.se")],
            {"in the stem"},
        )
        for how in SUMS
    },
    "bottlenecks": (
        Net(Bottleneck(16, 32, 2), Bottleneck(32, 32), leaving=32),
        [
            ("units.0", "output of units.0.b3", 32, "units.0.se"),
            ("units.1", "output of units.1.b3", 32, "units.1.se"),
        ],
        {"in the stem", "in a shortcut"},
    ),
    "nested": (
        Net(Nested()),
        [
            ("units.0.a", "output of units.0.a.b2", 16, "units.0.a.se"),
            ("units.0.b", "output of units.0.b.b2", 16, "units.0.b.se"),
        ],
        {"in the stem", "in the head", "its branch holds units of its own, which have their places"},
    ),
    "squeeze by hand": (
        Net(SqueezeByHand(), Unit()),
        [("units.1", "output of units.1.b2", 16, "units.1.se")],
        {"in the stem", "channel attention is there already"},
    ),
    "data-dependent": (
        Net(DataDependent()),
        [("units.0.often", "output of units.0.often.b2", 16, "units.0.often.se")],
        {"in the stem", "it does not run in evaluation mode, with this example"},
    ),
    "reused": (
        Net(Reused()),
        [("units.0.own", "output of units.0.own.b2", 16, "units.0.own.se")],
        {"in the stem", HOOKED_TWICE},
    ),
    "one ReLU for all": (
        SharedActivation(),
        [("first.0", "output of first.1", 16, "first.0.se"), ("c2", "input of c3", 16, "c2.se")],
        {HOOKED_TWICE},
    ),
    "x · σ(x)": (HandSwish(), [("", "input of c2", 16, "se")], {"in the head"}),
    "encoder and decoder": (
        UNet(),
        [
            ("e1.0", "output of e1.1", 16, "e1.0.se"),
            ("e2.0", "output of e2.1", 32, "e2.0.se"),
            ("d.0", "output of d.1", 16, "d.0.se"),
        ],
        {"in the head", "it joins an encoder's map to a decoder's"},
    ),
    "a network that is one unit": (Resnet1d(1), [("", "output of c2", 16, "se")], {"in the stem"}),
    "branches added one by one": (
        Net(Mixture(together=False)),
        [
            ("units.0", "output of units.0.b1.2", 16, "units.0.se"),
            ("units.0", "output of units.0.b2.2", 16, "units.0.se_block"),
        ],
        {"in the stem"},
    ),
    "branches added first": (
        Net(Mixture(together=True)),
        [("units.0", "input of units.0.after", 16, "units.0.se")],
        {"in the stem"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_sites_written_by_hand(name: str) -> None:
    model, wanted, reasons = CASES[name]
    graph, _ = trace_with(model, None)
    sites, left = find_sites(model, graph, "", "standard")
    assert [(site.unit, str(site.attachment), site.channels, site.block) for site in sites] == wanted
    assert {each.reason for each in left} == reasons


class Enc(nn.Module):
    """A namespace: only its children are called."""

    def __init__(self) -> None:
        super().__init__()
        layers = (nn.Sequential(conv(width, 16), nn.ReLU()) for width in (3, 16))
        self.layers = nn.ModuleList(layers)
        self.fc = nn.Linear(16, 2)


class Namespaced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc = Enc()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.enc.layers:
            x = layer(x)
        scores: Tensor = self.enc.fc(x.mean((2, 3)))
        return scores


def test_a_module_that_is_not_called_is_no_unit() -> None:
    model = Namespaced()
    graph, _ = trace_with(model, None)
    sites, _ = find_sites(model, graph, "", "standard")
    assert [site.block for site in sites] == ["enc.layers.0.0.se", "enc.layers.1.0.se"]


class PreActivated(nn.Module):
    """Its shortcut is what it is given; perhaps through dropout, perhaps overwritten."""

    def __init__(self, first: nn.Module | None = None, in_place: bool = False) -> None:
        super().__init__()
        self.first, self.in_place = first or nn.Identity(), in_place
        self.b1, self.c1 = nn.BatchNorm2d(16), conv(16, 16)
        self.b2, self.c2 = nn.BatchNorm2d(16), conv(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.c2(torch.relu(self.b2(self.c1(torch.relu(self.b1(self.first(x)))))))
        if not self.in_place:
            return x + branch  # type: ignore[no-any-return]
        x += branch
        return x


def test_a_stage_without_its_stem() -> None:
    model = nn.Sequential(PreActivated(), PreActivated())
    graph, _ = trace_with(model, None)
    sites, _ = find_sites(model, graph, "", "standard")
    assert [str(site.attachment) for site in sites] == ["output of 0.c2", "output of 1.c2"]


@pytest.mark.parametrize(
    ("unit", "placement", "reason"),
    [
        (PreActivated(nn.Dropout()), "identity", "between two functions"),
        (PreActivated(in_place=True), "pre", "overwrites the tensor"),
    ],
)
def test_places_that_would_fail_in_training_are_none(unit: nn.Module, placement: str, reason: str) -> None:
    model = Net(unit)
    graph, _ = trace_with(model, None)
    sites, left = find_sites(model, graph, "", placement)
    assert sites == []
    assert reason in left[0].reason


PLACES = {
    "standard": ("output of layer2.0.bn3", "output of layer2.1.bn3", 512),
    "pre": ("input of layer2.0.conv1", "input of layer2.1.conv1", 512),
    "post": ("output of layer2.0", "output of layer2.1", 512),
    "identity": ("output of layer2.0.downsample.1", "shortcut of layer2.1", 512),
    "3x3": ("input of layer2.0.conv3", "input of layer2.1.conv3", 128),
}


@pytest.mark.parametrize("placement", PLACES)
def test_the_papers_placements_in_resnet50(placement: str) -> None:
    model = torchvision.models.resnet50()
    graph, _ = trace_with(model, None)
    sites, left = find_sites(model, graph, "", placement)
    assert len(sites) == 16
    assert [site.stage for site in sites] == [2] * 3 + [3] * 4 + [4] * 6 + [5] * 3
    first, second, channels = PLACES[placement]
    assert (str(sites[3].attachment), str(sites[4].attachment)) == (first, second)
    assert sites[4].channels == channels
    assert [each.name for each in left if each.reason == "in the stem"] == ["conv1"]
    assert len([each for each in left if each.reason == "in a shortcut"]) == 4


@pytest.mark.parametrize(
    ("model", "placement", "reason"),
    [
        (Net(Unit()), "3x3", "no spatial convolution inside its branch has a pointwise one after it"),
        (HandSwish(), "post", "placement 'post' is one of residual units"),
    ],
)
def test_a_placement_that_a_unit_does_not_have(model: nn.Module, placement: str, reason: str) -> None:
    graph, _ = trace_with(model, None)
    sites, left = find_sites(model, graph, "", placement)
    assert sites == []
    assert reason in {each.reason for each in left}


def test_the_stage_is_the_papers_also_for_small_images() -> None:
    model = senet.build("resnet20")
    graph, _ = trace_with(model, torch.empty(1, 3, 32, 32))
    sites, _ = find_sites(model, graph, "", "standard")
    assert [site.stage for site in sites] == [2] * 3 + [3] * 3 + [4] * 3


def test_a_part_has_the_names_of_the_whole() -> None:
    model = nn.ModuleDict({"backbone": Net(Unit())})
    graph, _ = trace_with(model["backbone"], None)
    (site,), left = find_sites(model, graph, "backbone", "standard")
    assert (site.unit, site.block) == ("backbone.units.0", "backbone.units.0.se")
    assert str(site.attachment) == "output of backbone.units.0.b2"
    assert [each.name for each in left] == ["backbone.stem"]


def test_a_slot_that_the_unit_would_call_itself_is_left_alone() -> None:
    class Slotted(Unit):
        def __init__(self) -> None:
            super().__init__()
            self.se = None

    model = Net(Slotted())
    graph, _ = trace_with(model, None)
    (site,), _ = find_sites(model, graph, "", "standard")
    assert site.block == "units.0.se_block"
