from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch._C import _len_torch_dispatch_stack
from torch.nn import functional as F

from senet.analysis.products import Product, ProductWatch, product_of, product_within
from senet.errors import RecordingError
from senet.graph.attention import ChannelGate
from senet.graph.flow import Flow
from senet.graph.trace import Graph, trace


class Scaled(nn.Module):
    """Three products of maps, and one by a parameter of the same shape as the gates."""

    def __init__(self, gate_first: bool) -> None:
        super().__init__()
        self.gate_first = gate_first
        self.gamma = nn.Parameter(torch.full((1, 6, 1, 1), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.gamma
        x = x * x.sigmoid()
        s = x.amax((2, 3), keepdim=True).tanh()
        return (s * x if self.gate_first else x * s) * x.sigmoid()


def test_it_is_told_from_the_other_products_wherever_the_gates_stand() -> None:
    for gate_first in (False, True):
        model, x = Scaled(gate_first), torch.randn(1, 6, 5, 5)
        product = product_within(trace(model, x), "")
        assert product == Product("", 1, 3, 0 if gate_first else 1, 6, 2, 6, (5, 5))
        pairs: list[tuple[Tensor, Tensor]] = []
        wanted = model(x)
        watch = ProductWatch(model, product, lambda s, u, pairs=pairs: pairs.append((s, u)))  # type: ignore[misc]
        assert torch.equal(model(x), wanted)
        y = x * model.gamma
        y = y * y.sigmoid()
        ((s, u),) = pairs
        torch.testing.assert_close(u, y)
        torch.testing.assert_close(s, y.amax((2, 3)).tanh())
        watch.remove()
        model(x)
        assert len(pairs) == 1


def test_other_gates_take_the_place_of_those_computed() -> None:
    model, x = Scaled(False), torch.randn(2, 6, 5, 5)
    product = product_within(trace(model, x), "")
    assert product is not None
    ProductWatch(model, product, lambda s, u: torch.arange(6.0))
    y = x * model.gamma
    y = y * y.sigmoid()
    torch.testing.assert_close(model(x), y * torch.arange(6.0)[:, None, None] * y.sigmoid())


def test_a_module_without_such_a_product_has_none() -> None:
    assert product_within(trace(nn.Sequential(nn.SiLU()), torch.randn(2, 4, 5, 5)), "0") is None


class Distracting(nn.Module):
    """Products by constants and parameters of the gates' shape, and by the mask of a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(6))
        self.register_buffer("variance", torch.rand(6) + 0.5)
        self.dropout = nn.Dropout(0.5)
        self.dropout2d = nn.Dropout2d(0.5)
        self.gates: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.gamma.view(1, -1, 1, 1)
        x = x * torch.linspace(1, 2, 6)[None, :, None, None]
        x = x * (self.gamma.reshape(1, -1, 1, 1) * self.get_buffer("variance").view(1, -1, 1, 1).rsqrt())
        x = x * torch.ones(len(x), 6, 1, 1)
        x = self.dropout2d(self.dropout(x))
        x = F.dropout(x, 0.5, self.training)
        s = x.mean((2, 3)).sigmoid()
        self.gates.append(s.detach())
        return x * s[:, :, None, None]


def test_what_no_map_is_in_is_not_counted_whatever_its_shape() -> None:
    model = Distracting().eval()
    product = product_within(trace(model, torch.randn(2, 6, 5, 5)), "")
    assert product is not None
    assert (product.ordinal, product.among) == (0, 1)
    seen: list[Tensor] = []
    ProductWatch(model, product, lambda s, u: seen.append(s))
    for training in (False, True):
        for batch in (1, 3, 6):
            model.train(training)(torch.randn(batch, 6, 5, 5))
    torch.testing.assert_close(seen, model.gates)


def test_a_module_that_does_something_else_than_it_did_is_an_error() -> None:
    class Changing(nn.Module):
        again = False

        def forward(self, x: Tensor) -> Tensor:
            x = x * x.sigmoid() if self.again else x
            return x * x.mean((2, 3), keepdim=True).sigmoid()

    model = Changing()
    product = product_within(trace(model, torch.randn(2, 6, 5, 5)), "")
    assert product is not None
    ProductWatch(model, product, lambda s, u: None)
    model(torch.randn(2, 6, 5, 5))
    model.again = True
    with pytest.raises(RecordingError, match="multiplied 2 pairs of maps, and 1"):
        model(torch.randn(2, 6, 5, 5))
    assert _len_torch_dispatch_stack() == 0


def test_split_attention_has_gates_of_each_split() -> None:
    class Split(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            splits = torch.stack([x, 2 * x], 1)
            s = splits.mean((3, 4), keepdim=True).softmax(1)
            return (splits * s).sum(1)

    model, x = Split(), torch.randn(3, 6, 5, 5)
    splits = torch.stack([x, 2 * x], 1)
    s = splits.mean((3, 4)).softmax(1).flatten(1)
    product = product_of(Flow(graph := trace(model, x)), _gate(graph))
    assert (product.leading, product.channels, product.size) == (3, 12, (5, 5))
    pairs: list[tuple[Tensor, Tensor]] = []
    ProductWatch(model, product, lambda s, u: pairs.append((s, u)))
    wanted = model(x)
    torch.testing.assert_close(pairs[0], (s, splits.flatten(1, 2)))
    ProductWatch(model, product, lambda s, u: s)
    torch.testing.assert_close(model(x), wanted)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ValueError])
def test_nothing_goes_on_after_an_interruption(interruption: type[BaseException]) -> None:
    class Interrupted(nn.Module):
        stop = True

        def forward(self, x: Tensor) -> Tensor:
            out = x * x.mean((2, 3), keepdim=True).sigmoid()
            if self.stop:
                raise interruption
            return out

    model = Interrupted()
    x = torch.randn(2, 6, 5, 5)
    model.stop = False
    product, wanted = product_within(trace(model, x), ""), model(x)
    assert product is not None
    model.stop = True
    watch = ProductWatch(model, product, lambda s, u: torch.zeros(6))
    with pytest.raises(interruption):
        model(x)
    watch.remove()
    assert _len_torch_dispatch_stack() == 0
    model.stop = False
    assert torch.equal(model(x), wanted)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_copies_and_pickles_of_a_watched_network_show_nothing() -> None:
    model, x = Scaled(False), torch.randn(2, 6, 5, 5)
    product = product_within(trace(model, x), "")
    assert product is not None
    seen: list[Tensor] = []
    ProductWatch(model, product, lambda s, u: seen.append(s))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(copied(x), model(x))
    assert len(seen) == 2


def _gate(graph: Graph) -> ChannelGate:
    """The only product of a graph, as if it were recognised."""
    op = next(op for op in graph.ops if op.name == "mul" and len(op.inputs) == 2)
    return ChannelGate(op, op.inputs[0], op.inputs[1], frozenset(), "")
