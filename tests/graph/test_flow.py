import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.networks import HandSwish, Net, Unit, conv
from torch import Tensor, nn
from torch.nn import functional as F

from senet.graph.flow import Flow
from senet.graph.trace import Graph, Op, trace


def _graph(parents: list[tuple[int, ...]]) -> Graph:
    """Value 0 is the input; operation k makes value k + 1 of its parents."""
    shape = (1, 4, 8, 8)
    return Graph(
        shapes=[shape] * (len(parents) + 1),
        producer=[None, *range(len(parents))],
        ops=[Op(k, "add", values, (k + 1,), "") for k, values in enumerate(parents)],
    )


@st.composite
def _graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 9))
    return _graph(
        [
            tuple(draw(st.lists(st.integers(0, value), min_size=1, max_size=3, unique=True)))
            for value in range(count)
        ]
    )


def _paths(graph: Graph, start: int, end: int) -> list[tuple[int, ...]]:
    """All ways of values from ``start`` to ``end``, by brute force."""
    if start == end:
        return [(end,)]
    op = graph.op_of(end)
    if op is None or end < start:
        return []
    return [(*path, end) for value in op.inputs for path in _paths(graph, start, value)]


@given(_graphs())
def test_the_fork_is_the_last_value_that_everything_passes(graph: Graph) -> None:
    flow, last = Flow(graph), len(graph.shapes) - 1
    for ends in itertools.combinations(range(last + 1), 2):
        ways = [set(path) for end in ends for path in _paths(graph, 0, end)]
        assert flow.fork(ends) == max(set.intersection(*ways))


@given(_graphs())
def test_a_region_is_closed_and_cut_where_everything_passes(graph: Graph) -> None:
    flow, end = Flow(graph), len(graph.shapes) - 1
    for start in range(end):
        ops = flow.region(start, end)
        from_input = _paths(graph, 0, end)
        if ops is None:
            assert any(start not in path for path in from_input)
            continue
        assert all(start in path for path in from_input)
        ways = _paths(graph, start, end)
        assert {value for op in ops for value in op.outputs} == {v for path in ways for v in path} - {start}
        segments = flow.segments(start, end, ops)
        assert [segment.start for segment in segments] == [start, *(each.end for each in segments[:-1])]
        assert {each.end for each in segments} == set.intersection(*map(set, ways)) - {start}
        assert [op for segment in segments for op in segment.ops] == list(ops)


def test_another_input_opens_a_region() -> None:
    graph = _graph([(0,), (0, 1)])
    graph.shapes.append((1, 4, 8, 8))
    graph.producer.append(None)
    assert Flow(graph).region(1, 2) is None
    assert Flow(graph).fork([2, 3]) is None


@pytest.mark.parametrize(
    ("move", "dim"),
    [
        (lambda u: u, 1),
        (lambda u: u.permute(0, 2, 3, 1), 3),
        (lambda u: F.linear(u.permute(0, 2, 3, 1), torch.ones(6, 8)), 3),
        (lambda u: F.linear(u.permute(0, 2, 3, 1), torch.ones(6, 8)).permute(0, 3, 1, 2), 1),
        (lambda u: u.flatten(2), 1),
        (lambda u: u.flatten(2).transpose(1, 2), 2),
        (lambda u: u.view(2, 2, 4, 5, 5).transpose(1, 2).reshape(2, 8, 5, 5), 1),
        (lambda u: u.chunk(2, 1)[1], 1),
        (lambda u: torch.cat([u, u], 1), 1),
        (lambda u: F.layer_norm(u.permute(0, 2, 3, 1), (8,)), 3),
    ],
)
def test_which_dimension_holds_channels(move: object, dim: int) -> None:
    class Moves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return move(self.conv(x))  # type: ignore[operator, no-any-return]

    graph = trace(Moves(), torch.empty(2, 3, 5, 5))
    assert Flow(graph).channel_dim(graph.outputs[0]) == dim


def test_an_image_has_no_known_channels() -> None:
    graph = trace(nn.Sequential(nn.ReLU()), torch.empty(2, 3, 5, 5))
    assert Flow(graph).channel_dim(graph.outputs[0]) is None


def test_what_follows_a_convolution() -> None:
    graph = trace(Net(Unit()), torch.empty(2, 3, 6, 6))
    flow = Flow(graph)
    stem, first, second = flow.convs
    assert flow.tail(stem) == (graph.ops[1].outputs[0], True)
    assert flow.tail(first)[1]
    assert flow.tail(second) == (graph.ops[6].outputs[0], False), "a sum is not alone"


@pytest.mark.parametrize(
    "activation",
    [
        F.relu,
        F.hardswish,
        F.gelu,
        F.mish,
        F.relu6,
        lambda u: u * torch.sigmoid(u),
        lambda u: u * F.relu6(u + 3) / 6,
        lambda u: u * torch.tanh(F.softplus(u)),
        lambda u: u * torch.sigmoid(1.7 * u) / (u.var((2, 3), keepdim=True) + 1e-5).sqrt(),
    ],
)
def test_activations_in_any_spelling(activation: object) -> None:
    class Activates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c1, self.c2 = conv(3, 4), conv(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.c2(activation(self.c1(x)))  # type: ignore[operator, no-any-return]

    graph = trace(Activates(), torch.empty(2, 3, 6, 6))
    flow = Flow(graph)
    first, second = flow.convs
    assert flow.tail(first) == (second.inputs[0], True)


def test_a_gate_that_convolves_is_no_activation() -> None:
    class Gates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c1, self.c2 = conv(3, 4), conv(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            u = self.c1(x)
            return u * torch.sigmoid(self.c2(u))  # type: ignore[no-any-return]

    graph = trace(Gates(), torch.empty(2, 3, 6, 6))
    flow = Flow(graph)
    assert flow.activation_after(flow.convs[0].outputs[0]) is None


def test_kinds_of_convolution() -> None:
    model = nn.Sequential(conv(4, 4), conv(4, 4, 1), conv(4, 8, groups=4), HandSwish())
    graph = trace(model[:3], torch.empty(1, 4, 6, 6))
    flow = Flow(graph)
    assert [flow.is_spatial(op) for op in flow.convs] == [True, False, True]
    assert [flow.is_depthwise(op) for op in flow.convs] == [False, False, True]
    excitation = trace(conv(4, 4, 1), torch.empty(1, 4, 1, 1))
    assert Flow(excitation).convs == [], "a single position is no map"


def test_what_a_shortcut_may_do() -> None:
    class Linear(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.pad(F.avg_pool2d(x[:, :, ::2], 2) * 3, (1, 1))

    graph = trace(Linear(), torch.empty(1, 4, 8, 8))
    assert all(Flow(graph).is_linear(op) for op in graph.ops)

    class Part(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x[:, :2])

    graph = trace(Part(), torch.empty(1, 4, 8, 8))
    assert [Flow(graph).is_linear(op) for op in graph.ops] == [False, False]
