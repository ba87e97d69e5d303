"""The tail in plain operations, for compilers and exporters.

The squeeze comes from the moments that batch norm takes, before its affine part, so a compiler
finds one reduction and one pointwise expression where the layers one by one have two of each. Under
Dynamo the moments and the affine part have backwards of their own, in plain operations too: those of
autograd make a compiler read maps again, or keep one in float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from senet.kernels.activations import ACTIVATIONS
from senet.kernels.reference import (
    GATES,
    ONE_AT_ZERO,
    Tail,
    TailResult,
    TailTensors,
    accumulation_dtype,
    autocast_off,
)


def traceable_tail(spec: Tail, tensors: TailTensors) -> TailResult:
    """The tail, see ``fused``; the statistics are this process's own."""
    with autocast_off(tensors.u.device.type):
        return _tail(spec, tensors)


def traceable_norm(
    u: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch norm alone, its moments taken by sample as the tail takes them.

    For the norm of a projected shortcut: its sums and the tail's go over one gradient, and sums of one
    shape are one sweep for a compiler, where a sum by sample and one by batch are two.

    Returns:
        The map, and the batch's mean and unbiased variance (C,).
    """
    with autocast_off(u.device.type):
        wide = u.to(accumulation_dtype(u.dtype))
        taken = _statistics(wide, eps)
        scale = taken.inverse if weight is None else weight * taken.inverse
        shift = torch.zeros_like(scale) if bias is None else bias
        by_sample = scale.expand_as(taken.sample_mean), shift.expand_as(taken.sample_mean)
        out = _affine(wide, taken.mean, *by_sample, None, u.dtype)
        return out, taken.mean.detach(), taken.unbiased


class _Statistics(NamedTuple):
    """What a norm takes from its batch: (N, C), then (C,)."""

    sample_mean: Tensor
    mean: Tensor
    inverse: Tensor
    unbiased: Tensor


def _statistics(wide: Tensor, eps: float) -> _Statistics:
    sample_mean, sample_variance = _moments(wide)
    mean = sample_mean.mean(0)
    variance = sample_variance.mean(0) + (sample_mean - mean).square().mean(0)
    count = wide.numel() // wide.shape[1]
    unbiased = (variance * (count / (count - 1))).detach()
    return _Statistics(sample_mean, mean, torch.rsqrt(variance + eps), unbiased)


def _tail(spec: Tail, tensors: TailTensors) -> TailResult:
    u, residual, keep, weight, bias, _, _, w1, b1, w2, b2 = given = tensors.wide()
    wide = u.to(accumulation_dtype(u.dtype))
    spatial = tuple(range(2, u.ndim))
    activation = ACTIVATIONS[spec.inner].forward
    batch_mean = batch_variance = v = None
    if spec.norm == "none":
        v = activation(wide)
        z = v.mean(spatial)
    else:
        if spec.norm == "batch":
            sample_mean, mean, inverse, batch_variance = _statistics(wide, spec.eps)
            batch_mean = mean.detach()
        else:
            mean, inverse = given.fixed(spec.eps)
        scale = inverse if weight is None else weight * inverse
        shift = torch.zeros_like(scale) if bias is None else bias
        # With fixed statistics Inf in a map stays where it is, but may make a ReLU's gates Inf: multiplied
        # into scale and shift they would give Inf − Inf.
        if spec.norm == "batch" and spec.inner == "identity":
            z = scale * (sample_mean - mean) + shift
        else:
            v = activation(_over_map(scale, u) * (wide - _over_map(mean, u)) + _over_map(shift, u))
            z = v.mean(spatial)
    gates = ONE_AT_ZERO if spec.one_at_zero else GATES
    s = gates[spec.gate](F.linear(ACTIVATIONS[spec.hidden].forward(F.linear(z, w1, b1)), w2, b2))
    gate = s if keep is None else s * keep[:, None]
    if v is None:
        out = _affine(wide, mean, scale * gate, shift * gate, residual, u.dtype)
    else:
        out = _plus(v * _over_map(gate, u), residual, u.dtype)
    # ψ after the rounding, which it does not see: what the backward needs of it is then out itself, which
    # the next layer keeps too, and not a mask beside it.
    out = ACTIVATIONS[spec.outer].forward(out)
    return TailResult(out, s, batch_mean, batch_variance, out if spec.fork else None)


def _plus(branch: Tensor, residual: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The sum, rounded once: to the dtype of u and the residual together."""
    if residual is None:
        return _cast(branch, dtype)
    same = residual.dtype == dtype
    return _cast(branch + residual, dtype if same else torch.promote_types(dtype, residual.dtype))


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # A cast that changes nothing, inside an autograd function, loses gradients in torch 2.11's Dynamo.
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def _moments(wide: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and mean squared deviation from it, of each channel of each sample."""
    if _differentiated_by_hand():
        taken: tuple[Tensor, Tensor] = _Moments.apply(wide)
        return taken
    variance, mean = torch.var_mean(wide, tuple(range(2, wide.ndim)), correction=0)
    return mean, variance


def _affine(
    wide: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The map scale · (u − mean) + shift + r, with scale and shift (N, C), for u and r of ``dtype``."""
    if not _differentiated_by_hand():
        centred = wide - _over_map(mean, wide)
        return _plus(_over_map(scale, wide) * centred + _over_map(shift, wide), residual, dtype)
    # The mean's gradient goes by the (N, C) numbers: by the map it would be a sum over it of its own.
    fixed = mean.detach()
    shift = shift - (mean - fixed) * scale
    out: Tensor = _Affine.apply(wide, fixed, scale, shift, residual, dtype)
    return out


def _differentiated_by_hand() -> bool:
    # An exported graph shall hold plain operations, and is not traced by Dynamo by default. (Within Dynamo,
    # torch 2.11 takes torch.compiler.is_exporting() for True.)
    return torch.compiler.is_dynamo_compiling()


class _Moments(torch.autograd.Function):
    """var_mean, whose own backward takes the mean anew: a pass."""

    @staticmethod
    def forward(ctx: Any, wide: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(wide, tuple(range(2, wide.ndim)), correction=0)
        ctx.save_for_backward(wide, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, dmean: Tensor, dvariance: Tensor) -> Tensor:
        wide: Tensor
        wide, mean = ctx.saved_tensors
        size = wide[0, 0].numel()
        slope = _over_map(2 * dvariance / size, wide)
        return slope * (wide - _over_map(mean, wide)) + _over_map(dmean / size, wide)


class _Affine(torch.autograd.Function):
    """The map of ``_affine``, its two sums taken in one sweep over a gradient that stays narrow."""

    @staticmethod
    def forward(
        ctx: Any,
        wide: Tensor,
        mean: Tensor,
        scale: Tensor,
        shift: Tensor,
        residual: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(wide, mean, scale)
        ctx.residual = None if residual is None else residual.dtype
        centred = wide - _over_map(mean, wide)
        return _plus(_over_map(scale, wide) * centred + _over_map(shift, wide), residual, dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        wide, mean, scale = ctx.saved_tensors
        spatial = tuple(range(2, wide.ndim))
        # The other way round than forward: the same expression would be one node of the joint graph, and
        # as a map in float32 be kept for the backward.
        minus_centred = _over_map(mean, wide) - wide
        # The residual's gradient is g before it is widened: what is written to memory is then that.
        dresidual = None if ctx.residual is None else _cast(g, ctx.residual)
        g = _cast(g, wide.dtype)
        dscale = -(g * minus_centred).sum(spatial)
        return _over_map(scale, wide) * g, None, dscale, g.sum(spatial), dresidual, None


def _over_map(factor: Tensor, u: Tensor) -> Tensor:
    return factor.reshape(*factor.shape, *(1,) * (u.ndim - 2))
