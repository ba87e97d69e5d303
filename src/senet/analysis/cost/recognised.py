"""Finds the channel attention of a network also on images so small that its last maps have one position."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from torch import nn

from senet.errors import TraceError
from senet.graph.arithmetic import scaling_gates
from senet.graph.attention import ChannelGate
from senet.graph.examples import trace_with
from senet.graph.flow import Flow
from senet.graph.trace import Call, Graph, Op


class Recognised(NamedTuple):
    """The channel attention in a run of a network.

    Args:
        gates: in order.
        lost: the paths of modules that hold attention, or may, which is not among them.
    """

    gates: list[ChannelGate]
    lost: tuple[str, ...]


def recognised_gates(flow: Flow, model: nn.Module) -> Recognised:
    """The attention that scales its map, in this run of ``model``.

    A map of one position looks like gates. Where there are such, the network is followed at a usual size
    too, and what is found there is looked up here: the same operations of the same call of its module.

    Args:
        flow: of the run.
        model: the network, on any device.
    """
    own = scaling_gates(flow)
    found = {gate.op.index: gate for gate in own}
    unclear = [op for op in flow.graph.ops if op.index not in found and _is_unclear(flow.graph, op)]
    if not unclear:
        return Recognised(own, ())
    try:
        usual = Flow(trace_with(model, None)[0])
    except TraceError:
        return Recognised(own, tuple(dict.fromkeys(op.module for op in unclear)))
    lost: dict[str, None] = {}
    for gate in scaling_gates(usual):
        here = _found_again(gate, usual.graph, flow.graph)
        if here is not None:
            found.setdefault(here.op.index, here)
        elif gate.module not in {each.module for each in own}:
            lost[gate.module] = None
    return Recognised([found[index] for index in sorted(found)], tuple(lost))


def _is_unclear(graph: Graph, op: Op) -> bool:
    """Whether it is a product of two maps of one position."""
    shapes = [graph.shapes[value] for value in op.inputs]
    return (
        op.name == "mul"
        and len(op.inputs) == 2
        and shapes[0] == shapes[1]
        and len(shapes[0]) > 2
        and prod(shapes[0][-1 if len(shapes[0]) == 3 else -2 :]) == 1
    )


def _found_again(gate: ChannelGate, usual: Graph, graph: Graph) -> ChannelGate | None:
    """The attention of one run of a network in another; None where its module does not do the same there."""
    calls = [call for call in usual.calls if call.module == gate.module]
    others = [call for call in graph.calls if call.module == gate.module]
    for one, other in zip(calls, others, strict=False):
        inside = all(one.contains(index) for index in gate.ops)
        if inside and _names(usual, one) == _names(graph, other):
            further = other.first - one.first
            op = graph.ops[gate.op.index + further]
            position = gate.op.inputs.index(gate.gate)
            ops = frozenset(index + further for index in gate.ops)
            return ChannelGate(op, op.inputs[1 - position], op.inputs[position], ops, gate.module)
    return None


def _names(graph: Graph, call: Call) -> list[tuple[str, str]]:
    return [(op.name, op.module) for op in graph.ops[call.first : call.end]]
