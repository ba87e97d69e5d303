"""Units that end in a concatenation: Inception modules, dense layers, dual paths, aggregations."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from senet.graph.flow import SLICES
from senet.graph.found import Found, Unit
from senet.graph.trace import Op


def find_in_concatenations(found: Found) -> None:
    """Adds the units; where there are residual units, what stands between those is no Inception module."""
    flow, graph = found.flow, found.flow.graph
    residual = bool(found.units)
    # Backwards: what is inside another concatenation's unit is a part of it. What dense layers
    # compute is concatenated many times, and is taken only when all is seen.
    inside_others: set[int] = set()
    dense: dict[int, Unit] = {}
    for op in reversed(graph.ops):
        if not flow.is_concatenation(op) or op.index in found.taken or op.index in inside_others:
            continue
        fork = flow.fork(op.inputs)
        if fork is None:
            found.leave(op, "its parts do not come from one tensor")
            continue
        regions = {value: flow.region(fork, value) or () for value in op.inputs}
        ops = [each for region in regions.values() for each in region]
        inside = {each.index for each in ops}
        if inside & found.taken:
            found.leave(op, "it is around units, which have their places")
        elif _returns_from_below(found, ops, op):
            found.leave(op, "it joins an encoder's map to a decoder's", harmless=True)
        elif not any(flow.is_conv(each) for each in ops):
            found.leave(op, "nothing is convolved between its fork and itself", harmless=True)
        elif found.has_self_attention(ops):
            found.leave(op, "it is around attention between positions")
        else:
            inside_others |= _look_at(found, op, fork, regions, inside, residual, dense)
    for unit in dense.values():
        found.add(unit)


def _returns_from_below(found: Found, ops: Iterable[Op], op: Op) -> bool:
    """Whether a part was at a lower resolution on its way."""
    flow = found.flow
    positions = prod(flow.spatial(op.outputs[0]))
    return any(
        flow.is_map(value) and prod(flow.spatial(value)) < positions and each.index not in flow.attention
        for each in ops
        for value in each.outputs
    )


def _look_at(
    found: Found,
    op: Op,
    fork: int,
    regions: dict[int, tuple[Op, ...]],
    inside: set[int],
    residual: bool,
    dense: dict[int, Unit],
) -> set[int]:
    """Adds the unit, or the dense units, that end here; returns the operations that are its parts."""
    identities = [value for value, ops in regions.items() if all(_keeps(each) for each in ops)]
    branches = [value for value in regions if value not in identities]
    if _is_chain(found, branches):
        _aggregation(found, op, fork, inside)
        return inside
    if _is_dual_path(found, op):
        branches = _dual_path(found, op, fork)
    elif not identities and residual and not _is_downsampling(found, op, fork, regions):
        found.leave(op, "it stands between the residual units")
        return inside
    elif not identities and not residual:
        leaving = found.activated(op)
        ops = inside | {op.index} | {each.index for each in found.flow.region(op.outputs[0], leaving) or ()}
        found.add(Unit("inception", fork, (), leaving, frozenset(ops), gate=found.gate_in(ops)))
        return inside
    for value in branches:
        start = _start_of(found, value, op, fork)
        ops = {each.index for each in found.flow.region(start, value) or ()}
        if value not in dense and any(found.flow.is_conv(found.flow.graph.ops[index]) for index in ops):
            dense[value] = Unit("dense", start, (value,), value, frozenset(ops), gate=found.gate_in(ops))
    return set()


def _is_downsampling(found: Found, op: Op, fork: int, regions: dict[int, tuple[Op, ...]]) -> bool:
    """Whether it is a residual unit that puts its pooled shortcut beside its branch, which is not linear."""
    flow = found.flow
    convolved = [ops for ops in regions.values() if any(flow.is_conv(each) for each in ops)]
    return (
        2 * prod(flow.spatial(op.outputs[0])) <= prod(flow.spatial(fork))
        and len(convolved) == 1
        and not all(flow.is_linear(each) for each in convolved[0])
    )


def _keeps(op: Op) -> bool:
    """Whether its result is (a part of) what it was given."""
    return op.name in SLICES or op.name in ("alias", "detach", "view")


def _is_chain(found: Found, branches: list[int]) -> bool:
    """Whether some parts are computed from others alone."""
    return any(
        earlier < later and found.flow.region(earlier, later) is not None
        for later in branches
        for earlier in branches
    )


def _aggregation(found: Found, op: Op, fork: int, inside: set[int]) -> None:
    flow = found.flow
    readers = flow.graph.consumers(op.outputs[0])
    if len(readers) != 1 or not flow.is_conv(readers[0]):
        found.leave(op, "it gathers successive results and no convolution follows")
        return
    leaving, _ = flow.tail(readers[0])
    ops = inside | {op.index} | {each.index for each in flow.region(op.outputs[0], leaving) or ()}
    found.add(Unit("aggregation", fork, (), leaving, frozenset(ops), gate=found.gate_in(ops)))


def _is_dual_path(found: Found, op: Op) -> bool:
    """Whether some parts are slices and some are sums (DPN)."""
    makers = [found.flow.graph.op_of(value) for value in op.inputs]
    return {"slice", "add"} <= {maker.name for maker in makers if maker is not None}


def _dual_path(found: Found, op: Op, fork: int) -> list[int]:
    """The ends of the one branch, of which a part is added and a part concatenated: the deepest."""
    flow = found.flow
    depths: dict[int, int] = {}
    for value in op.inputs:
        maker = flow.graph.op_of(value)
        for term in found.terms(maker) if maker is not None and flow.is_sum(maker) else (value,):
            while (part := flow.graph.op_of(term)) is not None and part.name in SLICES:
                term = part.inputs[0]
            depths[term] = sum(flow.is_conv(each) for each in flow.region(fork, term) or ())
    return [end for end, depth in depths.items() if depth == max(depths.values())]


def _start_of(found: Found, value: int, cat: Op, fork: int) -> int:
    """What a dense layer's new features are computed from: the last concatenation before them."""
    flow = found.flow
    parts = set(cat.inputs)
    earlier = [op.outputs[0] for op in flow.graph.ops if op.name == "cat" and set(op.inputs) <= parts]
    starts = [each for each in (*parts, *earlier) if each < value and flow.region(each, value) is not None]
    return max(starts, default=fork)
