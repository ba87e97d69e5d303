"""The steps between the sweeps in C++ against the same in plain PyTorch, in float64."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.poison import poisoned
from torch import Tensor

from senet.kernels import composite, cpp
from senet.kernels.activations import ACTIVATIONS, GATE_DERIVATIVES
from senet.kernels.cpp import build


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    reason = build.unavailable()
    if reason is not None:
        pytest.skip(reason)
    with poisoned():
        yield


def _wide(*given: Any) -> list[Any]:
    return [each.double() if isinstance(each, Tensor) else each for each in given]


def _check_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    # A gate that is moved to 1 at 0 may cancel: what is lost then is measured by that 1.
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * scale)


@settings(max_examples=150)
@given(
    n=st.integers(1, 5),
    c=st.integers(1, 70),
    hidden=st.integers(1, 5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    activation=st.sampled_from(list(ACTIVATIONS)),
    gate=st.sampled_from(list(GATE_DERIVATIVES)),
    moved=st.booleans(),
    inner=st.sampled_from(["identity", "silu"]),
    given_=st.tuples(*[st.booleans()] * 4),
    seed=st.integers(0, 2**31),
)
def test_steps_between_the_sweeps(
    n: int, c: int, hidden: int, dtype: torch.dtype, activation: str, gate: str, moved: bool, inner: str,
    given_: tuple[bool, ...], seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    normed, kept, biased, outside = given_

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64).to(dtype)

    # The derivative of this gate is a float32 in the plain form, whatever the dtype.
    exact = dtype is torch.float64 and gate != "hardsigmoid"
    tolerance = 1e-12 if exact else 1e-5
    sample = (numbers(n, c), numbers(n, c).abs() + 0.1, numbers(c), numbers(c), 1e-5, 9)
    for own, truth in zip(cpp.statistics(*sample), composite.statistics(*_wide(*sample)), strict=True):
        _check_close(own, truth, tolerance)
    z, w1, w2 = numbers(n, c), numbers(hidden, c), numbers(c, hidden)
    b1, b2 = (numbers(hidden), numbers(c)) if biased else (None, None)
    asked = (z, w1, b1, w2, b2, activation, gate, moved)
    for own, truth in zip(cpp.excitation(*asked), composite.excitation(*_wide(*asked)), strict=True):
        _check_close(own, truth, tolerance)
    entering, s = composite.excitation(*asked)
    norm = (numbers(n, c), *(numbers(c) for _ in range(4))) if normed else (None,) * 5
    sums, ds = numbers(2 if inner == "identity" else 5, n, c), numbers(n, c) if outside else None
    keep = torch.rand(n).to(dtype) if kept else None
    back = (sums, ds, s, keep, entering, z, w1, w2, *norm, 9, inner, activation, gate, moved)
    expected = composite.gate_gradients(*_wide(*back))
    # A sum over samples may cancel: what is lost then is measured by what was added.
    scale = max(1.0, *(each.abs().max().item() for each in expected if each.numel()))
    for own, truth in zip(cpp.gate_gradients(*back), expected, strict=True):
        assert own.shape == truth.shape
        torch.testing.assert_close(own.double(), truth, rtol=0, atol=tolerance * scale)


def test_large_products_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    z, w1, w2 = torch.randn(9, 500), torch.randn(20, 500) / 20, torch.randn(500, 20)
    asked = (z, w1, None, w2, None, "relu", "sigmoid", False)
    entering, s = cpp.excitation(*asked)
    assert torch.equal(s, composite.excitation(*asked)[1])
    sums = torch.randn(2, 9, 500)
    back = (sums, None, s, None, entering, z, w1, w2, *(None,) * 5, 9, "identity", "relu", "sigmoid", False)
    large = cpp.gate_gradients(*back)
    monkeypatch.setattr(cpp, "_SMALL", 1 << 60)
    for own, other in zip(cpp.gate_gradients(*back), large, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-3)


def test_numbers_that_are_not_finite_pass_the_gates_as_in_pytorch() -> None:
    z = torch.tensor([[torch.nan, torch.inf, -torch.inf, 100.0, -100.0, 0.0]]).T
    one, none = torch.ones(1, 1), torch.zeros(1)
    for activation in ACTIVATIONS:
        for gate in GATE_DERIVATIVES:
            for moved in (False, True):
                asked = (z, one, none, one, none, activation, gate, moved)
                for own, truth in zip(cpp.excitation(*asked), composite.excitation(*asked), strict=True):
                    torch.testing.assert_close(own, truth, equal_nan=True)
