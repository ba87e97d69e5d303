"""How much a network computes, in multiply-adds."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import nn

from senet.graph.attention import channel_gates
from senet.graph.examples import trace_with
from senet.graph.flow import Flow
from senet.graph.trace import Example


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
    graph, _ = trace_with(model, example)
    flow = Flow(graph)
    batch = graph.shapes[0][0]

    def elements(value: int) -> int:
        return prod(graph.shapes[value])

    counts = (
        sum(op.products for op in graph.ops),
        sum(elements(op.outputs[0]) for op in graph.ops if flow.is_sum(op)),
        sum(elements(gate.gated) for gate in channel_gates(flow) if gate.op.name == "mul"),
    )
    return MultiplyAdds(*(count // batch for count in counts))
