"""The operators of the fused tail in plain PyTorch: what the native ones are compared with.

The tail of a residual branch is ``out = ψ(s ⊙ φ(v) + r)`` with ``v = scale · (u − mean) + shift``
per channel, which is what batch norm does. φ, the inner activation, stands before SE (MBConv, RegNet)
and is the identity at the end of a residual branch; ψ, the outer one, comes after the sum. Without
a norm, ``v = u`` and scale, mean and shift are None.

Shapes: a map is (N, C, *spatial) with S positions; gates, squeezed maps and sums are (N, C), scale,
mean and shift (C,), all of these in the accumulation dtype (float32, or float64 for float64 maps).
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from senet.kernels.activations import ACTIVATIONS, GATE_DERIVATIVES, ONE_AT_ZERO_DERIVATIVES
from senet.kernels.reference import GATES, ONE_AT_ZERO, accumulation_dtype


def moments(u: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and mean squared deviation from it, of each channel of each sample."""
    wide = u.to(accumulation_dtype(u.dtype))
    variance, mean = torch.var_mean(wide, _spatial(u), correction=0)
    return mean, variance


def pool(u: Tensor, scale: Tensor | None, mean: Tensor | None, shift: Tensor | None, inner: str) -> Tensor:
    """z: the mean of φ(v) over the positions."""
    v, _ = _normalised(u, scale, mean, shift)
    return ACTIVATIONS[inner].forward(v).mean(_spatial(u))


def apply(
    u: Tensor,
    scale: Tensor | None,
    mean: Tensor | None,
    shift: Tensor | None,
    gate: Tensor,
    residual: Tensor | None,
    inner: str,
    outer: str,
) -> Tensor:
    """The map out = ψ(s ⊙ φ(v) + r), in the dtype of u and r together and the memory format of u."""
    v, _ = _normalised(u, scale, mean, shift)
    out = _over_map(gate, u) * ACTIVATIONS[inner].forward(v)
    dtype = u.dtype
    if residual is not None:
        out = out + residual
        dtype = torch.promote_types(dtype, residual.dtype)
    return ACTIVATIONS[outer].forward(out).to(dtype)


def reduce(
    g: Tensor,
    out: Tensor | None,
    u: Tensor,
    scale: Tensor | None,
    mean: Tensor | None,
    shift: Tensor | None,
    inner: str,
    second: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The first sweep of the backward.

    ``g`` is the gradient of out, or of the one of its two readers, ``second`` that of the other;
    ``out`` is what the forward gave where ψ is the ReLU, None where there is no ψ; the rest is as the
    forward had it.

    Returns:
        The gradient gm before ψ, a map of g's dtype, empty where it is g itself, and the sums over
        positions. Without φ they are (2, N, C): Σ gm and Σ gm · (u − mean). With φ (5, N, C):
        Σ gm φ, Σ gm φ′, Σ gm φ′ (u − mean), Σ φ′ and Σ φ′ (u − mean).
    """
    v, centred = _normalised(u, scale, mean, shift)
    gm = g if second is None else g.to(torch.promote_types(g.dtype, v.dtype)) + second
    if out is not None:
        gm = torch.where(out <= 0, 0, gm)
    masked = g.new_empty(0) if out is None and second is None else gm.to(g.dtype)
    gm = gm.to(v.dtype)
    if inner == "identity":
        terms = [gm, gm * centred]
    else:
        slope = ACTIVATIONS[inner].derivative(v)
        passed = gm * slope
        terms = [gm * ACTIVATIONS[inner].forward(v), passed, passed * centred, slope, slope * centred]
    return masked, torch.stack([term.sum(_spatial(u)) for term in terms])


def input_gradient(
    gm: Tensor,
    u: Tensor,
    scale: Tensor | None,
    mean: Tensor | None,
    shift: Tensor | None,
    gate: Tensor,
    dz: Tensor,
    inverse: Tensor | None,
    dweight: Tensor | None,
    dbias: Tensor | None,
    count: int,
    inner: str,
) -> Tensor:
    """The second sweep: scale · [φ′(v) (s gm + dz / S) − (dbias + x̂ dweight) / count], like u.

    ``gm`` is the gradient before ψ and ``dz`` (N, C) that of the squeezed map. ``inverse`` (C,) is
    1 / √(variance + eps), so x̂ = inverse · (u − mean); ``dweight`` and ``dbias`` (C,) are the
    gradients of the norm's weight and bias over all processes that share its statistics, and
    ``count`` is how many numbers a channel's statistics were taken of, N · S on one process. The
    three are None where the statistics are not the batch's: nothing comes back through them.
    """
    v, centred = _normalised(u, scale, mean, shift)
    du = _over_map(gate, u) * gm.to(v.dtype) + _over_map(dz / positions(u), u)
    if inner != "identity":
        du = ACTIVATIONS[inner].derivative(v) * du
    if inverse is not None and dweight is not None and dbias is not None:
        du = du - _over_map(dbias / count, u) - _over_map(inverse * dweight / count, u) * centred
    if scale is not None:
        du = _over_map(scale, u) * du
    return du.to(u.dtype)


def statistics(
    mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float, positions: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """From the moments of samples to those of the batch, and to the squeeze of its normalised map.

    ``mean`` and ``variance`` (N, C) are of ``moments``, ``weight``, ``bias`` (C,) and eps of the norm,
    ``positions`` is S.

    Returns:
        The batch's mean and unbiased variance (C,), the norm's 1 / √(variance + eps) and scale (C,),
        and z (N, C), the mean of scale · (u − mean) + bias.
    """
    mu = mean.mean(0)
    biased = variance.mean(0) + (mean - mu).square().mean(0)
    inverse = (biased + eps).rsqrt()
    scale = weight * inverse
    count = mean.shape[0] * positions
    return mu, biased * (count / (count - 1)), inverse, scale, scale * (mean - mu) + bias


def excitation(
    z: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    hidden: str,
    gate: str,
    one_at_zero: bool,
) -> tuple[Tensor, Tensor]:
    """Equation 3: what enters the hidden activation (N, hidden), and s (N, C)."""
    entering = torch.nn.functional.linear(z, w1, b1)
    gates = ONE_AT_ZERO if one_at_zero else GATES
    s = gates[gate](torch.nn.functional.linear(ACTIVATIONS[hidden].forward(entering), w2, b2))
    return entering, s


def gate_gradients(
    sums: Tensor,
    ds: Tensor | None,
    s: Tensor,
    keep: Tensor | None,
    entering: Tensor,
    z: Tensor,
    w1: Tensor,
    w2: Tensor,
    sample_mean: Tensor | None,
    mean: Tensor | None,
    inverse: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    positions: int,
    inner: str,
    hidden: str,
    gate: str,
    one_at_zero: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Everything between the two sweeps: from the sums to the gradients of z and of the parameters.

    ``sums`` are of ``reduce``; ``ds`` (N, C) is the gradient of s from elsewhere than out, None for
    none. ``s`` (N, C), ``entering`` (N, hidden) and ``z`` (N, C) are as ``excitation`` had and gave
    them, ``keep`` (N,) is what drop-path multiplied a sample's gates with, None for 1,
    ``sample_mean`` (N, C) is of ``moments``, read with a norm and without φ; ``mean``, ``inverse``,
    ``scale`` and ``shift`` (C,) are of the norm, None without; ``positions`` is S.

    Returns:
        The gradients of z, w1, b1, w2, b2, and of the norm's weight and bias, which are empty
        without a norm.
    """
    gates = s if keep is None else s * keep[:, None]
    if inner != "identity":
        dk = sums[0]
    elif scale is None or shift is None:
        dk = sums[1]
    else:
        dk = scale * sums[1] + shift * sums[0]
    total = dk if keep is None else dk * keep[:, None]
    total = total if ds is None else total + ds

    derivatives = ONE_AT_ZERO_DERIVATIVES if one_at_zero else GATE_DERIVATIVES
    activation = ACTIVATIONS[hidden]
    dy = total * derivatives[gate](s)
    dt = (dy @ w2) * activation.derivative(entering)
    dz = dt @ w1
    excited = dz, dt.T @ z, dt.sum(0), dy.T @ activation.forward(entering), dy.sum(0)
    if inverse is None:
        return *excited, s.new_empty(0), s.new_empty(0)
    if inner != "identity":
        dbias = gates * sums[1] + dz * (sums[3] / positions)
        dweight = gates * sums[2] + dz * (sums[4] / positions)
    elif sample_mean is not None and mean is not None:
        dbias = gates * sums[0] + dz
        dweight = gates * sums[1] + dz * (sample_mean - mean)
    return *excited, inverse * dweight.sum(0), dbias.sum(0)


def _normalised(
    u: Tensor, scale: Tensor | None, mean: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The normalised map v and u − mean; without a norm both are u."""
    wide = u.to(accumulation_dtype(u.dtype))
    if scale is None or mean is None or shift is None:
        return wide, wide
    centred = wide - _over_map(mean, u)
    return torch.addcmul(_over_map(shift, u), _over_map(scale, u), centred), centred


def _over_map(factor: Tensor, u: Tensor) -> Tensor:
    """(C,) or (N, C), so that it multiplies a map."""
    return factor.reshape(*factor.shape, *(1,) * (u.ndim - 2))


def _spatial(u: Tensor) -> tuple[int, ...]:
    return tuple(range(2, u.ndim))


def positions(u: Tensor) -> int:
    """S, of a map (N, C, *spatial)."""
    return prod(u.shape[2:])
