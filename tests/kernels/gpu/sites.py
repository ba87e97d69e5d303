"""All launches of a tail, forward and backward, on tensors without memory: of any size."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from tests.kernels.gpu.cases import LAST
from tests.kernels.gpu.compiling import Launch, recorded
from torch import Tensor

from senet.kernels import gpu
from senet.kernels.composite import positions


class Site(NamedTuple):
    """The form of a tail; see ``fused.Tail``."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.bfloat16
    last: bool = True
    norm: str = "batch"
    inner: str = "identity"
    outer: str = "relu"
    residual: bool = True
    width: int = 16
    hidden: str = "relu"
    gate: str = "sigmoid"
    other: torch.dtype | None = None
    fork: bool = False


def launches(site: Site) -> tuple[list[Launch], list[Launch]]:
    """What the forward and the backward of a tail start, step by step as ``fused`` does."""
    samples, channels = site.shape[:2]
    form = LAST[len(site.shape)] if site.last else torch.contiguous_format

    def each_map(dtype: torch.dtype) -> Tensor:
        return torch.empty(site.shape, dtype=dtype, device="meta").contiguous(memory_format=form)

    def numbers(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta")

    # Without types, which do not follow a tuple of unknown length.
    steps: Any = gpu
    u, other = each_map(site.dtype), each_map(site.other or site.dtype)
    size, c, nc = positions(u), numbers(channels), numbers(samples, channels)
    w1, w2 = numbers(site.width, channels), numbers(channels, site.width)
    norm: Any = (None, None, None) if site.norm == "none" else (c, c, c)
    excited: Any = (site.hidden, site.gate, False)
    with recorded() as forward:
        if site.norm == "batch":
            steps.moments(u)
            steps.statistics(nc, nc, c, c, 1e-5, size)
        if site.norm != "batch" or site.inner != "identity":
            steps.pool(u, *(norm if site.inner != "identity" else (None,) * 3), site.inner)
        steps.excitation(nc, w1, numbers(site.width), w2, c, *excited)
        out = steps.apply(u, *norm, nc, other if site.residual else None, site.inner, site.outer)
    with recorded() as backward:
        kept = out if site.outer != "identity" else None
        masked, sums = steps.reduce(other, kept, u, *norm, site.inner, other if site.fork else None)
        gm = masked if masked.numel() else other
        of_norm: Any = (c if site.norm != "none" else None,) * 4
        first = nc if site.norm != "none" and site.inner == "identity" else None
        steps.gate_gradients(
            sums, None, nc, None, numbers(samples, site.width), nc, w1, w2, first, *of_norm,
            size, site.inner, *excited,
        )  # fmt: skip
        through: Any = (c, c, c) if site.norm == "batch" else (None, None, None)
        steps.input_gradient(gm, u, *norm, nc, nc, *through, samples * size, site.inner)
    return forward, backward
