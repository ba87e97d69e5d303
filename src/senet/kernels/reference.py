"""Squeeze, excitation and scale in plain PyTorch: the truth that fast forms are held to.

Notation, as in the paper: a map u is (N, C, *spatial), z the squeezed map (N, C), s the
gate (N, C); without a squeeze z and s are maps too. Float16 and bfloat16 maps are squeezed and
gated in float32, whatever autocast says: a sum of a 112 × 112 map overflows float16 long before its
mean does.

The tail of a branch is SE with what stands around it: out = ψ(s ⊙ φ(norm(u)) + r). At the end of
a residual branch φ is the identity and ψ the ReLU; in MBConv and RegNet φ activates and nothing follows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Gate = Callable[[Tensor], Tensor]

GATES: dict[str, Gate] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "hardsigmoid": F.hardsigmoid,
}

# The same gates moved so that they give exactly 1 at 0, where none is saturated:
# a block whose last layer is zero is then the identity, and still learns.
ONE_AT_ZERO: dict[str, Gate] = {
    "sigmoid": lambda a: 2 * torch.sigmoid(a),
    "tanh": lambda a: 1 + torch.tanh(a),
    "relu": lambda a: torch.relu(1 + a),
    "hardsigmoid": lambda a: 2 * F.hardsigmoid(a),
}

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda v: v,
    "relu": torch.relu,
    "silu": F.silu,
    "hardswish": F.hardswish,
}


@dataclass(frozen=True)
class Tail:
    """What a tail computes, beside its tensors.

    Args:
        norm: "batch" (statistics of this batch), "fixed" (given ones) or "none".
        inner: φ, before SE: "identity", "relu", "silu" or "hardswish".
        outer: ψ, after the sum: "identity" or "relu".
        hidden: δ, between SE's layers: "relu", "silu" or "hardswish".
        gate: "sigmoid", "tanh", "relu" or "hardsigmoid".
        one_at_zero: the gate's form that is 1 at 0.
        eps: of the norm.
        group: the processes that share the norm's statistics, None for this one alone.
        fork: whether out is read in two places, such as the next unit's branch and its shortcut:
            each then gets it as a tensor of its own, and their gradients are added in the first
            sweep of the backward rather than by autograd in one of its own.
    """

    norm: str = "batch"
    inner: str = "identity"
    outer: str = "relu"
    hidden: str = "relu"
    gate: str = "sigmoid"
    one_at_zero: bool = False
    eps: float = 1e-5
    group: Any = None
    fork: bool = False


class TailTensors(NamedTuple):
    """What a tail reads.

    Args:
        u: (N, C, *spatial), what enters the norm, or SE where there is none.
        residual: the shape of u, or None.
        keep: (N,), what drop-path multiplies the branch of each sample with, or None.
        weight: (C,), of the norm, None for 1.
        bias: (C,), of the norm, None for 0.
        mean: (C,), the norm's fixed mean, else None.
        variance: (C,), the norm's fixed variance, else None.
        w1: (hidden, C).
        b1: (hidden,) or None.
        w2: (C, hidden).
        b2: (C,) or None.
    """

    u: Tensor
    residual: Tensor | None
    keep: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor | None
    variance: Tensor | None
    w1: Tensor
    b1: Tensor | None
    w2: Tensor
    b2: Tensor | None

    def wide(self) -> TailTensors:
        """The same with all but the maps in the accumulation dtype."""
        dtype = accumulation_dtype(self.u.dtype)
        wide = (None if each is None else each.to(dtype) for each in self[2:])
        return TailTensors(self.u, self.residual, *wide)  # type: ignore[arg-type]

    def fixed(self, eps: float) -> tuple[Tensor, Tensor]:
        """The fixed mean, and 1 / √(variance + eps)."""
        if self.mean is None or self.variance is None:
            raise TypeError("a norm with fixed statistics needs a mean and a variance")
        return self.mean, torch.rsqrt(self.variance + eps)


class TailResult(NamedTuple):
    """What a tail gives.

    Args:
        out: the map.
        s: (N, C), the gates, without drop-path's factor.
        mean: (C,), the batch's mean; None where statistics are not the batch's.
        variance: (C,), the batch's unbiased variance; None likewise.
        twin: out for its second reader; None without ``fork``.
    """

    out: Tensor
    s: Tensor
    mean: Tensor | None
    variance: Tensor | None
    twin: Tensor | None = None


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of z and s for a map of ``dtype``: at least float32."""
    # torch.promote_types would stand in every exported graph.
    return torch.float64 if dtype == torch.float64 else torch.float32


def squeeze_avg(u: Tensor, mask: Tensor | None = None) -> Tensor:
    """Equation 2: the mean of each channel; with a mask, of its valid positions."""
    dtype = accumulation_dtype(u.dtype)
    spatial = tuple(range(2, u.ndim))
    if mask is None:
        return u.mean(spatial, dtype=dtype)
    valid = mask.unsqueeze(1)
    # ``where`` and not a product: padding may hold NaN or Inf, which 0 does not erase.
    total = torch.where(valid, u, 0).sum(spatial, dtype=dtype)
    return total / valid.sum(spatial).clamp(min=1)


def squeeze_max(u: Tensor, mask: Tensor | None = None) -> Tensor:
    """The maximum of each channel (Table 11); with a mask, of its valid positions."""
    dtype = accumulation_dtype(u.dtype)
    spatial = tuple(range(2, u.ndim))
    if mask is None:
        return u.amax(spatial).to(dtype)
    valid = mask.unsqueeze(1)
    top = torch.where(valid, u, -torch.inf).amax(spatial).to(dtype)
    return torch.where(valid.any(dim=tuple(range(2, valid.ndim))), top, 0)


def squeeze_none(u: Tensor, mask: Tensor | None = None) -> Tensor:
    """The map itself (NoSqueeze, Table 16); with a mask, 0 where a position does not count."""
    kept = u if mask is None else torch.where(mask.unsqueeze(1), u, 0)
    return kept.to(accumulation_dtype(u.dtype))


SQUEEZES: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "avg": squeeze_avg,
    "max": squeeze_max,
    "none": squeeze_none,
}


def excite(
    z: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    gate: Gate,
    hidden: Gate = torch.relu,
) -> Tensor:
    """Equation 3: s = gate(W2 relu(W1 z + b1) + b2), in the dtype of z.

    Shapes: z (N, C), w1 (hidden, C), b1 (hidden,), w2 (C, hidden), b2 (C,); s is (N, C). Of a z that is a
    map, (N, C, *spatial), each position is treated so, and s has its shape.
    """
    if z.ndim > 2:
        # Rows of channels: a channels-last map is not copied.
        rows = z.movedim(1, -1)
        s = excite(rows.flatten(0, -2), w1, b1, w2, b2, gate, hidden)
        return s.reshape(rows.shape).movedim(-1, 1)
    with autocast_off(z.device.type):
        w1, w2 = w1.to(z.dtype), w2.to(z.dtype)
        b1 = None if b1 is None else b1.to(z.dtype)
        b2 = None if b2 is None else b2.to(z.dtype)
        return gate(F.linear(hidden(F.linear(z, w1, b1)), w2, b2))


def scale(u: Tensor, s: Tensor) -> Tensor:
    """Equation 4: each channel times its gate, in the dtype and memory format of u."""
    return u * _over_map(s, u)


def scale_add(u: Tensor, s: Tensor, residual: Tensor, *, relu: bool = False) -> Tensor:
    """The authors' Axpy layer, s ⊙ u + residual; then ReLU, if asked."""
    out = u * _over_map(s, u) + residual
    return out.relu() if relu else out


def tail(spec: Tail, tensors: TailTensors) -> TailResult:
    """The tail layer by layer, as a network computes it that knows nothing of fusion.

    The batch's statistics are this process's own: ``spec.group`` is not looked at.
    """
    u, residual, keep, weight, bias, mean, variance, w1, b1, w2, b2 = tensors
    v, batch_mean, batch_variance = u, None, None
    if spec.norm == "batch":
        # With momentum 1 the running statistics are the batch's.
        wide = accumulation_dtype(u.dtype)
        batch_mean, batch_variance = u.new_zeros(2, u.shape[1], dtype=wide).unbind()
        v = F.batch_norm(u, batch_mean, batch_variance, weight, bias, True, 1.0, spec.eps)
        if not len(u):
            batch_mean = batch_variance = None  # which there are none of
    elif spec.norm == "fixed":
        v = F.batch_norm(u, mean, variance, weight, bias, False, 0.0, spec.eps)
    v = ACTIVATIONS[spec.inner](v)
    gates = ONE_AT_ZERO if spec.one_at_zero else GATES
    s = excite(squeeze_avg(v), w1, b1, w2, b2, gates[spec.gate], ACTIVATIONS[spec.hidden])
    out = scale(v, s if keep is None else s * keep[:, None])
    if residual is not None:
        out = out + residual
    out = ACTIVATIONS[spec.outer](out)
    return TailResult(out, s, batch_mean, batch_variance, out if spec.fork else None)


def _over_map(s: Tensor, u: Tensor) -> Tensor:
    return s.to(u.dtype).reshape(*s.shape, *(1,) * (u.ndim - s.ndim))


def autocast_off(device_type: str) -> contextlib.AbstractContextManager[None]:
    """A region in which autocast lowers nothing."""
    # Entered only where autocast is on: a region would show up in every exported graph.
    # "meta" has no autocast to ask for (torch.amp.is_autocast_available would say so for any
    # device, but torch 2.11 cannot trace it).
    if device_type != "meta" and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()
