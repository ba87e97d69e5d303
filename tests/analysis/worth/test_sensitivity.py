from typing import Any

import pytest
import torch
from tests.analysis.gated import Gated, images
from torch import Tensor, nn

import senet
from senet.analysis.cost.cost import cost
from senet.analysis.worth.result import NUMBER, ONE, PROFILE
from senet.analysis.worth.sensitivity import sensitivity
from senet.errors import DataError, OptionError, ShapeError


def test_what_blocks_are_worth_and_which_can_go() -> None:
    model = Gated()
    found = sensitivity(model, images(160), recorded=images(40, seed=1))
    lost = {(row["what"], row["gates"]): row["top1_lost"] for row in found.rows}
    assert found.untouched.top1 > 90
    assert lost["idle", PROFILE] == 0
    # Without its gates all classes have the same score, and one of eight is right.
    assert all(lost["needed", gates] > 100 for gates in (ONE, NUMBER, PROFILE))
    assert all(lost["all blocks", gates] > 100 for gates in (ONE, NUMBER, PROFILE))
    assert list(found.proposal.gates) == ["idle"]
    assert found.proposal.outcome is not None
    assert found.proposal.outcome.top1.lost == 0
    assert found.stages == (("idle",), ("needed",))
    smaller = senet.fold_gates(model.eval(), found.proposal.gates, example=images(2)[0][0])
    assert [name for name, each in smaller.named_modules() if isinstance(each, senet.SqueezeExcitation)] == [
        "needed"
    ]


def test_the_means_may_be_given_or_taken_from_the_images_themselves() -> None:
    model, loader = Gated(), images(40)
    with senet.record_gates(model.eval()) as gates, torch.no_grad():
        for x, _ in loader:
            model(x)
    means = {block.name: block.mean for block in gates}
    given, own = sensitivity(model, loader, means=means), sensitivity(model, loader)
    for one, other in zip(given.rows, own.rows, strict=True):
        assert one == {key: pytest.approx(value, abs=1e-5) for key, value in other.items()}
    # One number is their mean.
    number = sensitivity(model, loader, means={name: mean.mean().expand(16) for name, mean in means.items()})
    by = {(row["what"], row["gates"]): row["loss"] for row in number.rows}
    assert by["needed", PROFILE] == pytest.approx(by["needed", NUMBER], abs=1e-6)
    before = {(row["what"], row["gates"]): row["loss"] for row in own.rows}
    assert by["needed", NUMBER] == pytest.approx(before["needed", NUMBER], abs=1e-6)


def test_costs_are_those_that_are_counted_of_the_network() -> None:
    found = sensitivity(Gated(), images(8), blocks=["needed"])
    counted = cost(Gated(), (16, 4, 4), runs=0)
    needed = counted.blocks[1]
    assert list(found.costs) == [needed.name] == ["needed"]
    for ours, part in (
        (found.costs["needed"], needed),
        (found.se, counted.se),
        (found.network, counted.total),
    ):
        assert (ours.parameters, ours.multiply_adds) == (part.parameters, part.multiply_adds)
    # Of some blocks only, the paper's last stage is not known.
    assert {row["what"] for row in found.rows} <= {"needed", "proposal"}
    assert (found.stages, found.claims) == ((), [])


class Foreign(nn.Module):
    """Two blocks in one module that are no modules, and one that is named."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 6, 1)
        self.b = nn.Conv2d(6, 6, 1)
        self.gate = nn.Sequential(
            nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 6, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.a(x.mean((2, 3), keepdim=True)).sigmoid()
        x = x.relu()
        x = x * self.b(x.mean((2, 3), keepdim=True)).sigmoid()
        x = x * self.gate(x)[:, :, None, None]
        return x.flatten(2).amax(2)


class Unmixed(nn.Module):
    """Gates that mix no channels, so that they are not recognised, but can be named."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 6, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(6), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        u: Tensor = self.a(x)
        s: Tensor = self.gate(u)
        return (u * s).flatten(2).amax(2)


def test_blocks_of_others() -> None:
    loader = [(torch.randn(6, 6, 4, 4), torch.arange(6)) for _ in range(2)]
    found = sensitivity(Foreign(), loader)
    assert sum(each.parameters for each in found.costs.values()) == found.se.parameters == 2 * 42 + 36
    assert max(each.multiply_adds for each in found.costs.values()) == 36 + 6 * 16
    named = sensitivity(Foreign(), loader, blocks=["gate"])
    assert {name: each.parameters for name, each in named.costs.items()} == {"gate": 36}


def test_shares_on_images_so_small_that_maps_look_like_gates() -> None:
    model = senet.load("torchvision:mobilenet_v3_small").eval()
    found = sensitivity(model, [(torch.randn(2, 3, 32, 32), torch.arange(2))], blocks=["features.1[0-2].*"])
    counted = cost(model, (3, 32, 32), runs=0)
    assert found.se.parameters == counted.se.parameters
    blocks = {block.name: block for block in counted.blocks}
    for name, each in found.costs.items():
        assert each.parameters == blocks[name].parameters
        assert each.multiply_adds == blocks[name].multiply_adds
    shares = ("of_se", "of_network", "multiply_adds_of_se", "multiply_adds_of_network")
    assert all(0 < row[share] <= 1 for row in found.rows for share in shares)


def test_a_named_module_that_is_not_recognised_counts_as_se() -> None:
    loader = [(torch.randn(6, 6, 4, 4), torch.arange(6)) for _ in range(2)]
    found = sensitivity(Unmixed(), loader, blocks=["gate"])
    assert found.costs["gate"].parameters == found.se.parameters == 12
    assert all(row["of_se"] <= 1 for row in found.rows)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"blocks": ["neded"]}, OptionError, "no SE block has such a name.*Did you mean 'needed'"),
        ({"means": {"idle": torch.ones(16)}}, OptionError, "those of the block 'needed' are missing"),
        (
            {"means": {"idle": torch.ones(16), "needed": torch.ones(8)}},
            ShapeError,
            r"their shape is \(8,\)\. Allowed: \(16,\)",
        ),
        ({"means": {}, "recorded": images(4)}, OptionError, "both are given"),
        ({"recorded": iter(images(4))}, OptionError, "can be iterated only once"),
        ({"tolerance": 0.0}, OptionError, "tolerance=0.0.*Allowed: points of accuracy, above 0"),
    ],
)
def test_what_is_not_possible(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sensitivity(Gated(), images(8), **options)


def test_networks_without_se_and_images_without_any() -> None:
    plain = nn.Sequential(nn.Conv2d(16, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(OptionError, match="the network has no SE block"):
        sensitivity(plain, images(8))
    with pytest.raises(DataError, match="gives no images"):
        sensitivity(Gated(), [])
