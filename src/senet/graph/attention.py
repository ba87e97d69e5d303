"""Recognises channel attention that a network already has, by its arithmetic.

SE in any spelling: a map's average (or maximum) over all positions, a few layers that mix its
channels, a gate in (N, C, 1, 1), and the product with a map. Efficient channel attention, global
context (which adds) and split attention have the same shape and are found too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from senet.graph.flow import MATRIX, Flow
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
    """

    op: Op
    gated: int
    gate: int
    ops: frozenset[int]
    module: str


def channel_gates(flow: Flow) -> list[ChannelGate]:
    """The channel attention in a network, in order."""
    found = []
    for op in flow.graph.ops:
        if op.name not in ("mul", "add") or len(op.inputs) != 2:
            continue
        for gated, gate in (op.inputs, op.inputs[::-1]):
            ops = _excitation(flow, gated, gate)
            if ops is not None:
                module = _common(flow.graph.ops[index].module for index in (*ops, op.index))
                found.append(ChannelGate(op, gated, gate, ops | {op.index}, module))
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


def _positions(shape: tuple[int, ...]) -> int:
    return prod(shape[2:])


def _common(modules: Iterable[str]) -> str:
    """The innermost module that is around all of these."""
    paths = [module.split(".") if module else [] for module in modules]
    common: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)
