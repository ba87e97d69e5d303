"""Scale, sum and activation as one pass, where the gates are known before the map is there.

A simplified network's convolution has its gates before its map. While the unit runs that was seen to add to
that map and to activate the sum, the convolution hands on a ``Pending`` that gathers both. Called by itself,
it gives a map: only the unit announces, at each run, that the rest follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from senet.acceleration.forwards import is_left
from senet.acceleration.pending import Pending
from senet.kernels import reference
from senet.kernels.backends import chosen
from senet.kernels.layout import dense
from senet.kernels.reference import ACTIVATIONS, Tail

# Numbers of a map from which on one pass is faster than three operations, asking and waiting included: on one
# core and in float32 it took 0.44 to 0.93 of their time from 400,000 on, 0.83 to 1.04 at 200,000 and
# 1.4 to 1.5 at 100,000, where both take a tenth of a millisecond.
WORTHWHILE = 1 << 18
_TAIL = Tail("none")
# Backends that are plain operations.
_PLAIN = ("aten", "reference")


def scaled(u: Tensor, s: Tensor, end: str, backend: str = "auto") -> Pending | Tensor:
    """The product s ⊙ u, pending where what follows is then one pass with it.

    Args:
        u: (N, C, *spatial).
        s: (N, C), the gates.
        end: what follows: "sum" or "activation".
        backend: who computes it, see ``kernels.why``. Where a gradient is needed, and for tensors of other
            classes, it is the plain product; unasked, for small maps too.

    Raises:
        BackendError: the backend that was asked for cannot serve this call.
    """
    plain = u.requires_grad or s.requires_grad or type(u) is not Tensor
    if plain or (backend == "auto" and u.numel() < WORTHWHILE):
        return reference.scale(u, s)
    name = chosen(_TAIL, u, backend).name
    return reference.scale(u, s) if name in _PLAIN else Pending(u).gated(Known(s, end, name))


@dataclass(frozen=True)
class Known:
    """Gates that are known: the side of a ``Pending`` that needs no squeeze.

    Args:
        s: (N, C).
        end: what the tail ends with: "sum" or "activation".
        backend: whose operator computes it.
    """

    s: Tensor
    end: str
    backend: str

    def tail(
        self,
        u: Tensor,
        *,
        norm: nn.Module | None = None,
        inner: str = "identity",
        residual: Tensor | None = None,
        keep: Tensor | None = None,
        outer: str = "identity",
    ) -> Tensor:
        """ψ(keep · s ⊙ u + r): neither a norm nor φ comes before known gates."""
        s = self.s if keep is None else self.s * keep[:, None]
        if residual is not None and not _is_like(residual, u):
            return ACTIVATIONS[outer](reference.scale(u, s) + residual)
        # The operators are registered when they are first needed.
        from senet.kernels.operators import steps

        u = dense(u, u)
        residual = None if residual is None else dense(residual, u)
        out: Tensor = steps(self.backend).apply(u, None, None, None, s, residual, "identity", outer)
        return out


def _is_like(residual: Tensor, u: Tensor) -> bool:
    """Whether an operator without a derivative adds it as PyTorch does."""
    return not residual.requires_grad and (residual.dtype, residual.device) == (u.dtype, u.device)


class Announcement:
    """A hook of a unit: tells its convolution what follows, if nobody has attached anything on the way.

    Args:
        layer: the convolution.
        through: the modules that are given a ``Pending``, or give one.
        end: what follows.
    """

    # For graph.trace: what this computes, the network computes.
    part_of_network = True
    # Kept with it, as ``insertion.hooks`` explains.
    handle: RemovableHandle

    def __init__(self, layer: nn.Module, through: Sequence[nn.Module], end: str) -> None:
        self.layer, self.through, self.end = layer, tuple(through), end

    def attach(self, unit: nn.Module) -> None:
        """Puts the hook on the unit, before what it does."""
        self.handle = unit.register_forward_pre_hook(self)

    def __call__(self, unit: nn.Module, args: tuple[object, ...]) -> None:
        """Before each run; who notes its operations sees the layers."""
        if not _noted() and is_left(*self.through):
            self.layer.followed_by = self.end  # type: ignore[assignment]


def _noted() -> bool:
    """Whether a compiler, a tracer or a dispatch mode takes down what is computed."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    return torch._C._len_torch_dispatch_stack() > 0
