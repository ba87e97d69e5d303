from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.gpu.cases import DEVICE, GATES, HIDDEN, error, expected, same_kind
from tests.kernels.poison import poisoned
from torch import Tensor

from senet.kernels import gpu
from senet.kernels.gpu.configurations import MAX_HIDDEN
from senet.kernels.gpu.gate_gradients import BATCH


def _numbers(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE)


def _check_gate_gradients(
    samples: int,
    channels: int,
    width: int,
    inner: str = "identity",
    normed: bool = True,
    hidden: str = "relu",
    gate: str = "sigmoid",
    one_at_zero: bool = False,
    more: bool = True,
    strided: bool = False,
) -> None:
    torch.manual_seed(samples + channels + width)
    s = 2 * _numbers(samples, channels)
    s = s.sigmoid() if gate == "sigmoid" else s
    args: list[Any] = [_numbers(2 if inner == "identity" else 5, samples, channels)]
    args += [_numbers(samples, 1).expand(samples, channels) if more else None, s]
    args += [_numbers(samples) if more else None, 3 * _numbers(samples, width), _numbers(samples, channels)]
    weights = [_numbers(width, channels), _numbers(channels, width)]
    args += [each.T.contiguous().T for each in weights] if strided else weights
    args += [_numbers(samples, channels) if normed and inner == "identity" else None]
    args += [_numbers(channels) if normed else None for _ in range(4)]
    args += [6, inner, hidden, gate, one_at_zero]
    with poisoned():
        found = gpu.gate_gradients(*args)
    for ours, true in zip(found, expected("gate_gradients", *args), strict=True):
        assert error(ours, true, least=1.0) < 2e-6


@pytest.mark.parametrize("inner", ["identity", "silu"])
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("more", [True, False])
def test_every_form_of_tail(inner: str, normed: bool, more: bool) -> None:
    _check_gate_gradients(3, 20, 5, inner, normed, more=more)
    assert inner


@settings(max_examples=8)
@given(st.integers(1, 40), st.sampled_from([1, 5, 17, 70, 130]), st.sampled_from([1, 3, 17, 40]))
def test_any_shape(samples: int, channels: int, width: int) -> None:
    _check_gate_gradients(samples, channels, width)
    assert samples > 0


def test_more_samples_than_a_program_takes_with_an_activation() -> None:
    _check_gate_gradients(BATCH + 8, 20, 5, "silu")
    assert BATCH > 0


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("one_at_zero", [False, True])
@pytest.mark.parametrize("hidden", HIDDEN)
def test_every_form_of_gate(gate: str, one_at_zero: bool, hidden: str) -> None:
    _check_gate_gradients(3, 20, 5, hidden=hidden, gate=gate, one_at_zero=one_at_zero)
    assert gate in GATES


@pytest.mark.parametrize("inner", ["identity", "silu"])
def test_weights_may_be_strided(inner: str) -> None:
    _check_gate_gradients(3, 20, 5, inner, strided=True)
    assert inner


@pytest.mark.parametrize("width", [16, MAX_HIDDEN, MAX_HIDDEN + 1])
def test_every_width(width: int) -> None:
    _check_gate_gradients(2, 20, width)
    assert width > 0


@pytest.mark.parametrize("inner", ["identity", "relu"])
def test_a_gradient_that_is_not_finite_reaches_what_it_reaches_in_the_composite(inner: str) -> None:
    sums = _numbers(2 if inner == "identity" else 5, 3, 20)
    sums[0, 1, 4] = torch.nan
    of_norm = [_numbers(3, 20) if inner == "identity" else None, *(_numbers(20) for _ in range(4))]
    args: Any = (
        sums,
        None,
        _numbers(3, 20).sigmoid(),
        None,
        _numbers(3, 5),
        _numbers(3, 20),
        _numbers(5, 20),
    )
    args += (_numbers(20, 5), *of_norm, 6, inner, "relu", "sigmoid", False)
    for ours, true in zip(gpu.gate_gradients(*args), expected("gate_gradients", *args), strict=True):
        assert torch.equal(ours.isnan(), true.isnan())


def test_an_infinite_mean_is_as_in_the_composite_where_a_program_has_room_for_more_samples() -> None:
    mean = _numbers(20)
    mean[4] = torch.inf
    args: Any = (_numbers(2, 1, 20), None, _numbers(1, 20).sigmoid(), None, _numbers(1, 5), _numbers(1, 20))
    args += (_numbers(5, 20), _numbers(20, 5), _numbers(1, 20), mean, *(_numbers(20) for _ in range(3)))
    args += (6, "identity", "silu", "sigmoid", False)
    found, wanted = gpu.gate_gradients(*args), expected("gate_gradients", *args)
    assert all(same_kind(ours, true) for ours, true in zip(found, wanted, strict=True))
    assert wanted[5].isinf().sum() == 1
