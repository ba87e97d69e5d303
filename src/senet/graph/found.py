"""What is found in a graph: units, and the sums and concatenations that are none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from senet.graph.attention import ChannelGate
from senet.graph.flow import Flow, is_self_attention
from senet.graph.trace import Op


@dataclass(frozen=True)
class Unit:
    """One unit. Values are numbers of the graph.

    Args:
        kind: as listed in ``graph/units.py``.
        entering: the value that everything in the unit comes from.
        branches: the ends of the branches that are not the identity.
        leaving: after the sum or concatenation, and the activation that follows it.
        ops: indices of its operations.
        middle: after the last spatial convolution that a pointwise one follows, or None.
        shortcut: the other term of the sum, if there is one.
        gate: the channel attention that it has already, or None.
    """

    kind: str
    entering: int
    branches: tuple[int, ...]
    leaving: int
    ops: frozenset[int]
    middle: int | None = None
    shortcut: int | None = None
    gate: ChannelGate | None = None


@dataclass(frozen=True)
class Other:
    """A sum or concatenation that is no unit, and why.

    Args:
        op: the operation.
        reason: why.
        harmless: whether a network may still be a plain stack with it.
    """

    op: Op
    reason: str
    harmless: bool


@dataclass
class Found:
    """What is known of a network so far.

    Args:
        flow: of its graph.
        gates: the channel attention there is.
        units: the units.
        others: sums and concatenations that are no units.
        taken: the operations that belong to a unit.
    """

    flow: Flow
    gates: list[ChannelGate]
    units: list[Unit] = field(default_factory=list)
    others: list[Other] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)

    def add(self, unit: Unit) -> None:
        """Adds a unit; its operations are taken."""
        self.units.append(unit)
        self.taken |= unit.ops

    def leave(self, op: Op, reason: str, *, harmless: bool = False) -> None:
        """Notes that a sum or concatenation is no unit."""
        self.others.append(Other(op, reason, harmless))

    def gate_in(self, ops: Iterable[int]) -> ChannelGate | None:
        """The first channel attention among operations."""
        inside = set(ops)
        return next((gate for gate in self.gates if gate.op.index in inside), None)

    def gate_of(self, value: int) -> ChannelGate | None:
        """The channel attention that gates a value."""
        return next((gate for gate in self.gates if gate.gated == value), None)

    def has_self_attention(self, ops: Iterable[Op]) -> bool:
        """Whether positions attend to each other in there; a softmax over channels is something else."""
        return any(is_self_attention(op) and op.index not in self.flow.attention for op in ops)

    def terms(self, op: Op) -> Iterator[int]:
        """The terms of a sum of any number: those of a term that is added alone, in its place."""
        for value in dict.fromkeys(op.inputs):
            inner = self.flow.graph.op_of(value)
            alone = len(self.flow.graph.consumers(value)) == 1
            if inner is not None and alone and self.flow.is_sum(inner):
                yield from self.terms(inner)
            else:
                yield value

    def activated(self, op: Op) -> int:
        """The value after an operation and the activation that alone follows it in the same module."""
        value = op.outputs[0]
        after = self.flow.activation_after(value)
        activation = None if after is None else self.flow.graph.op_of(after)
        if after is None or activation is None:
            return value
        inside = not op.module or f"{activation.module}.".startswith(f"{op.module}.")
        return after if inside else value
