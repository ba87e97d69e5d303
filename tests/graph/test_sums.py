import pytest
import torch
from tests.networks import SUMS, Bottleneck, Mixture, Nested, Net, SqueezeByHand, Unit, conv
from torch import Tensor, nn
from torch.nn import functional as F

from senet.graph.found import Found
from senet.graph.trace import trace
from senet.graph.units import find_units


def _found(*units: nn.Module, **widths: int) -> Found:
    return find_units(trace(Net(*units, **widths), torch.empty(2, 3, 16, 16)))


@pytest.mark.parametrize("how", SUMS)
def test_a_residual_unit_in_any_spelling(how: str) -> None:
    found = _found(Unit(how=how))
    (unit,) = found.units
    graph = found.flow.graph
    assert unit.kind == "residual"
    assert unit.shortcut == unit.entering
    maker = graph.op_of(unit.branches[0])
    assert maker is not None
    assert maker.module == ("units.0.b2" if how != "scaled" else "units.0")
    assert graph.op_of(unit.leaving).name == "relu"  # type: ignore[union-attr]
    assert unit.middle is None
    assert found.others == []


def test_a_bottleneck_with_and_without_projection() -> None:
    found = _found(Bottleneck(16, 32, 2), Bottleneck(32, 32), leaving=32)
    first, second = found.units
    graph = found.flow.graph
    assert [unit.kind for unit in found.units] == ["residual", "residual"]
    assert graph.op_of(first.shortcut or 0).module == "units.0.project.1"  # type: ignore[union-attr]
    assert second.shortcut == second.entering == first.leaving
    for unit, name in ((first, "units.0"), (second, "units.1")):
        assert graph.op_of(unit.middle or 0).module == f"{name}.relu"  # type: ignore[union-attr]
        assert found.flow.channels(unit.middle or 0) == 8


def test_nested_units_are_the_inner_ones() -> None:
    found = _found(Nested())
    assert [found.flow.graph.ops[min(unit.ops)].module for unit in found.units] == [
        "units.0.a.c1",
        "units.0.b.c1",
    ]
    assert [other.reason for other in found.others] == [
        "its branch holds units of its own, which have their places"
    ]


@pytest.mark.parametrize("together", [True, False])
def test_several_branches(together: bool) -> None:
    (unit,) = _found(Mixture(together)).units
    assert len(unit.branches) == (1 if together else 2)


def test_attention_in_the_branch_is_noted() -> None:
    (unit,) = _found(SqueezeByHand()).units
    assert unit.gate is not None


class _Inverted(nn.Module):
    def __init__(self, depthwise: bool, wide: int) -> None:
        super().__init__()
        self.expand, self.project = conv(16, wide, 1), conv(wide, 16, 1)
        self.spatial = conv(wide, wide, groups=wide if depthwise else 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(F.relu(self.spatial(F.relu(self.expand(x)))))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("depthwise", "wide", "kind"),
    [(True, 32, "inverted"), (False, 32, "inverted"), (True, 16, "inverted"), (False, 16, "residual")],
)
def test_what_makes_a_unit_inverted(depthwise: bool, wide: int, kind: str) -> None:
    found = _found(_Inverted(depthwise, wide))
    (unit,) = found.units
    assert unit.kind == kind
    assert found.flow.graph.shapes[unit.middle or 0][1] == wide


class _ConvNext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dw, self.norm = conv(16, 16, 7, groups=16), nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.down(F.gelu(self.up(self.norm(self.dw(x).permute(0, 2, 3, 1)))))
        return x + branch.permute(0, 3, 1, 2)  # type: ignore[no-any-return]


def test_a_wide_place_without_a_spatial_convolution_is_a_residual_unit() -> None:
    (unit,) = _found(_ConvNext()).units
    assert unit.kind == "residual"


class _Sum(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.a, self.b, self.pool = how, conv(16, 16), conv(16, 16, 1), nn.AvgPool2d(3, 1, 1)
        self.q = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "parallel":
            return self.a(x) + self.b(x)  # type: ignore[no-any-return]
        if self.how == "two branches":
            return F.relu(self.a(x)) + F.relu(self.b(x))
        if self.how == "pool":
            return x + F.relu(self.pool(x))
        tokens = self.q(x.flatten(2).transpose(1, 2))
        mixed = F.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).reshape(x.shape)
        return x + self.a(mixed)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("parallel", "all its terms are linear"),
        ("two branches", "none of which is the identity"),
        ("pool", "no convolution of a map"),
        ("attention", "attention between positions"),
    ],
)
def test_sums_that_are_no_units_say_why(how: str, reason: str) -> None:
    found = _found(Unit(), _Sum(how))
    assert len(found.units) == 1
    (other,) = found.others
    assert reason in other.reason


def test_tokens_are_no_maps() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    found = find_units(trace(layer, torch.empty(2, 9, 16)))
    assert found.units == []
    assert {other.reason.split(":")[0] for other in found.others} == {
        "its sum is not one of maps with channels first"
    }
