"""Which form of the tail serves a call, and why not the others.

A backend that cannot serve a call says so in words; one that could, but should not unasked, too.
Asked for by name, a backend serves or raises: it never gives the call to another in silence.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from senet.errors import BackendError, check_choice
from senet.kernels.reference import Tail, TailResult, TailTensors
from senet.kernels.reference import tail as reference_tail
from senet.tables import Table

_ONE_PROCESS = "it takes its statistics from this process alone, and the norm shares them"
_WATCHED = "a dispatch mode is looking at the operations, layer by layer"
_HALF_OR_SINGLE = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Backend:
    """One way of running a tail.

    Args:
        name: what it is asked for by.
        impossible: why it cannot serve a call; None where it can.
        unwise: why it should not serve a call unasked; None where it may.
        run: runs a call.
    """

    name: str
    impossible: Callable[[Tail, Tensor], str | None]
    unwise: Callable[[Tail, Tensor], str | None]
    run: Callable[[Tail, TailTensors], TailResult]


@dataclass(frozen=True)
class Choice:
    """Who serves a call.

    Args:
        name: the backend, None where none can.
        rows: each backend with what it says of the call.
    """

    name: str | None
    rows: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        return str(Table(self.rows))


def why(u: Tensor, spec: Tail | None = None, *, backend: str = "auto", **options: Any) -> Choice:
    """Which backend serves a tail on a map, and why not the others.

    Args:
        u: the map (N, C, *spatial); it is only looked at.
        spec: the tail, or None and its fields as keywords: ``why(u, norm="none", inner="silu")``.
        backend: as the call would ask: "auto" or a name.
        **options: fields of ``Tail``.

    Raises:
        OptionError: the backend is unknown.
    """
    spec = Tail(**options) if spec is None else spec
    if backend != "auto":
        check_choice(f"backend={backend!r}", backend, [*BACKENDS, "auto"])
    picked = _picked(spec, u, backend)
    rows = []
    for each in BACKENDS.values():
        reason = each.impossible(spec, u)
        if reason is None and backend != "auto":
            reason = f"{backend!r} was asked for"
        reason = reason or each.unwise(spec, u) or (f"{picked.name} comes before it" if picked else None)
        serves = each is picked
        rows.append({"backend": each.name, "serves": serves, "because": "it can" if serves else reason})
    return Choice(picked.name if picked else None, tuple(rows))


def run(spec: Tail, tensors: TailTensors, backend: str = "auto") -> TailResult:
    """The tail by the backend that serves the call.

    Raises:
        BackendError: the backend that was asked for cannot serve the call, or none can.
    """
    return chosen(spec, tensors.u, backend).run(spec, tensors)


def chosen(spec: Tail, u: Tensor, backend: str = "auto") -> Backend:
    """The backend that serves a call; as ``why``, without the words."""
    if backend != "auto":
        check_choice(f"backend={backend!r}", backend, [*BACKENDS, "auto"])
    picked = _picked(spec, u, backend)
    if picked is not None:
        return picked
    reasons = [f"{row['backend']}: {row['because']}" for row in why(u, spec, backend=backend).rows]
    raise BackendError(
        f"backend={backend!r} for a map of {tuple(u.shape)}, {u.dtype}, on {u.device}",
        found="; ".join(reason for reason in reasons if backend in ("auto", reason.partition(":")[0])),
        do="Ask for backend='auto', or see senet.kernels.why(u, ...).",
    )


def _picked(spec: Tail, u: Tensor, backend: str) -> Backend | None:
    """The one that was asked for, if it can; else the first that should, or at least can."""
    if backend != "auto":
        return BACKENDS[backend] if BACKENDS[backend].impossible(spec, u) is None else None
    possible = (each for each in BACKENDS.values() if each.impossible(spec, u) is None)
    last_resort = None
    for each in possible:
        if each.unwise(spec, u) is None:
            return each
        last_resort = last_resort or each
    return last_resort


def _empty_or_unknown(spec: Tail, u: Tensor) -> str | None:
    """What no fused form can do."""
    if not 3 <= u.ndim <= 5:
        return f"a map of {u.ndim} dimensions is none of (N, C, L), (N, C, H, W), (N, C, D, H, W)"
    if 0 in u.shape:
        return "the map is empty"
    if spec.norm == "batch" and spec.group is None and u.numel() == u.shape[1]:
        return "a channel has one number, and no variance"
    return None


def _transformed(spec: Tail, u: Tensor) -> str | None:
    """Why an autograd function cannot stand in what is being transformed."""
    if torch.compiler.is_compiling():
        return _empty_or_unknown(spec, u)
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace cannot save an autograd function"
    if torch._C._are_functorch_transforms_active():
        return "a torch.func transform is active, and has no rule for it"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation has no rule for it"
    return _empty_or_unknown(spec, u)


def _looked_at(spec: Tail, u: Tensor) -> str | None:
    """Why an operator should not stand in what is being looked at."""
    if torch.compiler.is_compiling():
        return "the call is being compiled, and an operator is a wall that nothing is fused across"
    if torch._C._len_torch_dispatch_stack() > 0:
        return _WATCHED
    return None


def _triton_impossible(spec: Tail, u: Tensor) -> str | None:
    if u.device.type != "cuda" and not _interpreted():
        return f"the map is on {u.device.type}, not on a GPU"
    if not _has_triton():
        return "the package triton is not installed"
    if u.dtype not in _HALF_OR_SINGLE:
        return f"the map is {u.dtype}: it sums in float32"
    return _transformed(spec, u)


def _cpp_impossible(spec: Tail, u: Tensor) -> str | None:
    if u.device.type != "cpu":
        return f"the map is on {u.device.type}, not on the CPU"
    if u.dtype not in (*_HALF_OR_SINGLE, torch.float64):
        return f"the map is {u.dtype}"
    reason = _transformed(spec, u)
    if reason is not None or torch.compiler.is_compiling():
        return reason
    # Asked last: the first call compiles it.
    from senet.kernels.cpp.build import unavailable

    return unavailable()


def _aten_impossible(spec: Tail, u: Tensor) -> str | None:
    return _ONE_PROCESS if spec.group is not None else _empty_or_unknown(spec, u)


def _aten_unwise(spec: Tail, u: Tensor) -> str | None:
    if _looked_at(spec, u) is _WATCHED:
        return _WATCHED
    if not torch.compiler.is_compiling() and _transformed(spec, u) is None:
        return "in eager mode it takes more passes than the layers one by one"
    if spec.norm != "batch" or spec.inner != "identity":
        return "a compiler fuses these layers as they are: no squeeze comes for free from batch statistics"
    return None


def _fused(backend: str) -> Callable[[Tail, TailTensors], TailResult]:
    def run(spec: Tail, tensors: TailTensors) -> TailResult:
        # The operators are registered when they are first needed.
        from senet.kernels.fused import fused_tail

        return fused_tail(spec, tensors, backend)

    return run


def _aten(spec: Tail, tensors: TailTensors) -> TailResult:
    from senet.kernels.aten import traceable_tail

    return traceable_tail(spec, tensors)


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


# In the order in which they are tried.
BACKENDS = {
    each.name: each
    for each in (
        Backend("triton", _triton_impossible, _looked_at, _fused("triton")),
        Backend("cpp", _cpp_impossible, _looked_at, _fused("cpp")),
        Backend("aten", _aten_impossible, _aten_unwise, _aten),
        Backend(
            "composite",
            _transformed,
            lambda spec, u: "it is what others are checked with",
            _fused("composite"),
        ),
        Backend(
            "reference",
            lambda spec, u: _ONE_PROCESS if spec.group is not None else None,
            lambda spec, u: None,
            reference_tail,
        ),
    )
}
