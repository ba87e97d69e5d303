import pytest
import torch
from tests.networks import Net, SqueezeByHand, Unit
from timm import layers
from torch import Tensor, nn
from torch.nn import functional as F

import senet
from senet.graph.attention import ChannelGate, channel_gates
from senet.graph.flow import Flow
from senet.graph.trace import trace


class _Then(nn.Module):
    """A convolution, and what is in question."""

    def __init__(self, inner: nn.Module, channels: int = 16) -> None:
        super().__init__()
        self.conv, self.inner = nn.Conv2d(3, channels, 1), inner

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(self.conv(x))
        return result


def _of_timm(name: str) -> type[nn.Module]:
    kind: type[nn.Module] = getattr(layers, name)
    return kind


def _gates(model: nn.Module) -> list[ChannelGate]:
    return channel_gates(Flow(trace(model, torch.empty(2, 3, 12, 12))))


@pytest.mark.parametrize("squeeze", ["avg", "max", "none"])
@pytest.mark.parametrize("gate", ["sigmoid", "tanh", "relu", "hardsigmoid"])
@pytest.mark.parametrize("init", ["random", "identity"])
def test_our_block_is_found(squeeze: str, gate: str, init: str) -> None:
    (found,) = _gates(_Then(senet.SqueezeExcitation(16, squeeze=squeeze, gate=gate, init=init)))
    assert found.module == "inner"
    assert found.squeezed == (squeeze != "none")


@pytest.mark.parametrize(
    "attention",
    [
        _of_timm("SEModule")(16),
        _of_timm("EffectiveSEModule")(16),
        _of_timm("EcaModule")(16),
        _of_timm("GlobalContext")(16),
        _of_timm("SelectiveKernel")(16, 16),
        _of_timm("SplitAttn")(16, 16),
    ],
    ids=lambda module: type(module).__name__,
)
def test_other_libraries_channel_attention_is_found(attention: nn.Module) -> None:
    (found,) = _gates(_Then(attention))
    assert found.module.startswith("inner")


def test_a_squeeze_by_hand_is_found() -> None:
    model = Net(SqueezeByHand())
    graph = trace(model, torch.empty(2, 3, 12, 12))
    flow = Flow(graph)
    (found,) = channel_gates(flow)
    assert found.module == "units.0"
    assert graph.op_of(found.gated).name == "relu"  # type: ignore[union-attr]
    assert {graph.ops[index].name for index in found.ops} >= {"mean", "sigmoid", "mul"}


class _Each(nn.Module):
    """A map, and what layers make of each of its positions."""

    def __init__(self, *layers: nn.Module, how: str = "mul") -> None:
        super().__init__()
        self.layers, self.how = nn.Sequential(*layers), how

    def forward(self, u: Tensor) -> Tensor:
        s: Tensor = self.layers(u)
        return u + s if self.how == "add" else u * s


def _pointwise(entering: int = 16, leaving: int = 16, **options: int) -> nn.Module:
    return nn.Conv2d(entering, leaving, 1, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("hidden", [nn.ReLU(), nn.SiLU()])
def test_se_without_its_squeeze_is_found_in_any_spelling(hidden: nn.Module) -> None:
    (found,) = _gates(_Then(_Each(_pointwise(16, 4), hidden, _pointwise(4, 16), nn.Sigmoid())))
    assert not found.squeezed
    assert found.module == "inner"


@pytest.mark.parametrize(
    "inner",
    [
        _Each(_pointwise(16, 4), nn.ReLU(), _pointwise(4, 16), how="add"),
        _Each(_pointwise(), nn.Sigmoid()),
        _Each(_pointwise(), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.Sigmoid()),
        _Each(_pointwise(), nn.ReLU(), _pointwise(groups=16), nn.Sigmoid()),
        _Each(_pointwise(), nn.MaxPool2d(3, 1, 1), _pointwise(), nn.Sigmoid()),
        _Each(_pointwise(), _pointwise(), _pointwise(), nn.Sigmoid()),
        _Each(nn.SiLU()),
    ],
    ids=["a branch", "one layer", "3x3", "grouped", "pooled", "three layers", "an activation"],
)
def test_other_products_of_maps_are_not(inner: nn.Module) -> None:
    assert _gates(_Then(inner)) == []


class _Modulated(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.conv = how, nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, u: Tensor) -> Tensor:
        if self.how == "norm":
            return u * torch.rsqrt(u.square().mean((2, 3), keepdim=True) + 1e-5)
        if self.how == "spatial":
            return u * torch.sigmoid(self.conv(u))
        return u * F.softmax(u, 1)


@pytest.mark.parametrize("how", ["norm", "spatial", "softmax"])
def test_norms_and_spatial_attention_are_something_else(how: str) -> None:
    assert _gates(_Then(_Modulated(how))) == []


def test_a_plain_unit_has_none() -> None:
    assert _gates(Net(Unit())) == []
