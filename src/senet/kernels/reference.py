"""Squeeze, excitation and scale in plain PyTorch: the truth that fast forms are held to.

Notation, as in the paper: a map u is (N, C, *spatial), z the squeezed map (N, C), s the
gate (N, C). Float16 and bfloat16 maps are squeezed and gated in float32, whatever
autocast says: a sum of a 112 × 112 map overflows float16 long before its mean does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

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


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of z and s for a map of ``dtype``: at least float32."""
    return torch.promote_types(dtype, torch.float32)


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


SQUEEZES: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "avg": squeeze_avg,
    "max": squeeze_max,
}


def excite(
    z: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    gate: Gate,
) -> Tensor:
    """Equation 3: s = gate(W2 relu(W1 z + b1) + b2), in the dtype of z.

    Shapes: z (N, C), w1 (hidden, C), b1 (hidden,), w2 (C, hidden), b2 (C,); s is (N, C).
    """
    with _autocast_off(z.device.type):
        w1, w2 = w1.to(z.dtype), w2.to(z.dtype)
        b1 = None if b1 is None else b1.to(z.dtype)
        b2 = None if b2 is None else b2.to(z.dtype)
        return gate(F.linear(F.linear(z, w1, b1).relu(), w2, b2))


def scale(u: Tensor, s: Tensor) -> Tensor:
    """Equation 4: each channel times its gate, in the dtype and memory format of u."""
    return u * _over_map(s, u)


def scale_add(u: Tensor, s: Tensor, residual: Tensor, *, relu: bool = False) -> Tensor:
    """The authors' Axpy layer, s ⊙ u + residual; then ReLU, if asked."""
    out = u * _over_map(s, u) + residual
    return out.relu() if relu else out


def _over_map(s: Tensor, u: Tensor) -> Tensor:
    return s.to(u.dtype).reshape(*s.shape, *(1,) * (u.ndim - 2))


def _autocast_off(device_type: str) -> contextlib.AbstractContextManager[None]:
    # Entered only where autocast is on: a region would show up in every exported graph.
    # "meta" has no autocast to ask for (torch.amp.is_autocast_available would say so for any
    # device, but torch 2.11 cannot trace it).
    if device_type != "meta" and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()
