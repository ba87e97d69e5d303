"""How much a network computes, in multiply-adds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from torch import nn

from senet.graph.attention import ChannelGate, channel_gates
from senet.graph.examples import trace_with
from senet.graph.flow import Flow
from senet.graph.trace import Example, Op


@dataclass(frozen=True)
class MultiplyAdds:
    """The multiply-adds of one image; the paper prints them as FLOPs.

    Args:
        products: of convolutions and matrix products, those of SE included.
        sums: one for each element of two maps that are added.
        scales: one for each element that a gate is multiplied to.
    """

    products: int
    sums: int
    scales: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.products + self.sums + self.scales


def multiply_adds(model: nn.Module, example: Example | None = None) -> MultiplyAdds:
    """Counts what ``model`` computes, without computing it.

    Norms, activations, poolings and the squeeze are not counted. The paper does not say what it counts;
    docs/paper.md compares.

    Args:
        model: any network, on any device, "meta" included.
        example: what it is called with; None: the usual sizes are tried.

    Raises:
        TraceError: it does not run on the example, or on a usual size.
    """
    flow = Flow(trace_with(model, example)[0])
    return counted(flow, flow.graph.ops, scaling_gates(flow))


def counted(flow: Flow, ops: Iterable[Op], gates: Iterable[ChannelGate]) -> MultiplyAdds:
    """Those of some operations of a network, and of the scaling by some of its gates, for one image."""
    graph = flow.graph
    chosen = list(ops)
    counts = (
        sum(op.products for op in chosen),
        sum(prod(graph.shapes[op.outputs[0]]) for op in chosen if flow.is_sum(op)),
        sum(prod(graph.shapes[gate.gated]) for gate in gates),
    )
    return MultiplyAdds(*(count // graph.shapes[0][0] for count in counts))


def scaling_gates(flow: Flow) -> list[ChannelGate]:
    """The channel attention that multiplies its map, as SE does; some adds to it."""
    return [gate for gate in channel_gates(flow) if gate.op.name == "mul"]
