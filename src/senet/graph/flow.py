"""Questions about a graph: where do tensors fork and meet again, what lies in between?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod

from senet.graph.trace import Graph, Op

ACTIVATIONS = frozenset(
    "relu relu6 hardtanh leaky_relu gelu silu hardswish hardsigmoid mish elu celu selu prelu _prelu_kernel "
    "rrelu softplus tanh sigmoid clamp clamp_min threshold rrelu_with_noise log_sigmoid_forward".split()
)
NORMS = frozenset(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm "
    "miopen_batch_norm native_layer_norm native_group_norm _fused_rms_norm".split()
)
# Products of matrices: nn.Linear, and attention's own.
MATRIX = frozenset("mm addmm bmm baddbmm linear".split())
MOVES = frozenset(
    "alias clone detach contiguous _to_copy permute transpose view _unsafe_view reshape unsqueeze squeeze "
    "expand as_strided lift_fresh copy".split()
)
ARITHMETIC = frozenset("mul div add sub rsub neg".split())
SLICES = frozenset("slice split split_with_sizes unbind select index_select narrow".split())
_RESIZES = ("pool", "pad", "upsample", "roll", "grid_sampler", "interpolate", "blur")


# A norm with an activation in it, written out.
_LONGEST_ACTIVATION = 30


def is_self_attention(op: Op) -> bool:
    """Whether it is one of the operations that only attention between positions has."""
    return op.name in ("_softmax", "bmm", "baddbmm") or "scaled_dot_product" in op.name


@dataclass(frozen=True)
class Segment:
    """What lies between two values through which everything passes."""

    start: int
    end: int
    ops: tuple[Op, ...]


class Flow:
    """The flow of tensors through a graph.

    Args:
        graph: of ``trace``.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        # Operations of channel attention: what convolves in there is no convolution of a map.
        self.attention: frozenset[int] = frozenset()
        self._channel_dim: dict[int, int | None] = {}

    # -- values -----------------------------------------------------------------------------

    def channels(self, value: int) -> int:
        """C of a map."""
        return self.graph.shapes[value][1]

    def spatial(self, value: int) -> tuple[int, ...]:
        """The spatial sizes of a map."""
        return self.graph.shapes[value][2:]

    def is_map(self, value: int) -> bool:
        """Whether it is (N, C, *spatial), channels first, with more than one position."""
        shape = self.graph.shapes[value]
        return 3 <= len(shape) <= 5 and prod(shape[2:]) > 1 and self.channel_dim(value) == 1

    def channel_dim(self, value: int) -> int | None:
        """The dimension that holds channels, as far as convolutions and linear layers show it."""
        # Iterative: networks are deeper than Python's stack.
        path: list[int] = []
        at: int | None = value
        while at is not None and at not in self._channel_dim:
            path.append(at)
            op = self.graph.op_of(at)
            at = op.inputs[0] if op is not None and op.name != "convolution" else None
        for each in reversed(path):
            self._channel_dim[each] = self._channel_dim_after(self.graph.op_of(each), each)
        return self._channel_dim[value]

    def _channel_dim_after(self, op: Op | None, value: int) -> int | None:
        shape = self.graph.shapes[value]
        if op is None:
            # The network's input: what is convolved has its channels first.
            convolved = any(user.name == "convolution" for user in self.graph.consumers(value))
            return 1 if convolved else None
        if op.name == "convolution":
            return 1
        if op.name in MATRIX:
            return len(shape) - 1
        before = self._channel_dim[op.inputs[0]]
        was = self.graph.shapes[op.inputs[0]]
        if before is None:
            # A sum may show it by another of its terms.
            others = op.inputs[1:] if op.name in ARITHMETIC else ()
            return next((dim for each in others if (dim := self.channel_dim(each)) is not None), None)
        if op.dims:
            return op.dims.index(before)
        if len(shape) == len(was) and shape[before] == was[before]:
            return before
        if before == len(was) - 1 and shape and shape[-1] == was[-1]:
            return len(shape) - 1
        if before == 1 and len(shape) > 1 and shape[:2] == was[:2]:
            return 1
        positions = len(was) - 1 - before
        if op.name in MOVES and positions and shape[-positions:] == was[-positions:]:
            # Channels taken apart into groups, and put together again.
            return before if len(shape) >= len(was) else len(shape) - 1 - positions
        return before if op.name in (*SLICES, "cat", "constant_pad_nd") else None

    # -- regions ----------------------------------------------------------------------------

    def fork(self, values: Iterable[int]) -> int | None:
        """The last value through which everything goes that reaches all of ``values``."""
        frontier = set(values)
        while len(frontier) > 1:
            latest = max(frontier)
            frontier.remove(latest)
            op = self.graph.op_of(latest)
            if op is None:
                return None
            frontier.update(op.inputs)
        return frontier.pop()

    def region(self, start: int, end: int) -> tuple[Op, ...] | None:
        """The operations from ``start`` to ``end``; None if something else enters on the way."""
        found: dict[int, Op] = {}
        open_values = [end]
        while open_values:
            value = open_values.pop()
            if value == start:
                continue
            op = self.graph.op_of(value)
            if op is None or value < start:
                return None
            if op.index not in found:
                found[op.index] = op
                open_values.extend(op.inputs)
        return tuple(found[index] for index in sorted(found))

    def segments(self, start: int, end: int, ops: tuple[Op, ...]) -> list[Segment]:
        """The region cut at the values through which everything in it passes."""
        inside = {op.index for op in ops}
        last_use = {
            value: max(each.index for each in self.graph.consumers(value) if each.index in inside)
            for op in ops
            for value in op.inputs
        }
        found, pending = [], []
        open_until, last = last_use.get(start, -1), start
        for op in ops:
            pending.append(op)
            used = [value for value in op.outputs if value in last_use or value == end]
            if open_until <= op.index and len(used) == 1:
                found.append(Segment(last, used[0], tuple(pending)))
                pending, last = [], used[0]
            open_until = max([open_until, *(last_use.get(value, -1) for value in used)])
        return found

    # -- operations -------------------------------------------------------------------------

    def is_conv(self, op: Op) -> bool:
        """Whether it convolves a map; the ones inside an excitation see a single position."""
        return op.name == "convolution" and op.index not in self.attention and self.is_map(op.outputs[0])

    def is_spatial(self, op: Op) -> bool:
        """Whether it is a convolution over more than one position."""
        return self.is_conv(op) and prod(op.weight[2:]) > 1

    def is_depthwise(self, op: Op) -> bool:
        """Whether it is a convolution of each channel for itself."""
        return self.is_spatial(op) and op.groups > 1 and op.weight[1] == 1

    def is_sum(self, op: Op) -> bool:
        """Whether it adds two tensors of one shape; attention that adds is something else."""
        shapes = self.graph.shapes
        return (
            op.name == "add"
            and len(set(op.inputs)) == 2
            and op.index not in self.attention
            and all(shapes[value] == shapes[op.outputs[0]] for value in op.inputs)
        )

    def is_concatenation(self, op: Op) -> bool:
        """Whether it puts the channels of several maps side by side."""
        if op.name != "cat" or len(set(op.inputs)) < 2 or not self.is_map(op.outputs[0]):
            return False
        shapes = [self.graph.shapes[value] for value in op.inputs]
        whole = self.graph.shapes[op.outputs[0]]
        return sum(shape[1] for shape in shapes) == whole[1] and {shape[2:] for shape in shapes} == {
            whole[2:]
        }

    def is_linear(self, op: Op) -> bool:
        """Whether a shortcut may do this: convolve, normalise, pool, pad, scale, move."""
        if op.name in ARITHMETIC:
            return len(set(op.inputs)) == 1
        if op.name in SLICES:
            channels = self.graph.shapes[op.inputs[0]][1:2]
            return all(self.graph.shapes[value][1:2] == channels for value in op.outputs)
        if op.name == "cat":
            return len(set(op.inputs)) == 1
        return (
            op.name in NORMS
            or op.name in MOVES
            or op.name == "convolution"
            or any(word in op.name for word in _RESIZES)
        )

    def activation_after(self, value: int) -> int | None:
        """The value after the activation through which alone ``value`` is read.

        Also one made of several operations, such as x · σ(x) or a norm that activates: they fork,
        meet again in the same shape, and neither convolve nor mix channels on the way.
        """
        readers = self.graph.consumers(value)
        if len(readers) == 1 and readers[0].name in ACTIVATIONS:
            return readers[0].outputs[0]
        if len(readers) < 2:
            return None
        activated, open_values = False, {value}
        start = readers[0].index
        for op in self.graph.ops[start : start + _LONGEST_ACTIVATION]:
            if not open_values & set(op.inputs):
                continue
            if op.name == "convolution" or op.name in MATRIX or op.name == "cat":
                return None
            activated |= op.name in ACTIVATIONS
            open_values |= set(op.outputs)
            open_values = {each for each in open_values if self._last_use(each) > op.index}
            if len(open_values) == 1 and value not in open_values:
                (end,) = open_values
                same = self.graph.shapes[end] == self.graph.shapes[value]
                closed = self.region(value, end) is not None
                return end if same and activated and closed else None
        return None

    def _scaled(self, value: int) -> int:
        """The value after the constants that it alone is multiplied with, such as hard-swish's 1/6."""
        while True:
            readers = self.graph.consumers(value)
            if len(readers) != 1 or readers[0].name not in ("mul", "div") or len(readers[0].inputs) != 1:
                return value
            value = readers[0].outputs[0]

    def _last_use(self, value: int) -> int:
        return max((op.index for op in self.graph.consumers(value)), default=-1)

    def tail(self, conv: Op) -> tuple[int, bool]:
        """What follows a convolution before anything else reads it: norms, scalings, one activation.

        Returns:
            The value at the end, and whether an activation is part of the way.
        """
        value = conv.outputs[0]
        while True:
            after = self.activation_after(value)
            if after is not None:
                return self._scaled(after), True
            readers = self.graph.consumers(value)
            if len(readers) != 1 or len(set(readers[0].inputs)) > 1 or not self.is_linear(readers[0]):
                return value, False
            op = readers[0]
            if op.name == "convolution" or self.graph.shapes[op.outputs[0]] != self.graph.shapes[value]:
                return value, False
            value = op.outputs[0]

    @cached_property
    def convs(self) -> list[Op]:
        """The convolutions of maps, in order."""
        return [op for op in self.graph.ops if self.is_conv(op)]
