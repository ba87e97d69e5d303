"""The tail of a residual branch as one node of autograd: batch norm, SE, sum and activation.

``out = ψ(s ⊙ φ(v) + r)`` with ``v = norm(u)`` and ``s = gate(W2 δ(W1 z + b1) + b2)``, z the mean of
φ(v). The map is read and written 4 times forward and 7 times backward, as for batch norm, sum and
activation without SE: every sum that SE needs is a per-sample sum that batch norm takes anyway.
What is saved for backward is u, out (which the next layer saves too) and numbers per channel. Gradients
that shall be differentiated again are computed by the traceable form.

The steps over maps are operators (``operators``, documented in ``composite``); between them lies
work on (N, C) only. Statistics that several processes share are exchanged between the steps.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor

from senet.errors import BackendError
from senet.kernels.aten import traceable_tail
from senet.kernels.composite import positions
from senet.kernels.layout import dense
from senet.kernels.operators import steps
from senet.kernels.reference import Tail, TailResult, TailTensors, autocast_off


def fused_tail(spec: Tail, tensors: TailTensors, backend: str) -> TailResult:
    """The tail by the operators of one backend; see ``backends`` for who may be asked for what."""
    given = tensors.wide()
    u = dense(given.u, given.u)
    residual = None if given.residual is None else dense(given.residual, u)
    with autocast_off(u.device.type):
        return TailResult(*_Fused.apply(spec, backend, residual, u, *given[2:]))


class _Norm(NamedTuple):
    """A norm's numbers per channel, as both directions need them."""

    mean: Tensor
    inverse: Tensor
    scale: Tensor
    shift: Tensor


class _Fused(torch.autograd.Function):
    """One node; the two directions mirror each other, step by step."""

    @staticmethod
    def forward(
        ctx: Any, spec: Tail, backend: str, residual: Tensor | None, u: Tensor, *others: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        run = steps(backend)
        given = TailTensors(u, residual, *others)  # type: ignore[arg-type]
        keep, w1, b1, w2, b2 = given.keep, *given[7:]
        squeezed = _squeeze(run, spec, given)
        z, norm = squeezed.z, squeezed.norm
        entering, s = run.excitation(z, w1, b1, w2, b2, spec.hidden, spec.gate, spec.one_at_zero)
        gates = s if keep is None else s * keep[:, None]
        out = run.apply(u, *_affine(norm), gates, residual, spec.inner, spec.outer)

        ctx.spec, ctx.backend = spec, backend
        ctx.set_materialize_grads(False)
        batch = (squeezed.batch_mean, squeezed.batch_variance)
        ctx.mark_non_differentiable(*(each for each in batch if each is not None))
        kept_out = out if spec.outer != "identity" else None
        numbers = (squeezed.sample_mean, squeezed.share, entering, s, z, *(norm or (None,)))
        ctx.save_for_backward(u, *others, kept_out, *numbers)
        return out, s, *batch, out.detach() if spec.fork else None

    @staticmethod
    def backward(
        ctx: Any, g: Tensor | None, ds: Tensor | None, _mean: None, _variance: None, second: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        spec: Tail = ctx.spec
        run = steps(ctx.backend)
        given = TailTensors(ctx.saved_tensors[0], None, *ctx.saved_tensors[1:10])
        out, sample_mean, share, entering, s, z, *numbers = ctx.saved_tensors[10:]
        norm = _Norm(*numbers) if numbers[0] is not None else None
        u, keep = given.u, given.keep
        if g is None:
            g, second = second, None
        needs = ctx.needs_input_grad[2:]
        with autocast_off(u.device.type):
            g = torch.zeros_like(u) if g is None else dense(g, u)
            second = None if second is None else dense(second, u)
            if torch.is_grad_enabled():
                return None, None, *_differentiably(spec, given, needs, out, g, second, ds)
            masked, sums = run.reduce(g, out, u, *_affine(norm), spec.inner, second)
            gm = masked if masked.numel() else g
            gates = s if keep is None else s * keep[:, None]
            dz, dw1, db1, dw2, db2, dweight, dbias = run.gate_gradients(
                sums, ds, s, keep, entering, z, given.w1, given.w2, sample_mean,
                *((norm.mean, norm.inverse, norm.scale, norm.shift) if norm else (None,) * 4),
                positions(u), spec.inner, spec.hidden, spec.gate, spec.one_at_zero,
            )  # fmt: skip
            du = None
            if needs[1]:
                through: tuple[Tensor | None, ...] = (None, None, None)
                if norm is not None and spec.norm == "batch":
                    through = (norm.inverse, *_over_group(spec, share, dweight, dbias))
                count = u.numel() // u.shape[1]
                du = run.input_gradient(gm, u, *_affine(norm), gates, dz, *through, count, spec.inner)
        grads = (gm, du, None, dweight, dbias, None, None, dw1, db1, dw2, db2)
        return None, None, *(grad if need else None for grad, need in zip(grads, needs, strict=True))


def _differentiably(
    spec: Tail,
    given: TailTensors,
    needs: tuple[bool, ...],
    out: Tensor | None,
    g: Tensor,
    second: Tensor | None,
    ds: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """The gradients so that they can be differentiated again, by the traceable form."""
    if spec.group is not None:
        raise BackendError(
            "a gradient of a gradient",
            found="the norm shares its statistics with other processes",
            allowed="to be differentiated once",
            do="Take second gradients on one process, or with the norm in evaluation mode.",
        )
    gm = g if second is None else g + second
    gm = gm if out is None else torch.where(out <= 0, 0, gm)
    branch = traceable_tail(dataclasses.replace(spec, outer="identity", fork=False), given)
    inputs = (given.u, *given[2:])
    wanted = [each for each, need in zip(inputs, needs[1:], strict=True) if need and each is not None]
    # Where the branch is half as precise as the sum, autograd makes its gradient so too.
    outputs, incoming = [branch.out], [gm]
    if ds is not None:
        outputs, incoming = [branch.out, branch.s], [*incoming, ds]
    grads = iter(torch.autograd.grad(outputs, wanted, incoming, create_graph=True, allow_unused=True))
    found = (
        next(grads) if need and each is not None else None
        for each, need in zip(inputs, needs[1:], strict=True)
    )
    return gm if needs[0] else None, *found


class _Squeezed(NamedTuple):
    """The squeezed map, and what was needed for it."""

    z: Tensor
    norm: _Norm | None = None
    sample_mean: Tensor | None = None
    batch_mean: Tensor | None = None
    batch_variance: Tensor | None = None
    # This process's part of the numbers that the statistics are of; None for all.
    share: Tensor | None = None


def _squeeze(run: Any, spec: Tail, given: TailTensors) -> _Squeezed:
    """The squeezed map and the norm's numbers, in one pass over the map without φ and in two with."""
    u = given.u
    if spec.norm == "none":
        return _Squeezed(run.pool(u, None, None, None, spec.inner))
    weight = u.new_ones(u.shape[1], dtype=given.w1.dtype) if given.weight is None else given.weight
    bias = torch.zeros_like(weight) if given.bias is None else given.bias
    if spec.norm == "fixed":
        fixed, inverse = given.fixed(spec.eps)
        norm = _Norm(fixed, inverse, weight * inverse, bias)
        if spec.inner != "identity":
            return _Squeezed(run.pool(u, *_affine(norm), spec.inner), norm)
        mean = run.pool(u, None, None, None, spec.inner)
        return _Squeezed(norm.scale * (mean - norm.mean) + norm.shift, norm, mean)
    mean, variance = run.moments(u)
    if spec.group is None:
        mu, unbiased, inverse, scale, z = run.statistics(mean, variance, weight, bias, spec.eps, positions(u))
        squeezed = _Squeezed(z, _Norm(mu, inverse, scale, bias), mean, mu, unbiased)
    else:
        squeezed = _shared_statistics(spec, mean, variance, weight, bias, positions(u))
    if spec.inner == "identity":
        return squeezed
    return squeezed._replace(z=run.pool(u, *_affine(squeezed.norm), spec.inner))


def _affine(norm: _Norm | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    return (None, None, None) if norm is None else (norm.scale, norm.mean, norm.shift)


def _shared_statistics(
    spec: Tail, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, size: int
) -> _Squeezed:
    """As the step ``statistics``, over all processes of the group, whose batches may differ in size."""
    own_mean = mean.mean(0)
    own_variance = variance.mean(0) + (mean - own_mean).square().mean(0)
    count = own_mean.new_full((1,), mean.shape[0] * size)
    own = torch.cat([own_mean, own_variance, count])
    every = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size(spec.group))]
    torch.distributed.all_gather(every, own, group=spec.group)
    gathered, channels = torch.stack(every), len(own_mean)
    means, variances, counts = gathered[:, :channels], gathered[:, channels:-1], gathered[:, -1:]
    total = counts.sum()
    shares = counts / total
    mu = (means * shares).sum(0)
    biased = ((variances + (means - mu).square()) * shares).sum(0)
    inverse = torch.rsqrt(biased + spec.eps)
    scale = weight * inverse
    unbiased = biased * (total / (total - 1))
    z = scale * (mean - mu) + bias
    return _Squeezed(z, _Norm(mu, inverse, scale, bias), mean, mu, unbiased, count / total)


def _over_group(spec: Tail, share: Tensor | None, dweight: Tensor, dbias: Tensor) -> tuple[Tensor, Tensor]:
    """The norm's gradients over all processes that share its statistics, as if this one had all."""
    if share is None:
        return dweight, dbias
    both = torch.stack([dweight, dbias])
    torch.distributed.all_reduce(both, group=spec.group)
    # Divided by this process's count later: the true one would have to be waited for.
    both = both * share
    return both[0], both[1]
