from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tails import SHAPES, SPECS, doubled, gradients, random_tail, worst
from torch import Tensor

from senet.kernels.aten import traceable_tail
from senet.kernels.reference import Tail, TailTensors, tail


@given(SPECS, SHAPES, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_it_computes_what_the_layers_compute(
    spec: Tail, shape: tuple[int, ...], residual: bool, keep: bool, bias: bool, seed: int
) -> None:
    tensors = random_tail(spec, shape, seed, residual=residual, keep=keep, bias=bias)
    found, wanted = traceable_tail(spec, tensors), tail(spec, tensors)
    assert worst(list(found[:2]), list(wanted[:2])) < 1e-12
    assert worst(gradients(found, tensors), gradients(wanted, tensors)) < 1e-9
    assert (found.mean is None) == (wanted.mean is None)
    if found.mean is not None and found.variance is not None:
        torch.testing.assert_close((found.mean, found.variance), (wanted.mean, wanted.variance))


def test_it_is_differentiable_twice() -> None:
    spec = Tail(outer="identity", hidden="silu")
    tensors = random_tail(spec, (2, 2, 2, 2))

    def run(u: Tensor, w1: Tensor) -> Tensor:
        return traceable_tail(spec, tensors._replace(u=u, w1=w1)).out

    assert torch.autograd.gradgradcheck(run, (tensors.u, tensors.w1))


def test_half_precision_is_summed_in_single_under_autocast_too() -> None:
    tensors = random_tail(Tail(), (4, 8, 7, 5), dtype=torch.bfloat16, parameters=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = traceable_tail(Tail(), tensors)
    wanted = tail(Tail(), doubled(tensors))
    assert (found.out.dtype, found.s.dtype) == (torch.bfloat16, torch.float32)
    assert worst([found.out], [wanted.out]) < 8e-3
    assert worst([found.s], [wanted.s]) < 1e-6


def test_an_ensemble_runs_by_vmap() -> None:
    members = [random_tail(Tail(), (2, 3, 4, 4), seed) for seed in range(3)]
    columns: list[Any] = list(zip(*members, strict=True))
    stacked = {index: torch.stack(each) for index, each in enumerate(columns) if each[0] is not None}

    def run(tensors: dict[int, Any]) -> Tensor:
        return traceable_tail(Tail(), TailTensors(*(tensors.get(index) for index in range(11)))).out  # type: ignore[arg-type]

    found = torch.func.vmap(run)(stacked)
    torch.testing.assert_close(found, torch.stack([tail(Tail(), member).out for member in members]))
