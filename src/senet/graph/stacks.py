"""Units without a sum or a concatenation: convolutions that follow each other in a known pattern."""

from __future__ import annotations

from collections.abc import Iterator

from senet.graph.attention import ChannelGate
from senet.graph.flow import MATRIX
from senet.graph.found import Found, Unit
from senet.graph.trace import Op


def inverted(found: Found) -> Iterator[Unit]:
    """MBConv where it changes size, so that nothing is added: spatial, activation, linear projection."""
    flow = found.flow
    for conv in flow.convs:
        if conv.index in found.taken or not flow.is_spatial(conv):
            continue
        middle, activated = flow.tail(conv)
        projection, gate = _next_conv(found, middle)
        if not activated or projection is None or flow.is_spatial(projection):
            continue
        leaving, activated_after = flow.tail(projection)
        narrows = flow.channels(middle) > flow.channels(leaving)
        if activated_after or not (narrows or flow.is_depthwise(conv)) or not _goes_on(found, leaving):
            continue
        start = _expansion(found, conv)
        ops = frozenset(op.index for op in flow.region(start, leaving) or ())
        if not ops & found.taken:
            yield Unit("inverted", start, (leaving,), leaving, ops, middle=middle, gate=gate)


def separable(found: Found) -> Iterator[Unit]:
    """MobileNet v1: depthwise, then pointwise with an activation."""
    flow = found.flow
    for pointwise in flow.convs:
        if pointwise.index in found.taken or flow.is_spatial(pointwise):
            continue
        leaving, activated = flow.tail(pointwise)
        depthwise = _depthwise_before(found, pointwise.inputs[0])
        if activated and depthwise:
            start = min(op.inputs[0] for op in depthwise)
            ops = frozenset(op.index for op in flow.region(start, leaving) or ())
            gate = found.gate_of(leaving) or found.gate_in(ops)
            yield Unit("separable", start, (leaving,), leaving, ops, middle=pointwise.inputs[0], gate=gate)


def parallel(found: Found) -> Iterator[Unit]:
    """RepVGG: a sum of linear convolutions of one input, followed by an activation."""
    flow = found.flow
    for op in flow.graph.ops:
        if not flow.is_sum(op) or not flow.is_map(op.outputs[0]):
            continue
        total = op.outputs[0]
        gate = found.gate_of(total)
        fork = flow.fork(found.terms(op))
        if fork is None or flow.activation_after(total if gate is None else gate.op.outputs[0]) is None:
            continue
        ops = flow.region(fork, total) or ()
        linear = all(flow.is_linear(each) or flow.is_sum(each) for each in ops)
        if linear and any(flow.is_conv(each) for each in ops):
            yield Unit("parallel", fork, (total,), total, frozenset(each.index for each in ops), gate=gate)


def plain(found: Found) -> Iterator[Unit]:
    """VGG: a convolution and its activation; what is only averaged and returned holds classes."""
    flow = found.flow
    for conv in flow.convs:
        leaving, activated = flow.tail(conv)
        if activated and not _is_output(found, leaving):
            ops = frozenset(op.index for op in flow.region(conv.inputs[0], leaving) or ())
            yield Unit("plain", conv.inputs[0], (leaving,), leaving, ops, gate=found.gate_of(leaving))


def _next_conv(found: Found, value: int) -> tuple[Op | None, ChannelGate | None]:
    """The convolution that alone reads a value, through the channel attention if there is one."""
    gate = found.gate_of(value)
    readers = found.flow.graph.consumers(value if gate is None else gate.op.outputs[0])
    alone = len(readers) == 1 and found.flow.is_conv(readers[0])
    return (readers[0] if alone else None), gate


def _goes_on(found: Found, value: int) -> bool:
    """Whether a convolution's result is used as a whole: it is neither in the head nor one term of many."""
    flow = found.flow
    readers = flow.graph.consumers(value)
    one_of_many = all(flow.is_sum(op) or flow.is_concatenation(op) for op in readers)
    return not one_of_many and not _is_output(found, value)


def _expansion(found: Found, conv: Op) -> int:
    """Where MBConv starts: before the pointwise expansion, if one leads to its spatial convolution."""
    flow = found.flow
    for op in reversed(flow.graph.ops[: conv.index]):
        if flow.is_conv(op) and not flow.is_spatial(op) and op.index not in found.taken:
            end, activated = flow.tail(op)
            if end == conv.inputs[0] and activated and flow.channels(end) > op.weight[1]:
                return op.inputs[0]
    return conv.inputs[0]


def _depthwise_before(found: Found, value: int) -> list[Op]:
    """The convolutions that a value is a norm, an activation or a sum of, if all are depthwise."""
    flow = found.flow
    depthwise, open_values = [], [value]
    while open_values:
        op = flow.graph.op_of(open_values.pop())
        if op is None or op.name in MATRIX or (flow.is_conv(op) and not flow.is_depthwise(op)):
            return []
        if flow.is_depthwise(op):
            depthwise.append(op)
        else:
            open_values.extend(op.inputs)
    return depthwise


def _is_output(found: Found, value: int) -> bool:
    """Whether a map is what the network returns, perhaps averaged: no layer reads it."""
    open_values, seen = [value], {value}
    while open_values:
        for op in found.flow.graph.consumers(open_values.pop()):
            if op.name == "convolution" or op.name in MATRIX:
                return False
            open_values += [each for each in op.outputs if each not in seen]
            seen.update(op.outputs)
    return True
