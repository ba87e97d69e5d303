import pytest
import torch
from tests.networks import Net, UNet, Unit, conv
from torch import Tensor, nn
from torch.nn import functional as F

from senet.graph.found import Found
from senet.graph.trace import trace
from senet.graph.units import find_units


class _Module(nn.Module):
    """A concatenation of two or three things."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.a, self.b = how, conv(16, 16), conv(16, 16, 1)
        self.c, self.d = conv(8, 8), conv(48, 16)

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.a(x))
        if self.how == "inception":
            return torch.cat([first, F.relu(self.b(x)), F.max_pool2d(x, 3, 1, 1)], 1)
        if self.how == "dense":
            return torch.cat([x, first], 1)
        if self.how == "halves":
            one, other = x.chunk(2, 1)
            return torch.cat([one, F.relu(self.c(other))], 1)
        if self.how in ("aggregation", "chain"):
            second = F.relu(self.b(first))
            results = torch.cat([x, first, second], 1)
            return F.relu(self.d(results)) if self.how == "aggregation" else results
        return torch.cat([x, F.max_pool2d(x, 3, 1, 1)], 1)


def _found(how: str, *before: nn.Module) -> Found:
    leaving = {"inception": 48, "chain": 48, "halves": 16, "aggregation": 16}.get(how, 32)
    return find_units(trace(Net(*before, _Module(how), leaving=leaving), torch.empty(2, 3, 8, 8)))


@pytest.mark.parametrize("how", ["inception", "dense", "halves", "aggregation"])
def test_kinds_of_concatenation(how: str) -> None:
    found = _found(how)
    (unit,) = found.units
    kind = "dense" if how == "halves" else how
    graph = found.flow.graph
    assert unit.kind == kind
    gated = unit.branches[0] if kind == "dense" else unit.leaving
    assert graph.op_of(gated).name == ("cat" if how == "inception" else "relu")  # type: ignore[union-attr]
    assert graph.shapes[gated][1] == {"inception": 48, "dense": 16, "halves": 8, "aggregation": 16}[how]


@pytest.mark.parametrize(
    ("how", "reason"), [("chain", "no convolution follows"), ("pool", "nothing is convolved")]
)
def test_concatenations_that_are_no_units_say_why(how: str, reason: str) -> None:
    (other,) = _found(how).others
    assert reason in other.reason


def test_between_residual_units_it_is_no_inception_module() -> None:
    found = _found("inception", Unit())
    assert [unit.kind for unit in found.units] == ["residual"]
    assert [other.reason for other in found.others] == ["it stands between the residual units"]


class _Downsampling(nn.Module):
    """A pooled shortcut beside a branch, as in ShuffleNet v1."""

    def __init__(self, stride: int, *, linear: bool = False) -> None:
        super().__init__()
        self.c1, self.c2 = conv(16, 16), conv(16, 16, stride=stride)
        self.stride, self.linear = stride, linear

    def forward(self, x: Tensor) -> Tensor:
        u = self.c1(x) if self.linear else F.relu(self.c1(x))
        return torch.cat([F.avg_pool2d(x, 3, self.stride, 1), self.c2(u)], 1)


def test_between_residual_units_a_pooled_shortcut_beside_a_branch_is_a_units() -> None:
    graph = trace(Net(Unit(), _Downsampling(2), leaving=32), torch.empty(2, 3, 8, 8))
    residual, dense = find_units(graph).units
    assert (residual.kind, dense.kind) == ("residual", "dense")
    (gated,) = dense.branches
    assert graph.op_of(gated).module == "units.1.c2"  # type: ignore[union-attr]
    assert dense.entering == residual.leaving


@pytest.mark.parametrize("other", [_Downsampling(1), _Downsampling(2, linear=True)])
def test_between_residual_units_what_keeps_its_size_or_is_linear_is_no_unit(other: nn.Module) -> None:
    """HGNetV2's stem is the one, ENet's first block and ERFNet's reductions are the other."""
    found = find_units(trace(Net(Unit(), other, leaving=32), torch.empty(2, 3, 8, 8)))
    assert [unit.kind for unit in found.units] == ["residual"]
    assert [other.reason for other in found.others] == ["it stands between the residual units"]


class _DenseBlock(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(conv(16 + 4 * k, 4) for k in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(F.relu(torch.cat(features, 1))))
        return torch.cat(features, 1)


def test_each_layer_of_a_dense_block_is_a_unit_once() -> None:
    graph = trace(Net(_DenseBlock(4), leaving=32), torch.empty(2, 3, 8, 8))
    found = find_units(graph)
    assert [unit.kind for unit in found.units] == ["dense"] * 4
    makers = [graph.op_of(unit.branches[0]).module for unit in found.units]  # type: ignore[union-attr]
    assert makers == [f"units.0.layers.{k}" for k in range(4)]
    assert len(frozenset().union(*(unit.ops for unit in found.units))) == sum(
        len(unit.ops) for unit in found.units
    )


class _DualPath(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = conv(16, 8), conv(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        both = self.c2(F.relu(self.c1(F.relu(x))))
        added = x[:, :12] + both[:, :12]
        return torch.cat([added, x[:, 12:], both[:, 12:]], 1)


def test_dual_paths_are_gated_as_one() -> None:
    graph = trace(Net(_DualPath(), leaving=20), torch.empty(2, 3, 8, 8))
    (unit,) = find_units(graph).units
    assert graph.op_of(unit.branches[0]).module == "units.0.c2"  # type: ignore[union-attr]


def test_an_encoders_map_joined_to_a_decoders_is_no_unit() -> None:
    found = find_units(trace(UNet(), torch.empty(2, 3, 8, 8)))
    assert [unit.kind for unit in found.units] == ["plain"] * 3
    assert [other.reason for other in found.others] == ["it joins an encoder's map to a decoder's"]
