"""The one product in which a network of anybody scales a map by its gates: found, watched, changed.

No module need return the gates: the operation itself is seen, below modules and autograd, in the calls
of the module that holds the attention. What runs is the same as without.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from senet.errors import RecordingError
from senet.graph.attention import ChannelGate
from senet.graph.flow import Flow
from senet.graph.trace import Call, Graph, Op

# Is shown the gates (N, C) and the map (N, C, *spatial); may give other gates, as (C,) or (N, C).
Look = Callable[[Tensor, Tensor], Tensor | None]
_MUL = (torch.ops.aten.mul.Tensor, torch.ops.aten.mul_.Tensor)
# What they give depends on none of the numbers that they are given; dropout begins with one.
_UNREAD = (
    torch.ops.aten.empty_like,
    torch.ops.aten.new_empty,
    torch.ops.aten.lift_fresh,
    torch.ops.aten.lift_fresh_copy,
)


@dataclass(frozen=True)
class Product:
    """Which product it is.

    Args:
        module: the path of the module in whose calls it runs.
        ordinal: its place among the products of maps of this width in one call.
        among: how many of them there are.
        position: of the gates, 0 or 1.
        width: the size of the dimension after the samples'.
        leading: how many dimensions of the gates are not of positions: 2, and 3 where attention is split.
        channels: how many gates a sample has.
        size: of the map, in the traced run.
    """

    module: str
    ordinal: int
    among: int
    position: int
    width: int
    leading: int
    channels: int
    size: tuple[int, ...]


def product_of(flow: Flow, gate: ChannelGate) -> Product:
    """The product of a recognised attention."""
    return _described(flow.graph, _call_around(flow.graph, gate.module, gate.op), gate.op, gate.gate)


def product_within(graph: Graph, module: str) -> Product | None:
    """The last product in a module of a map with one number per sample and channel; None without one."""
    calls = [call for call in graph.calls if call.module == module]
    for call in calls[:1]:
        for op in reversed(graph.ops[call.first : call.end]):
            if op.name != "mul" or len(op.inputs) != 2:
                continue
            for gated, gate in (op.inputs, op.inputs[::-1]):
                if _scales(graph, graph.shapes[gated], gate):
                    return _described(graph, call, op, gate)
    return None


def map_size(graph: Graph, product: Product) -> tuple[int, ...]:
    """The size of the map in another run of the network; () if the product was not computed there."""
    for call in graph.calls:
        if call.module == product.module:
            products = _products(graph, call, product.width)
            if product.ordinal < len(products):
                op = products[product.ordinal]
                return graph.shapes[op.inputs[1 - product.position]][product.leading :]
    return ()


class ProductWatch:
    """Shows ``look`` a product whenever it is computed, until it is removed.

    Args:
        module: in whose calls it runs.
        product: which one.
        look: see ``Look``.
    """

    def __init__(self, module: nn.Module, product: Product, look: Look) -> None:
        self._product = product
        self._look = look
        self._open = threading.local()
        self._handles = [
            module.register_forward_pre_hook(Attached(self._enter)),
            # Also where the module raises.
            module.register_forward_hook(Attached(self._leave), always_call=True),
        ]

    def remove(self) -> None:
        """Ends it, also in the middle of a call: what interrupts a program does not call hooks."""
        for handle in self._handles:
            handle.remove()
        while self._calls:
            self._close()

    @property
    def _calls(self) -> list[_Calls]:
        calls: list[_Calls] = self._open.__dict__.setdefault("calls", [])
        return calls

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._calls.append(_Calls(self._product, module, self._look))
        self._calls[-1].__enter__()  # type: ignore[no-untyped-call]

    def _close(self) -> _Calls:
        watch = self._calls.pop()
        watch.look = None
        watch.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        return watch

    def _leave(self, module: nn.Module, args: Any, result: Any) -> None:
        if not self._calls:  # removed in the middle of this call
            return
        count, among = self._close().count, self._product.among
        # A module that raised has no result; one that left its attention out has no product.
        if result is not None and count not in (0, among):
            raise RecordingError(
                f"the gates of {self._product.module!r}",
                found=f"it multiplied {count} pairs of maps, and {among} when the network was followed, so "
                "which are the gates is not certain",
                allowed="a module that does the same each time",
                do="Name a module that returns the gates: blocks=['NAME'].",
            )


class Attached:
    """A hook for a while: a copy of the network, or its pickle, gets one that does nothing.

    Args:
        hook: what it does.
    """

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook = hook

    def __call__(self, *args: Any) -> Any:
        """What the hook gives."""
        return self.hook(*args)

    def __deepcopy__(self, memo: Any) -> Attached:
        return Attached(_nothing)

    def __reduce__(self) -> Any:
        return Attached, (_nothing,)


def _nothing(*args: Any) -> None:
    """Does nothing."""


class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the products in one call of a module.

    As when the network was followed, only of what depends on its input: neither of parameters, nor of what
    is made of them alone or of nothing, such as the mask of a dropout.
    """

    def __init__(self, product: Product, module: nn.Module, look: Look) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.product = product
        self.look: Look | None = look
        self.count = 0
        # Alive until the end, so that no two have the same id.
        self._fixed = {id(each): each for each in (*module.parameters(), *module.buffers())}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.look is None:
            return func(*args, **kwargs)
        if func in _MUL and self._is_counted(*args):
            self.count += 1
            if self.count - 1 == self.product.ordinal:
                args = self._looked(args, self.look)
        result = func(*args, **kwargs)
        self._note(func, (args, kwargs), result)
        return result

    def _is_counted(self, one: Any, other: Any) -> bool:
        tensors = isinstance(one, Tensor) and isinstance(other, Tensor)
        if not tensors or id(one) in self._fixed or id(other) in self._fixed:
            return False
        return _alike(one.shape, other.shape, self.product.width)

    def _note(self, func: Any, given: Any, result: Any) -> None:
        read = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        unread = func.overloadpacket in _UNREAD
        fixed = unread or all(id(each) in self._fixed for each in read)
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and fixed:
                self._fixed[id(made)] = made
            elif isinstance(made, Tensor):
                self._fixed.pop(id(made), None)

    def _looked(self, args: Sequence[Tensor], look: Look) -> Sequence[Tensor]:
        position, leading = self.product.position, self.product.leading
        gate, u = args[position], args[1 - position]
        s = gate.reshape(*gate.shape[:leading], -1)[..., 0].flatten(1)
        other = look(s, u.flatten(1, leading - 1))
        if other is None:
            return args
        held = other.to(gate).expand(s.shape).reshape(*gate.shape[:leading], *(1,) * (gate.ndim - leading))
        held = held.expand(gate.shape)
        return (held, u) if position == 0 else (u, held)


def _described(graph: Graph, call: Call, op: Op, gate: int) -> Product:
    position = op.inputs.index(gate)
    shape, gates = graph.shapes[op.inputs[1 - position]], _unexpanded(graph, gate)
    # Positions are the ones at the end, or would be if there were one only.
    leading = max(2, len(gates) - next((n for n, size in enumerate(reversed(gates)) if size > 1), 0))
    products = _products(graph, call, shape[1])
    return Product(
        call.module,
        products.index(op),
        len(products),
        position,
        shape[1],
        leading,
        prod(gates[1:leading]),
        shape[leading:],
    )


def _products(graph: Graph, call: Call, width: int) -> list[Op]:
    """The products of maps of this width in one call of a module, in order."""
    return [
        op
        for op in graph.ops[call.first : call.end]
        if op.name == "mul"
        and len(op.inputs) == 2
        and _alike(graph.shapes[op.inputs[0]], graph.shapes[op.inputs[1]], width)
    ]


def _alike(one: Sequence[int], other: Sequence[int], width: int) -> bool:
    """Whether both are maps of the same samples and of this width."""
    return len(one) == len(other) > 2 and tuple(one[:2]) == tuple(other[:2]) and one[1] == width


def _scales(graph: Graph, gated: Sequence[int], gate: int) -> bool:
    shape = _unexpanded(graph, gate)
    return _alike(gated, shape, gated[1] if len(gated) > 1 else 0) and prod(shape[2:]) == 1 < prod(gated[2:])


def _unexpanded(graph: Graph, value: int) -> tuple[int, ...]:
    """The shape of a value before it was expanded to that of a map."""
    maker = graph.op_of(value)
    return graph.shapes[maker.inputs[0] if maker is not None and maker.name == "expand" else value]


def _call_around(graph: Graph, module: str, op: Op) -> Call:
    """The innermost call of the module that the operation is in."""
    return next(call for call in reversed(graph.calls) if call.module == module and call.contains(op.index))
