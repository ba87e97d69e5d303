"""Recognises channel attention that a network already has, by its arithmetic.

SE in any spelling: a map's average (or maximum) over all positions, a few layers that mix its
channels, a gate in (N, C, 1, 1), and the product with a map. Efficient channel attention, global
context (which adds) and split attention have the same shape and are found too. So is SE without its squeeze
(Table 16): a map times what two pointwise layers make of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from senet.graph.flow import ACTIVATIONS, ARITHMETIC, MATRIX, MOVES, Flow
from senet.graph.trace import Op

# Enough for any excitation, with norms and splits.
_LONGEST = 60


@dataclass(frozen=True)
class ChannelGate:
    """One product (or sum) of a map with a number per sample and channel.

    Args:
        op: the operation.
        gated: the map.
        gate: the numbers.
        ops: all operations of the attention, by index.
        module: the innermost module that the attention as a whole is in.
        squeezed: whether there is one number for all positions; without a squeeze each has its own.
    """

    op: Op
    gated: int
    gate: int
    ops: frozenset[int]
    module: str
    squeezed: bool = True


def channel_gates(flow: Flow) -> list[ChannelGate]:
    """The channel attention in a network, in order."""
    found = []
    for op in flow.graph.ops:
        if op.name not in ("mul", "add") or len(op.inputs) != 2:
            continue
        for gated, gate in (op.inputs, op.inputs[::-1]):
            ops = _excitation(flow, gated, gate)
            squeezed = ops is not None
            if ops is None and op.name == "mul":
                ops = _at_each_position(flow, gated, gate)
            if ops is not None:
                module = innermost(flow.graph.ops[index].module for index in (*ops, op.index))
                found.append(ChannelGate(op, gated, gate, ops | {op.index}, module, squeezed))
                break
    return found


def _excitation(flow: Flow, gated: int, gate: int) -> frozenset[int] | None:
    """The operations that make the gate from a map, if it is one."""
    shapes = flow.graph.shapes
    maker = flow.graph.op_of(gate)
    if maker is not None and maker.name == "expand":
        gate = maker.inputs[0]
    rank = len(shapes[gated])
    if rank < 3 or len(shapes[gate]) != rank or shapes[gate][1] == 1:
        return None
    # Split attention has its splits in a dimension of their own, before the channels.
    trailing = slice(-1 if rank == 3 else -2, None)
    if prod(shapes[gate][trailing]) > 1 or prod(shapes[gated][trailing]) == 1:
        return None
    ops: set[int] = set()
    mixed = squeezed = False
    values = [gate]
    while values and len(ops) < _LONGEST:
        op = flow.graph.op_of(values.pop())
        if op is None or op.index in ops:
            continue
        ops.add(op.index)
        mixed |= op.name == "convolution" or op.name in MATRIX
        if any(_positions(shapes[value]) > 1 for value in op.inputs) and _reduces(flow, op):
            squeezed = True
        else:
            values.extend(op.inputs)
    return frozenset(ops) if mixed and squeezed and not values else None


def _reduces(flow: Flow, op: Op) -> bool:
    """Whether it makes one number of all positions."""
    shapes = flow.graph.shapes
    return (
        any(word in op.name for word in ("mean", "amax", "max", "pool", "sum", "bmm", "std", "var"))
        and prod(shapes[op.outputs[0]]) * 2 <= prod(shapes[op.inputs[0]])
        and op.name != "add"
    )


def _at_each_position(flow: Flow, gated: int, gate: int) -> frozenset[int] | None:
    """The operations that make gates of a map at each position by itself, if it is that."""
    shapes = flow.graph.shapes
    if gated == gate or shapes[gated] != shapes[gate] or not flow.is_map(gated):
        return None
    ops = flow.region(gated, gate) or ()
    layers = sum(op.name == "convolution" or op.name in MATRIX for op in ops)
    return frozenset(op.index for op in ops) if layers == 2 and all(map(_is_local, ops)) else None


def _is_local(op: Op) -> bool:
    """Whether what it gives at a position is made of that position alone."""
    if op.name == "convolution":
        return prod(op.weight[2:]) == op.groups == 1
    if op.name in ARITHMETIC:
        return len(op.inputs) == 1
    return op.name in ACTIVATIONS or op.name in MOVES or op.name in ("mm", "addmm", "linear")


def _positions(shape: tuple[int, ...]) -> int:
    return prod(shape[2:])


def innermost(modules: Iterable[str]) -> str:
    """The innermost module that is around all of these."""
    paths = [module.split(".") if module else [] for module in modules]
    common: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)
