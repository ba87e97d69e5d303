"""The plain network with the kernels of the tail: what the kernels win, apart from what SE costs.

Batch norm, sum and ReLU at the end of each residual branch, by the same steps as with SE and without
the excitation between them. For measuring only: plain networks are no business of senet's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from senet import normalisation
from senet.kernels.backends import chosen
from senet.kernels.layout import dense
from senet.kernels.operators import steps
from senet.kernels.reference import Tail, accumulation_dtype
from senet.models.units import ResidualUnit


def with_kernels(model: nn.Module) -> nn.Module:
    """Lets the plain units of a network of ours end in one operation."""
    for module in model.modules():
        if isinstance(module, ResidualUnit) and module.se is None:
            module.run = partial(_run, module)  # type: ignore[method-assign]
    return model


def _run(unit: Any, x: Tensor, twin: Tensor, *, fork: bool = False) -> tuple[Tensor, Tensor]:
    u, norm = unit.branch(x)
    r = unit.shortcut(twin)
    if not norm.training:
        out = torch.relu(norm(u) + r)
        return out, out
    u = dense(u, u)
    dtype = accumulation_dtype(u.dtype)
    wide = norm.weight.to(dtype), norm.bias.to(dtype)
    out, mean, variance = _Plain.apply(chosen(Tail(), u).name, norm.eps, u, dense(r, u), *wide)
    normalisation.update(norm, mean, variance)
    return out, out


class _Plain(torch.autograd.Function):
    """relu(batch_norm(u) + r), in 4 + 7 passes."""

    @staticmethod
    def forward(
        ctx: Any, backend: str, eps: float, u: Tensor, r: Tensor, weight: Tensor, bias: Tensor
    ) -> Any:
        run = steps(backend)
        size = u[0, 0].numel()
        mean, unbiased, inverse, scale, z = run.statistics(*run.moments(u), weight, bias, eps, size)
        ones = torch.ones_like(z)
        out = run.apply(u, scale, mean, bias, ones, r, "identity", "relu")
        ctx.backend = backend
        ctx.save_for_backward(u, out, scale, mean, bias, inverse, ones)
        ctx.mark_non_differentiable(mean, unbiased)
        return out, mean, unbiased

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        run = steps(ctx.backend)
        u, out, scale, mean, bias, inverse, ones = ctx.saved_tensors
        affine = scale, mean, bias
        masked, sums = run.reduce(dense(g, u), out, u, *affine, "identity", None)
        dbias, dweight = sums[0].sum(0), inverse * sums[1].sum(0)
        count = u.numel() // u.shape[1]
        nothing = torch.zeros_like(ones)
        du = run.input_gradient(masked, u, *affine, ones, nothing, inverse, dweight, dbias, count, "identity")
        return None, None, du, masked, dweight, dbias
