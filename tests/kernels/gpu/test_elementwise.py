from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from tests.kernels.gpu.cases import (
    BOUNDS,
    INNER,
    OUTER,
    Case,
    Drawn,
    cases,
    error,
    expected,
    same_kind,
)
from tests.kernels.poison import poisoned

from senet.kernels import gpu

# Of the table: tiles of whole and of partial rows and lanes.
TABLE = [
    Case((2, 72, 9, 9), last=True),
    Case((3, 530, 1, 2), last=True),
    Case((2, 6, 3, 8), last=True),
    Case((1, 3, 40, 33), last=True),
    Case((3, 40, 1, 1)),
    Case((3, 70, 3)),
    Case((2, 17, 8, 8)),
    Case((1, 20, 11, 11)),
    Case((2, 5, 17, 40)),
]


def _check_apply(case: Case) -> None:
    drawn = Drawn(case)
    args: Any = (drawn.u, *drawn.norm, drawn.gate, drawn.r, case.inner, case.outer)
    with poisoned():
        out = gpu.apply(*args)
    assert out.stride() == drawn.u.stride()
    assert out.dtype == (torch.promote_types(case.dtype, case.other) if case.residual else case.dtype)
    assert error(out, expected("apply", *args), least=0.5) < BOUNDS[out.dtype]


def _check_input_gradient(case: Case) -> None:
    drawn = Drawn(case)
    count = case.shape[0] * case.positions
    args: Any = (drawn.g, drawn.u, *drawn.norm, drawn.gate, drawn.dz, *drawn.through, count, case.inner)
    with poisoned():
        du = gpu.input_gradient(*args)
    assert du.stride() == drawn.u.stride()
    assert du.dtype == case.dtype
    assert error(du, expected("input_gradient", *args), least=0.5) < BOUNDS[du.dtype]


@pytest.mark.parametrize("case", TABLE, ids=str)
def test_every_form_of_tile(case: Case) -> None:
    _check_apply(case)
    _check_input_gradient(replace(case, inner="silu"))
    assert case.positions > 0


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("norm", ["batch", "fixed", "none"])
def test_every_form_of_tail(inner: str, norm: str) -> None:
    case = Case((2, 5, 7, 6), last=True, norm=norm, inner=inner, other=torch.float16)
    for outer in OUTER:
        for residual in (False, True):
            _check_apply(replace(case, outer=outer, residual=residual))
    _check_input_gradient(case)
    _check_input_gradient(replace(case, last=False))
    assert case.inner == inner


@settings(max_examples=15)
@given(cases())
@example(Case((1, 1, 1)))
@example(Case((1, 1, 1, 1), last=True, inner="silu"))
def test_any_shape(case: Case) -> None:
    _check_apply(case)
    _check_input_gradient(case)
    assert case.positions > 0


@pytest.mark.slow
@settings(max_examples=200)
@given(cases(most=20))
def test_very_many_shapes(case: Case) -> None:
    _check_apply(case)
    _check_input_gradient(case)
    assert case.positions > 0


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("outer", OUTER)
def test_what_is_not_finite_is_so_in_the_same_places(outer: str, last: bool, inner: str) -> None:
    drawn = Drawn(Case((2, 5, 7, 6), last=last, inner=inner, outer=outer))
    values = [torch.nan, torch.inf, -torch.inf]
    for each in (drawn.u, drawn.r, drawn.g, drawn.gate, drawn.dz):
        assert each is not None
        for value in values:
            place = torch.randint(0, each.numel(), (), generator=drawn.random)
            each[tuple(int(i) for i in torch.unravel_index(place, each.shape))] = value
    args: Any = (drawn.u, *drawn.norm, drawn.gate, drawn.r, inner, outer)
    assert same_kind(gpu.apply(*args), expected("apply", *args))
    through: Any = (drawn.g, drawn.u, *drawn.norm, drawn.gate, drawn.dz, *drawn.through, 84, inner)
    assert same_kind(gpu.input_gradient(*through), expected("input_gradient", *through))


def test_gates_and_gradients_may_be_strided() -> None:
    drawn = Drawn(Case((3, 4, 5, 5)))
    gate, dz = drawn.gate.T.contiguous().T, drawn.dz[:, :1].expand(3, 4)
    args: Any = (drawn.u, *drawn.norm, gate, drawn.r, "identity", "relu")
    assert error(gpu.apply(*args), expected("apply", *args)) < 1e-6
    through: Any = (drawn.g, drawn.u, *drawn.norm, gate, dz, *drawn.through, 75, "identity")
    assert error(gpu.input_gradient(*through), expected("input_gradient", *through)) < 1e-6
