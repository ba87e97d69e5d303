from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.gpu.cases import DEVICE, GATES, HIDDEN, error, expected
from tests.kernels.poison import poisoned
from torch import Tensor

from senet.kernels import composite, gpu
from senet.kernels.gpu.configurations import MAX_HIDDEN, ceiling, shared_sum
from senet.kernels.gpu.excitation import HIDDEN as HIDDEN_AT_ONCE
from senet.kernels.reference import ACTIVATIONS


def _check_excitation(
    samples: int, channels: int, width: int, *form: object, biases: bool = True, size: float = 1.0
) -> None:
    torch.manual_seed(samples + channels + width)
    z = torch.randn(samples, channels, device=DEVICE)
    w1 = size * torch.randn(width, channels, device=DEVICE) / channels**0.5
    w2 = size * torch.randn(channels, width, device=DEVICE) / width**0.5
    b1 = torch.randn(width, device=DEVICE) if biases else None
    b2 = torch.randn(channels, device=DEVICE) if biases else None
    args: Any = (z, w1, b1, w2, b2, *form)
    with poisoned():
        found = gpu.excitation(*args)
    true = expected("excitation", *args)
    for ours, each, off in zip(found, true, _rounding(z, w1, b1, w2, b2, form[0], true), strict=True):
        assert float(((ours.double() - each).abs() - off).max()) <= 0


def _rounding(
    z: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, hidden: Any, true: Any
) -> tuple[Tensor, Tensor]:
    """How far float32 can be off at most, sums in any order: n terms by n units of their sizes."""
    unit = torch.finfo(torch.float32).eps / 2
    entering, s = true
    first = _terms(z, w1, b1) * unit
    inside = ACTIVATIONS[hidden](entering)
    # No activation is steeper than 1.5, and no gate steeper than 1; each is itself off by a few units.
    second = _terms(inside, w2, b2) * unit + (1.5 * first + 8 * unit * inside.abs()) @ w2.double().abs().T
    return first, second + 8 * unit * s.abs().clamp(min=1)


def _terms(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The sizes of a layer's terms together, as often as there are terms, and two more."""
    sizes = x.double().abs() @ weight.double().abs().T
    return (weight.shape[1] + 2) * (sizes if bias is None else sizes + bias.double().abs())


@settings(max_examples=10)
@given(st.integers(1, 20), st.sampled_from([1, 5, 32, 70, 130, 300]), st.sampled_from([1, 3, 16, 40]))
def test_any_shape(samples: int, channels: int, width: int) -> None:
    _check_excitation(samples, channels, width, "relu", "sigmoid", False)
    assert samples > 0


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("one_at_zero", [False, True])
@pytest.mark.parametrize("hidden", HIDDEN)
def test_every_form(gate: str, one_at_zero: bool, hidden: str) -> None:
    _check_excitation(3, 20, 5, hidden, gate, one_at_zero)
    # Gates far on both sides of 0, and near 0 alone.
    _check_excitation(3, 20, 5, hidden, gate, one_at_zero, size=9.0)
    if not one_at_zero and gate != "hardsigmoid":
        _check_excitation(3, 20, 5, hidden, gate, one_at_zero, biases=False, size=0.03)
    assert gate in GATES


@pytest.mark.parametrize("width", [1, 17, MAX_HIDDEN, MAX_HIDDEN + 1])
def test_every_width(width: int) -> None:
    _check_excitation(2, 40, width, "silu", "sigmoid", False)
    assert width > 0


def test_four_parts_of_the_channels_and_of_the_width() -> None:
    # Equal numbers of both, and of samples more than one program takes: no program stands for another.
    _check_excitation(17, 300, 64, "relu", "sigmoid", False)
    assert shared_sum(300).parts == ceiling(64, HIDDEN_AT_ONCE) == 4


def test_a_sample_that_is_not_finite_leaves_the_others_alone() -> None:
    z, w1, w2 = (torch.randn(*s, device=DEVICE) for s in ((3, 40), (5, 40), (40, 5)))
    z[1, 7] = torch.nan
    entering, s = gpu.excitation(z, w1, None, w2, None, "relu", "sigmoid", False)
    plain = composite.excitation(z, w1, None, w2, None, "relu", "sigmoid", False)
    assert torch.equal(entering.isnan(), plain[0].isnan())
    assert torch.equal(s.isnan(), plain[1].isnan())
    assert s[1].isnan().all()


def test_numbers_and_weights_may_be_strided() -> None:
    z, w1, w2 = (torch.randn(*s, device=DEVICE) for s in ((3, 20), (20, 5), (5, 20)))
    z = z.T.contiguous().T
    args: Any = (z, w1.T, None, w2.T, None, "relu", "tanh", False)
    assert error(gpu.excitation(*args)[1], expected("excitation", *args)[1]) < 1e-6
