"""The units that a network is made of, found in its flow.

A unit is what the paper calls F_tr with its surroundings. The kinds, and what makes one:

- residual: a sum of a branch with a nonlinearity in it and of a linear shortcut of the same input.
- inverted: like that, or without the sum, with a spatial convolution at the wide place, followed by
  a linear projection (MBConv).
- inception: a concatenation of branches of one input, none of which is the input itself.
- dense: a concatenation of (part of) the input with what a branch computed from it; so are dual
  paths, a part of whose branch is added (DPN), and, among residual units, that of the pooled input
  with one branch (ShuffleNet v1).
- aggregation: a concatenation of successive results, and the convolution that follows it.
- parallel: a sum of linear convolutions of one input, followed by an activation (RepVGG).
- separable: a depthwise convolution, and a pointwise one with an activation (MobileNet v1).
- plain: a convolution and its activation (VGG).
"""

from __future__ import annotations

from senet.graph import stacks
from senet.graph.attention import channel_gates
from senet.graph.concatenations import find_in_concatenations
from senet.graph.flow import Flow
from senet.graph.found import Found
from senet.graph.sums import find_in_sums
from senet.graph.trace import Graph


def find_units(graph: Graph) -> Found:
    """The units of a network.

    Sums and concatenations decide, then MBConv. Separable convolutions are units where most of the
    network is made of them; a network with none of all these is a stack of parallel or plain
    convolutions, unless something in it is not understood.
    """
    flow = Flow(graph)
    gates = channel_gates(flow)
    flow.attention = frozenset(index for gate in gates for index in gate.ops)
    found = Found(flow, gates)
    find_in_sums(found)
    find_in_concatenations(found)
    for unit in stacks.inverted(found):
        found.add(unit)
    separable = list(stacks.separable(found))
    if len(separable) > len(found.units):
        found.units += separable
    for stack in (stacks.parallel, stacks.plain):
        if not found.units and all(other.harmless for other in found.others):
            found.units += stack(found)
    found.taken = {index for unit in found.units for index in unit.ops}
    found.others = [other for other in found.others if other.op.index not in found.taken]
    found.units.sort(key=lambda unit: unit.leaving)
    return found
