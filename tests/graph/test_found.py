import torch
from tests.networks import Net, SqueezeByHand, Unit
from torch import Tensor, nn
from torch.nn import functional as F

from senet.graph.attention import channel_gates
from senet.graph.flow import Flow
from senet.graph.found import Found
from senet.graph.found import Unit as FoundUnit
from senet.graph.trace import trace


def _found(model: nn.Module, *shape: int) -> Found:
    flow = Flow(trace(model, torch.empty(*shape)))
    gates = channel_gates(flow)
    flow.attention = frozenset(index for gate in gates for index in gate.ops)
    return Found(flow, gates)


def test_a_units_operations_are_taken() -> None:
    found = _found(Unit(4), 1, 4, 6, 6)
    found.add(FoundUnit("residual", 0, (1,), 2, frozenset({0, 1})))
    assert found.taken == {0, 1}
    found.leave(found.flow.graph.ops[5], "why", harmless=True)
    assert [(other.op.name, other.reason, other.harmless) for other in found.others] == [("add", "why", True)]


def test_gates_by_what_they_gate_and_where_they_are() -> None:
    found = _found(Net(SqueezeByHand()), 2, 3, 8, 8)
    (gate,) = found.gates
    assert found.gate_of(gate.gated) == gate
    assert found.gate_of(gate.gated + 1) is None
    assert found.gate_in({gate.op.index}) == gate
    assert found.gate_in({0}) is None


def test_the_terms_of_a_sum_of_any_number() -> None:
    class Sums(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a, b, c = x * 2, x * 3, x * 4
            kept = a + b
            return (c + (x + kept)) * kept

    found = _found(Sums(), 1, 2, 3, 3)
    ops = found.flow.graph.ops
    sums = [op for op in ops if found.flow.is_sum(op)]
    assert len(sums) == 3
    assert list(found.terms(sums[-1])) == [ops[2].outputs[0], 0, sums[0].outputs[0]]


def test_softmax_over_positions_is_self_attention_and_over_channels_is_not() -> None:
    class Attends(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, x, x)

    found = _found(Attends(), 1, 2, 5, 4)
    assert found.has_self_attention(found.flow.graph.ops)
    assert not _found(Unit(4), 1, 4, 6, 6).has_self_attention(trace(Unit(4), torch.empty(1, 4, 6, 6)).ops)


def test_an_activation_counts_where_it_is_in_the_same_module() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x * 2

    inside, outside = _found(Unit(4), 1, 4, 6, 6), _found(nn.Sequential(Sum(), nn.ReLU()), 1, 4, 6, 6)
    for found, activated in ((inside, True), (outside, False)):
        total = next(op for op in found.flow.graph.ops if found.flow.is_sum(op))
        assert (found.activated(total) != total.outputs[0]) is activated
