from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from tests.kernels.gpu.cases import DEVICE, INNER, Case, Drawn, cases, error, expected, same_kind
from tests.kernels.poison import poisoned
from torch import Tensor

from senet.kernels import composite, gpu

# Of the table: tiles of whole and of partial rows and lanes, several tiles, several parts.
TABLE = [
    Case((2, 72, 9, 9), last=True),
    Case((2, 64, 16, 9), last=True, dtype=torch.bfloat16),
    Case((1, 3, 40, 33), last=True),
    Case((2, 5, 3, 2), last=True),
    Case((1, 530, 1, 2), last=True),
    Case((2, 40, 1, 1)),
    Case((2, 70, 3)),
    Case((1, 17, 8, 8)),
    Case((1, 3, 9, 40), dtype=torch.float16),
    Case((2, 2, 48, 50)),
]


def _check_moments(case: Case) -> None:
    u = Drawn(case).u
    with poisoned():
        mean, variance = gpu.moments(u)
    true_mean, true_variance = expected("moments", u)
    assert error(mean, true_mean, least=0.5) < 1e-6
    assert error(variance, true_variance, least=0.5) < 1e-6


def _check_pool(case: Case) -> None:
    drawn = Drawn(case)
    args: Any = (drawn.u, *drawn.norm, case.inner)
    with poisoned():
        z = gpu.pool(*args)
    assert error(z, expected("pool", *args), least=0.5) < 1e-6


def _check_reduce(case: Case) -> None:
    drawn = Drawn(case)
    for second in (None, Drawn(replace(case, seed=case.seed + 1)).g):
        _check_reduced(case, drawn, second)


def _check_reduced(case: Case, drawn: Drawn, second: Tensor | None) -> None:
    args: Any = (drawn.g, drawn.out, drawn.u, *drawn.norm, case.inner, second)
    with poisoned():
        masked, sums = gpu.reduce(*args)
    true_masked, true_sums = expected("reduce", *args)
    # Only the sum of two gradients is rounded.
    rounding = 0 if second is None else torch.finfo(drawn.g.dtype).eps
    torch.testing.assert_close(masked.double(), true_masked, rtol=rounding, atol=rounding)
    assert (masked.numel() == 0) == (drawn.out is None and second is None)
    assert masked.dtype == drawn.g.dtype
    assert masked.numel() == 0 or masked.stride() == drawn.u.stride()
    # A sum of S random terms grows with the root of S, however near to 0 it ends.
    scale = 2 * case.positions**0.5
    for found, true in zip(sums, true_sums, strict=True):
        assert error(found, true, least=scale) < 2e-6


@pytest.mark.parametrize("case", TABLE, ids=str)
def test_every_form_of_tile(case: Case) -> None:
    _check_moments(case)
    _check_pool(replace(case, inner="silu"))
    _check_reduce(case)
    assert case.positions > 0


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("outer", ["identity", "relu"])
def test_every_form_of_tail(inner: str, norm: str, outer: str) -> None:
    case = Case((2, 5, 7, 6), last=True, norm=norm, inner=inner, outer=outer, other=torch.bfloat16)
    _check_pool(case)
    _check_reduce(case)
    _check_reduce(replace(case, last=False))
    assert case.inner == inner


@settings(max_examples=12)
@given(cases())
@example(Case((1, 1, 1)))
@example(Case((1, 1, 1, 1), last=True, inner="silu"))
def test_any_shape(case: Case) -> None:
    _check_moments(case)
    _check_pool(case)
    _check_reduce(case)
    assert case.positions > 0


@pytest.mark.slow
@settings(max_examples=200)
@given(cases(most=20))
def test_very_many_shapes(case: Case) -> None:
    _check_moments(case)
    _check_pool(case)
    _check_reduce(case)
    assert case.positions > 0


@pytest.mark.parametrize("offset", [0.0, 30.0, 300.0])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(2, 6, 14, 15), (1, 2, 40, 41)])
def test_moments_are_as_exact_as_eager_ones_far_from_zero(
    shape: tuple[int, ...], last: bool, offset: float
) -> None:
    u = Drawn(Case(shape, last=last, offset=offset)).u
    true = expected("moments", u)
    for found, eager, right in zip(gpu.moments(u), composite.moments(u), true, strict=True):
        # Eager PyTorch takes moments on the CPU in float64 and rounds once.
        assert error(found, right, 0.5) <= max(1.5 * error(eager, right, 0.5), 5e-7)
    pooled, plain = gpu.pool(u, None, None, None, "identity"), u.mean((2, 3))
    assert error(pooled, true[0], 0.5) <= max(1.5 * error(plain, true[0], 0.5), 3e-7)


@pytest.mark.parametrize("offset", [30.0, 300.0])
def test_sums_are_as_exact_as_eager_ones_far_from_zero(offset: float) -> None:
    drawn = Drawn(Case((2, 6, 14, 15), offset=offset))
    args: Any = (drawn.g, None, drawn.u, *drawn.norm, "identity")
    found, eager, right = gpu.reduce(*args)[1], composite.reduce(*args)[1], expected("reduce", *args)[1]
    for index in range(2):
        assert error(found[index], right[index]) <= max(1.5 * error(eager[index], right[index]), 3e-7)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_in_its_channel(value: float, last: bool, inner: str) -> None:
    drawn = Drawn(Case((2, 5, 7, 5), last=last, inner=inner))
    for each in (drawn.u, drawn.g, drawn.out):
        assert each is not None
        place = torch.randint(0, each.numel(), (), generator=drawn.random)
        each[tuple(int(i) for i in torch.unravel_index(place, each.shape))] = value
    mean, variance = gpu.moments(drawn.u)
    true_mean, true_variance = expected("moments", drawn.u)
    # Where an infinity stands decides in eager PyTorch whether the mean is infinite or NaN.
    assert torch.equal(mean.isfinite(), true_mean.isfinite())
    assert same_kind(variance, true_variance)
    args: Any = (drawn.u, *drawn.norm, inner)
    assert same_kind(gpu.pool(*args), expected("pool", *args))
    for found, right in zip(
        gpu.reduce(drawn.g, drawn.out, *args), expected("reduce", drawn.g, drawn.out, *args), strict=True
    ):
        assert same_kind(found, right)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("inner", ["identity", "relu", "silu"])
def test_a_norm_that_is_not_finite_reaches_sums_as_in_the_composite(inner: str, last: bool) -> None:
    drawn = Drawn(Case((2, 5, 7, 5), last=last))
    scale, mean, shift = drawn.norm
    assert mean is not None
    mean[1], mean[2], mean[3] = torch.inf, torch.nan, -torch.inf
    # Of one sign, so that the sum is infinite and not NaN.
    args: Any = (drawn.g.abs(), None, drawn.u, scale, mean, shift, inner)
    assert same_kind(gpu.reduce(*args)[1], expected("reduce", *args)[1])
    args = (drawn.u, scale, mean, shift, inner)
    assert same_kind(gpu.pool(*args), expected("pool", *args))


def test_the_same_numbers_give_the_same_bits() -> None:
    u = torch.randn(1, 3, 40, 33, device=DEVICE).contiguous(memory_format=torch.channels_last)
    for first, second in zip(gpu.moments(u), gpu.moments(u), strict=True):
        assert torch.equal(first, second)
