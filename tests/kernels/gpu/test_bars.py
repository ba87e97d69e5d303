"""The bars of ``tests/bars.py`` for the kernels in Triton, step by step as the fused tail takes them."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from tests import bars
from tests.kernels.gpu.cases import DEVICE
from torch import Tensor

from senet.kernels import gpu
from senet.kernels.fused import fused_tail
from senet.kernels.reference import Tail, TailResult, TailTensors


def run(spec: Tail, tensors: TailTensors) -> TailResult:
    """On the device there is, from and to the CPU."""
    there: Any = [None if each is None else each.to(DEVICE) for each in tensors]
    result = fused_tail(spec, TailTensors(*there), "triton")
    back: Any = [None if each is None else each.cpu() for each in result]
    return TailResult(*back)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", bars.FORWARD)
@pytest.mark.parametrize("spec", bars.FORMS[::3], ids=str)
def test_parity_with_float64(spec: Tail, dtype: torch.dtype, last: bool) -> None:
    bars.check_parity(run, spec, dtype, last)


@settings(max_examples=15)
@given(**bars.SPOILT)
def test_what_is_not_finite_is_so_in_the_same_places(**drawn: Any) -> None:
    bars.check_nonfinite({"triton": run}, **drawn)


@pytest.mark.slow
@settings(max_examples=200)
@given(**bars.SPOILT)
def test_what_is_not_finite_is_so_in_the_same_places_again(**drawn: Any) -> None:
    bars.check_nonfinite({"triton": run}, **drawn)


@pytest.mark.parametrize("name", [each for each in bars.MAPS if each != "1x70000"])
def test_awkward_maps(name: str) -> None:
    bars.check_awkward(run, name, Tail("fixed"))


def test_the_same_numbers_give_the_same_bits() -> None:
    bars.check_repeated(run, Tail())


# The last on a GPU only: the interpreter needs minutes for it.
SIZES = [
    (1, 1),
    (7, 7),
    (112, 112),
    pytest.param((301, 300), marks=pytest.mark.slow),
    pytest.param((4096, 4096), marks=pytest.mark.gpu),
]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_squeeze_of_huge_half_precision_maps(
    dtype: torch.dtype, size: tuple[int, int], last: bool
) -> None:
    for u in bars.huge(dtype, size, last):
        there: Tensor = u.to(DEVICE)
        bars.check_squeezed(gpu.pool(there, None, None, None, "identity").cpu(), u)
        bars.check_squeezed(gpu.moments(there)[0].cpu(), u)


def test_near_the_limit_of_float32_the_squeeze_is_that_of_eager_pytorch() -> None:
    for size in ((1, 1), (1, 2), (9, 11)):
        u = torch.tensor([3e38, -3e38, 1e38 / 50], device=DEVICE).reshape(1, 3, 1, 1).repeat(1, 1, *size)
        assert bars.same_kind(gpu.pool(u, None, None, None, "identity"), u.mean((2, 3)))
