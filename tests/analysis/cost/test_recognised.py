import pytest
import torch
from torch import Tensor, nn

from senet.analysis.cost.recognised import Recognised, recognised_gates
from senet.graph.examples import trace_with
from senet.graph.flow import Flow


class Attention(nn.Module):
    """Attention whose product is in a module of its own, or in the network's forward."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        s: Tensor = self.mix(x.mean((2, 3), keepdim=True)).sigmoid()
        return x * s


class Padded(Attention):
    """It does more on small maps."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] == 1:
            x = x.relu()
        return super().forward(x)


class Network(nn.Module):
    """Two attentions, the second on a map of a quarter of the size, between them a product that is none."""

    def __init__(self, second: nn.Module, *, only: int = 0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.first = Attention()
        self.down = nn.Conv2d(6, 6, 4, stride=4)
        self.second = second
        self.only = only

    def forward(self, x: Tensor) -> Tensor:
        if self.only and x.shape[-1] != self.only:
            raise ValueError("not of this size")
        y = self.down(self.first(self.stem(x)))
        return self.second(self.second(y * y.sigmoid()))  # type: ignore[no-any-return]


class InForward(nn.Module):
    """Attention that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.mix = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stem(x)
        s: Tensor = self.mix(y.mean((2, 3), keepdim=True)).sigmoid()
        return y * s


def _found(model: nn.Module, size: int) -> tuple[Flow, Recognised]:
    flow = Flow(trace_with(model, torch.empty(1, 3, size, size, device="meta"))[0])
    return flow, recognised_gates(flow, model)


@pytest.mark.parametrize("size", [4, 8, 64])
def test_attention_on_one_position_is_that_of_a_usual_size(size: int) -> None:
    model = Network(Attention())
    flow, found = _found(model, size)
    assert [gate.module for gate in found.gates] == ["first", "second", "second"]
    assert found.lost == ()
    for gate in found.gates:
        assert gate.op.name == "mul"
        assert gate.op.inputs == (gate.gated, gate.gate)
        assert flow.graph.shapes[gate.gated][2:] == (
            (size,) * 2 if gate.module == "first" else (size // 4,) * 2
        )
        assert [flow.graph.ops[index].name for index in sorted(gate.ops)] == [
            "mean",
            "convolution",
            "sigmoid",
            "mul",
        ]
        names = {name for index in gate.ops for name in flow.graph.ops[index].parameters}
        assert names == {f"{gate.module}.mix.weight", f"{gate.module}.mix.bias"}


def test_attention_in_the_forward_of_the_network() -> None:
    _, found = _found(InForward(), 4)
    assert [gate.module for gate in found.gates] == [""]
    assert len(found.gates[0].ops) == 4
    assert found.lost == ()


def test_what_does_something_else_on_small_maps_is_named() -> None:
    _, found = _found(Network(Padded()), 4)
    assert [gate.module for gate in found.gates] == ["first"]
    assert found.lost == ("second",)


def test_what_may_be_attention_is_named_where_no_usual_size_runs() -> None:
    _, found = _found(Network(Attention(), only=4), 4)
    assert [gate.module for gate in found.gates] == ["first"]
    assert "second" in found.lost
