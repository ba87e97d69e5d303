"""The tail of a branch out of modules: batch norm, activation, SE, sum, activation as one operation.

Modules are read where they are known and bare, and called where they are not: whatever users
have put on them, in them or in their place keeps working.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from senet import normalisation
from senet.functional import run_tail
from senet.kernels.aten import traceable_norm
from senet.kernels.reference import Tail, TailResult, TailTensors
from senet.normalisation import Statistics, activation_within, is_batch_norm

# By name, so that timm's own spellings are known without timm.
_ACTIVATIONS = {
    "Identity": "identity",
    "ReLU": "relu",
    "SiLU": "silu",
    "Swish": "silu",
    "Hardswish": "hardswish",
    "HardSwish": "hardswish",
}
_HOME = ("torch.nn.", "timm.layers.", "torchvision.ops.")


class Excitation(NamedTuple):
    """What makes gates of a squeezed map (equation 3).

    Args:
        w1: (hidden, C).
        b1: (hidden,) or None.
        w2: (C, hidden).
        b2: (C,) or None.
        gate: "sigmoid", "tanh", "relu" or "hardsigmoid".
        one_at_zero: the gate's form that is 1 at 0.
        hidden: between w1 and w2: "relu", "silu" or "hardswish".
    """

    w1: Tensor
    b1: Tensor | None
    w2: Tensor
    b2: Tensor | None
    gate: str = "sigmoid"
    one_at_zero: bool = False
    hidden: str = "relu"


def tail(
    u: Tensor,
    excitation: Excitation,
    *,
    norm: nn.Module | None = None,
    inner: str = "identity",
    residual: Tensor | None = None,
    keep: Tensor | None = None,
    outer: str = "identity",
    fork: bool = False,
    backend: str = "auto",
) -> TailResult:
    """The tail with a norm that is a module, whose running statistics are updated.

    Args:
        u: (N, C, *spatial).
        excitation: of the SE block.
        norm: one of ``normalisation.is_batch_norm``, or None.
        inner: see ``Tail``, as for ``outer``.
        residual: see ``TailTensors``, as for ``keep``.
        keep: (N,), drop-path's factors.
        outer: after the sum.
        fork: see ``Tail``.
        backend: see ``kernels.why``.

    Raises:
        ShapeError: the shapes do not belong together.
        BackendError: the backend that was asked for cannot serve this call.
        ValueError: the batch's statistics are wanted and a channel has one number.
    """
    how = Statistics("none") if norm is None else normalisation.statistics(norm, u)
    weight, bias, eps = (None, None, 0.0) if norm is None else normalisation.affine(norm)
    _, _, _, _, gate, one_at_zero, hidden = excitation
    spec = Tail(how.kind, inner, outer, hidden, gate, one_at_zero, eps, how.group, fork)
    tensors = TailTensors(u, residual, keep, weight, bias, how.mean, how.variance, *excitation[:4])
    result = run_tail("tail", spec, tensors, backend)
    if norm is not None:
        normalisation.update(norm, result.mean, result.variance)
    return result


def beside(norm: nn.Module, u: Tensor) -> Tensor:
    """A batch norm of what is added to a tail, such as that of a projected shortcut.

    When compiled, its sums are taken in the form of the tail's, so that both are one sweep over the
    gradient that the two share; else it is the module's own forward.
    """
    if torch.compiler.is_dynamo_compiling() and is_batch_norm(norm) and activation_within(norm) is None:
        how = normalisation.statistics(norm, u)
        if how.kind == "batch" and how.group is None:
            out, mean, variance = traceable_norm(u, *normalisation.affine(norm))
            normalisation.update(norm, mean, variance)
            return out
    given: Tensor = type(norm).forward(norm, u)
    return given


def is_bare(*modules: nn.Module | None) -> bool:
    """Whether calling the modules does what their classes do: no hooks, no other forward, none compiled."""
    if torch_module._has_any_global_hook():  # type: ignore[no-untyped-call]
        return False
    return not any(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or module._compiled_call_impl is not None
        for module in modules
        if module is not None
    )


def activation_name(module: nn.Module | None) -> str | None:
    """The name of an activation that a tail can compute; None for one that it cannot."""
    if module is None:
        return "identity"
    known = type(module).__module__.startswith(_HOME)
    return _ACTIVATIONS.get(type(module).__name__) if known else None
