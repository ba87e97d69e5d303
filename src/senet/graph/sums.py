"""Residual units: a sum of a branch with a nonlinearity and of a linear shortcut of the same input."""

from __future__ import annotations

from collections.abc import Iterator

from senet.graph.flow import ACTIVATIONS, MATRIX, Segment
from senet.graph.found import Found, Unit
from senet.graph.trace import Op


def find_in_sums(found: Found) -> None:
    """Adds the residual and inverted residual units, the innermost where they are nested."""
    flow, graph = found.flow, found.flow.graph
    sums: set[int] = set()
    for op in graph.ops:
        if not flow.is_sum(op):
            continue
        total = op.outputs[0]
        readers = graph.consumers(total)
        if len(readers) == 1 and flow.is_sum(readers[0]):
            continue  # It is a term of the sum that follows.
        if flow.is_map(total):
            _look_at(found, op, sums)
        elif len(graph.shapes[total]) > 2:
            found.leave(op, "its sum is not one of maps with channels first: linear layers or tokens")


def _look_at(found: Found, op: Op, sums: set[int]) -> None:
    flow = found.flow
    terms = list(found.terms(op))
    fork = flow.fork(terms)
    if fork is None:
        found.leave(op, "its terms do not come from one tensor")
        return
    regions = {term: flow.region(fork, term) or () for term in terms}
    # SE in a shortcut (placement "identity") leaves it a shortcut.
    shortcuts = {
        term
        for term, ops in regions.items()
        if all(
            flow.is_linear(each) or flow.is_concatenation(each) or each.index in flow.attention
            for each in ops
        )
    }
    branches = list(_branches(found, op, shortcuts))
    regions |= {branch: flow.region(fork, branch) or () for branch in branches}
    convolving = [branch for branch in branches if any(flow.is_conv(each) for each in regions[branch])]
    ops = [each for region in regions.values() for each in region]
    inside = {each.index for each in ops}
    if not branches:
        found.leave(op, "all its terms are linear: it is one convolution, re-parametrised", harmless=True)
    elif not shortcuts:
        found.leave(op, "it adds branches, none of which is the identity or a projection of it")
    elif not convolving:
        found.leave(op, "its branch has no convolution of a map", harmless=True)
    elif inside & sums:
        found.leave(op, "its branch holds units of its own, which have their places")
    elif found.has_self_attention(ops) and found.gate_in(inside) is None:
        found.leave(op, "its branch is attention between positions")
    else:
        sums.add(op.index)
        middle, inverted = None, False
        if len(convolving) == 1:
            segments = flow.segments(fork, convolving[0], regions[convolving[0]])
            middle, inverted = _middle(found, segments)
        leaving = found.activated(op)
        after = {each.index for each in flow.region(op.outputs[0], leaving) or ()}
        unit = Unit(
            kind="inverted" if inverted else "residual",
            entering=fork,
            branches=tuple(convolving),
            leaving=leaving,
            ops=frozenset(inside | after | {op.index}),
            middle=middle,
            shortcut=min(shortcuts),
            gate=found.gate_in(inside),
        )
        found.add(unit)


def _branches(found: Found, op: Op, shortcuts: set[int]) -> Iterator[int]:
    """The terms that are no shortcuts; those that were added to each other first are one."""
    for value in dict.fromkeys(op.inputs):
        if value in shortcuts:
            continue
        inner = found.flow.graph.op_of(value)
        if inner is not None and found.flow.is_sum(inner) and shortcuts & set(found.terms(inner)):
            yield from _branches(found, inner, shortcuts)
        else:
            yield value


def _middle(found: Found, segments: list[Segment]) -> tuple[int | None, bool]:
    """The value after the last spatial convolution that a pointwise one follows.

    Returns:
        The value or None, and whether it is the wide place of an inverted unit: it has more channels
        than the branch's end, or the convolution is depthwise, is activated, and the end is linear.
    """
    flow = found.flow
    middle, inverted = None, False
    spatial: Op | None = None
    activated = False
    ends_active = any(op.name in ACTIVATIONS for op in segments[-1].ops) if segments else False
    for segment in segments:
        convs = [op for op in segment.ops if flow.is_conv(op)]
        mixing = bool(convs) or any(op.name in MATRIX for op in segment.ops)
        if mixing and spatial is not None:
            if convs and not flow.is_spatial(convs[0]) and flow.is_map(segment.start):
                middle = segment.start
                wide = flow.channels(middle) > flow.channels(segments[-1].end)
                inverted = wide or (flow.is_depthwise(spatial) and activated and not ends_active)
            spatial = None
        if mixing:
            spatial = next((op for op in reversed(convs) if flow.is_spatial(op)), None)
            activated = False
            if _is_modulation(found, segment) or _gathers(segment, convs):
                spatial = None
        activated |= any(op.name in ACTIVATIONS for op in segment.ops)
    return middle, inverted


def _is_modulation(found: Found, segment: Segment) -> bool:
    """Whether maps are multiplied: what is convolved there is a gate of its own."""
    return any(
        op.name == "mul" and len(set(op.inputs)) > 1 and op.index not in found.flow.attention
        for op in segment.ops
    )


def _gathers(segment: Segment, convs: list[Op]) -> bool:
    """Whether the results of several convolutions are concatenated."""
    return len(convs) > 1 and any(op.name == "cat" for op in segment.ops)
