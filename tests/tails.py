"""Random tails of branches, for the tests of the forms that compute them."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from senet.kernels.reference import GATES, Tail, TailResult, TailTensors

SPECS = st.builds(
    Tail,
    norm=st.sampled_from(["batch", "fixed", "none"]),
    inner=st.sampled_from(["identity", "relu", "silu", "hardswish"]),
    outer=st.sampled_from(["identity", "relu"]),
    hidden=st.sampled_from(["relu", "silu", "hardswish"]),
    gate=st.sampled_from(sorted(GATES)),
    one_at_zero=st.booleans(),
    eps=st.sampled_from([1e-5, 1e-3]),
)
SHAPES = st.tuples(st.integers(2, 3), st.integers(1, 5)).flatmap(
    lambda head: st.lists(st.integers(1, 5), min_size=1, max_size=3).map(lambda spatial: (*head, *spatial))
)


def random_tail(
    spec: Tail,
    shape: tuple[int, ...],
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float64,
    parameters: torch.dtype | None = None,
    residual: bool = True,
    keep: bool = False,
    bias: bool = True,
    hidden: int = 3,
    mean: float = 0.0,
) -> TailTensors:
    """The tensors of a tail; what learns requires gradients."""
    generator = torch.Generator().manual_seed(seed)
    n, channels = shape[:2]
    parameters = parameters or dtype

    def random(*size: int, of: torch.dtype = parameters, learns: bool = True) -> Tensor:
        return torch.randn(size, generator=generator).to(of).requires_grad_(learns)

    normed = spec.norm != "none"
    fixed = spec.norm == "fixed"
    return TailTensors(
        (mean + random(*shape, of=torch.float64, learns=False)).to(dtype).requires_grad_(),
        random(*shape, of=dtype) if residual else None,
        torch.rand(n, generator=generator).to(parameters) if keep else None,
        random(channels) if normed and bias else None,
        random(channels) if normed and bias else None,
        random(channels, learns=False) if fixed else None,
        (random(channels, learns=False).square() + 0.5) if fixed else None,
        random(hidden, channels),
        random(hidden) if bias else None,
        random(channels, hidden),
        random(channels) if bias else None,
    )


def gradients(result: TailResult, tensors: TailTensors, seed: int = 1) -> list[Tensor]:
    """What comes back to everything that learns from random gradients of the map and of the gates."""
    generator = torch.Generator().manual_seed(seed)
    leaves = [each for each in tensors if each is not None and each.requires_grad]
    outputs = [result.out, result.s]
    incoming = [torch.randn(each.shape, generator=generator).to(each.dtype) for each in outputs]
    return list(torch.autograd.grad(outputs, leaves, incoming))


def worst(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest error of any tensor, relative to the largest of its numbers."""
    return max(
        ((one.double() - other.double()).abs().max() / other.double().abs().max().clamp(min=1e-3)).item()
        for one, other in zip(found, wanted, strict=True)
    )


def doubled(tensors: TailTensors) -> TailTensors:
    """The same numbers in float64."""

    def twin(tensor: Tensor | None) -> Any:
        return None if tensor is None else tensor.detach().double().requires_grad_(tensor.requires_grad)

    return TailTensors(*map(twin, tensors))
