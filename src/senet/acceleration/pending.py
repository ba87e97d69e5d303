"""A tail that is not computed yet: it gathers norm, gate, sum and activation, then runs as one.

A network calls its batch norm, its SE module and its activation one after the other. Each hands on,
in place of a map, what it would compute from what, until the tail is whole. Whatever else is done
to it, by whomever, computes what there is and goes on with that: it is always right, and fast where
the network does what it was seen to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from senet.kernels.reference import ACTIVATIONS

_NAMES: dict[Any, str] = {
    F.relu: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    Tensor.relu: "relu",
    Tensor.relu_: "relu",
    F.silu: "silu",
    F.hardswish: "hardswish",
}
_SUMS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
# Read from the map without computing it: drop-path asks for them.
_FACTS = ("shape", "ndim", "dtype", "device", "layout", "requires_grad", "is_cuda")


class Gate(Protocol):
    """What a pending tail asks of the SE module's side."""

    @property
    def end(self) -> str:
        """What the tail ends with: "gate", "sum" or "activation"."""

    def tail(
        self,
        u: Tensor,
        *,
        norm: nn.Module | None,
        inner: str,
        residual: Tensor | None,
        keep: Tensor | None,
        outer: str,
    ) -> Tensor:
        """Computes the tail; see ``senet.tail.tail``."""


class Pending:
    """A tail, as far as a network has come with it.

    Args:
        u: the map that entered.
        norm: the batch norm that it entered, None for none.
        inner: the activation after the norm.
        gate: the SE module's side, None while the network has not reached it.
        residual: what has been added, None for nothing.
        keep: (N,), drop-path's factors, None for none.
    """

    def __init__(
        self,
        u: Tensor,
        norm: nn.Module | None = None,
        inner: str = "identity",
        gate: Gate | None = None,
        residual: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> None:
        self.u = u
        self.norm = norm
        self.inner = inner
        self.gate = gate
        self.residual = residual
        self.keep = keep
        self._value: Tensor | None = None

    def value(self, outer: str = "identity") -> Tensor:
        """The map, computed when it is first asked for."""
        if self._value is None:
            self._value = self._compute(outer)
        return self._value

    def gated(self, gate: Gate) -> Pending | Tensor:
        """What the SE module gives."""
        if self.gate is not None or self._value is not None:
            return Pending(self.value()).gated(gate)
        return Pending(self.u, self.norm, self.inner, gate)._until("gate")

    def activated(self, name: str) -> Pending | Tensor:
        """What an activation gives."""
        if self._value is None and self.gate is None and self.norm is not None and self.inner == "identity":
            return Pending(self.u, self.norm, name)
        if self._value is None and self.gate is not None and name == "relu":
            return self.value(name)
        return ACTIVATIONS[name](self.value())

    def plus(self, other: Any) -> Pending | Tensor:
        """What a sum gives."""
        fits = (
            self._value is None
            and self.gate is not None
            and self.residual is None
            and type(other) in (Tensor, nn.Parameter)
            and other.shape == self.u.shape
            and other.is_floating_point()
        )
        if not fits:
            total: Tensor = self.value() + other
            return total
        return Pending(self.u, self.norm, self.inner, self.gate, other, self.keep)._until("sum")

    def times(self, other: Any) -> Pending | Tensor:
        """What a product gives; drop-path multiplies each sample with one number."""
        per_sample = (self.u.shape[0], *(1,) * (self.u.ndim - 1))
        fits = (
            self._value is None
            and self.gate is not None
            and self.residual is None
            and self.keep is None
            and isinstance(other, Tensor)
            and other.shape == per_sample
            and not other.requires_grad
        )
        if not fits:
            product: Tensor = self.value() * other
            return product
        return Pending(self.u, self.norm, self.inner, self.gate, None, other.flatten())

    def _until(self, stage: str) -> Pending | Tensor:
        return self.value() if self.gate is not None and self.gate.end == stage else self

    def _compute(self, outer: str) -> Tensor:
        if self.gate is None:
            if self.norm is None:
                return self.u
            v: Tensor = type(self.norm).forward(self.norm, self.u)
            return ACTIVATIONS[self.inner](v)
        return self.gate.tail(
            self.u,
            norm=self.norm,
            inner=self.inner,
            residual=self.residual,
            keep=self.keep,
            outer=outer,
        )

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if func in _NAMES and isinstance(first, Pending) and set(kwargs) <= {"inplace"}:
            return first.activated(_NAMES[func])
        if func in _SUMS and len(args) == 2 and not kwargs and isinstance(args[1], Pending):
            return args[1].plus(first)
        if func in _SUMS and len(args) == 2 and not kwargs and isinstance(first, Pending):
            return first.plus(args[1])
        return func(*tree_map(computed, args), **tree_map(computed, kwargs))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _FACTS:
            return getattr(self.u, name)
        return getattr(self.value(), name)

    def add(self, other: Any, *, alpha: float = 1) -> Any:
        """``torch.Tensor.add``."""
        return self.plus(other) if alpha == 1 else self.value().add(other, alpha=alpha)

    def relu(self) -> Any:
        """``torch.Tensor.relu``."""
        return self.activated("relu")

    relu_ = relu

    def add_(self, other: Any, *, alpha: float = 1) -> Any:
        """``torch.Tensor.add_``, whose sum keeps the dtype of what it is added to."""
        fits = alpha == 1 and getattr(other, "dtype", None) == self.dtype
        return self.plus(other) if fits else self.value().add_(other, alpha=alpha)

    def __add__(self, other: Any) -> Any:
        return self.plus(other)

    def __iadd__(self, other: Any) -> Any:
        return self.add_(other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        return self.times(other)

    __rmul__ = __imul__ = __mul__


def _computing(name: str) -> Callable[..., Any]:
    def operation(self: Pending, *args: Any) -> Any:
        return getattr(self.value(), name)(*tree_map(computed, args))

    return operation


for _name in (
    "sub rsub isub truediv rtruediv itruediv floordiv mod pow rpow matmul rmatmul neg pos abs invert getitem "
    "setitem len iter bool float int lt le gt ge and or xor array contains".split()
):
    setattr(Pending, f"__{_name}__", _computing(f"__{_name}__"))


def computed(item: Any) -> Any:
    """The map of a pending tail; anything else as it is."""
    return item.value() if isinstance(item, Pending) else item
