"""From a value of a graph to the module at which a hook can gate it, and to the block's home."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from senet.graph.flow import Flow
from senet.graph.found import Unit
from senet.graph.trace import Call, Graph

# They run all their children: a block among those would be one more layer.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

_SHUFFLES = ("view", "_unsafe_view", "reshape", "transpose", "clone")


@dataclass(frozen=True)
class Attachment:
    """Where a block is called.

    Args:
        how: "output" or "input" of the module, or "shortcut": the module's input, but not for the
            branch.
        module: the path of the module.
        position: of the map among the module's arguments.
        branch: for "shortcut", the modules that the branch starts with, and the map's position
            among the arguments of each.
    """

    how: str
    module: str
    position: int = 0
    branch: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return f"{self.how} of {self.module or 'the network'}"


def attachment_for(flow: Flow, value: int) -> Attachment | None:
    """Where a value can be gated for everything that reads it; None where no module's edge is."""
    graph = flow.graph
    at: int | None = value
    while at is not None:
        found = _produced(graph, at) or _consumed(graph, at)
        if found is not None:
            return found
        at = _before_scaling(flow, at)
    at = _after_shuffle(flow, value)
    return None if at is None else _produced(graph, at) or _consumed(graph, at)


def attachment_at_start(flow: Flow, unit: Unit) -> Attachment | None:
    """Where a branch's input can be gated while the shortcut keeps it as it is.

    Not where the unit overwrites its input: the gate's gradient needs what it was.
    """
    starts = _branch_starts(flow, unit)
    overwritten = any(unit.entering in flow.graph.ops[index].overwritten for index in unit.ops)
    if len(starts) != 1 or overwritten:
        return None
    return Attachment("input", starts[0].module, starts[0].arguments.index(unit.entering))


def attachment_at_shortcut(flow: Flow, unit: Unit, scope: Call) -> Attachment | None:
    """Where the shortcut can be gated: its own end, or the unit's input if it has no module.

    Args:
        flow: of the graph.
        unit: a residual unit.
        scope: the run of the module that is the unit.
    """
    graph, shortcut = flow.graph, unit.shortcut
    if shortcut is None:
        return None
    if shortcut != unit.entering:
        return _produced(graph, shortcut) or _consumed(graph, shortcut)
    starts = _branch_starts(flow, unit)
    inside = all(scope.first <= call.first and call.end <= scope.end for call in starts)
    # Something that does nothing in evaluation mode, such as dropout: on which side is not known.
    passing = any(
        call.output == unit.entering and unit.entering in call.arguments
        for call in graph.calls
        if scope.first <= call.first and call.end <= scope.end and call is not scope
    )
    if passing:
        return None
    if not starts or not inside or unit.entering not in scope.arguments or graph.runs[scope.module] != 1:
        return None
    branch = tuple((call.module, call.arguments.index(unit.entering)) for call in starts)
    return Attachment("shortcut", scope.module, scope.arguments.index(unit.entering), branch)


def _branch_starts(flow: Flow, unit: Unit) -> list[Call]:
    """The modules through which alone the branch gets its input; none where a function gets it."""
    graph, shortcut = flow.graph, unit.shortcut
    if shortcut is None:
        return []
    others = {op.index for op in flow.region(unit.entering, shortcut) or ()}
    others |= {op.index for op in graph.consumers(shortcut) if op.index in unit.ops and flow.is_sum(op)}
    starts: list[Call] = []
    for op in graph.consumers(unit.entering):
        if op.index in others or op.index not in unit.ops:
            continue
        call = _smallest(
            call
            for call in graph.calls
            if call.contains(op.index)
            and unit.entering in call.arguments
            and graph.runs[call.module] == 1
            and not any(map(call.contains, others))
        )
        if call is None:
            return []
        if call not in starts:
            starts.append(call)
    return starts


def _produced(graph: Graph, value: int) -> Attachment | None:
    """The innermost module that makes and returns the value."""
    producer = graph.producer[value]
    call = _smallest(
        call
        for call in graph.calls
        if call.output == value
        and graph.runs[call.module] == 1
        and (producer is None or call.contains(producer))
    )
    return None if call is None else Attachment("output", call.module)


def _consumed(graph: Graph, value: int) -> Attachment | None:
    """The innermost module that is given the value, and through which all that read it get it.

    A module that returns what it was given (dropout, in evaluation mode) is taken only if a single
    operation reads the value: of several, some may read it from before.
    """
    reading = [op.index for op in graph.consumers(value)]
    passed_on = len(reading) == 1 and value not in graph.outputs
    call = _smallest(
        call
        for call in graph.calls
        if value in call.arguments
        and graph.runs[call.module] == 1
        and ((passed_on and call.output == value) or all(call.contains(index) for index in reading))
    )
    return None if call is None else Attachment("input", call.module, call.arguments.index(value))


def _smallest(calls: Iterable[Call]) -> Call | None:
    """The innermost call; of several beside each other, the first."""

    def size(call: Call) -> tuple[int, int, int]:
        return call.end - call.first, -call.module.count("."), call.first

    return min(calls, key=size, default=None)


def _before_scaling(flow: Flow, value: int) -> int | None:
    """The value that this one is a constant multiple of, per channel: gating commutes with that."""
    op = flow.graph.op_of(value)
    if op is None or op.name not in ("mul", "div") or len(op.inputs) != 1 or not flow.is_map(op.inputs[0]):
        return None
    return op.inputs[0]


def _after_shuffle(flow: Flow, value: int) -> int | None:
    """The map that a value becomes once its channels are shuffled: gating commutes with that."""
    at = value
    while len(readers := flow.graph.consumers(at)) == 1 and readers[0].name in _SHUFFLES:
        at = readers[0].outputs[0]
    rank = len(flow.graph.shapes[value])
    return at if at != value and flow.is_map(at) and len(flow.graph.shapes[at]) == rank else None
