from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.gpu.cases import DEVICE, error, expected
from tests.kernels.poison import poisoned

from senet.kernels import composite, gpu


def _check_statistics(samples: int, channels: int, offset: float, positions: int = 7) -> None:
    torch.manual_seed(samples + channels)
    mean = torch.randn(samples, channels, device=DEVICE) * 0.3 + offset
    variance = torch.rand(samples, channels, device=DEVICE)
    weight, bias = torch.randn(2, channels, device=DEVICE)
    args: Any = (mean, variance, weight, bias, 1e-3, positions)
    with poisoned():
        found = gpu.statistics(*args)
    eager, right = composite.statistics(*args), expected("statistics", *args)
    assert len(found) == len(right)
    for ours, theirs, true in zip(found, eager, right, strict=True):
        assert error(ours, true, least=0.5) <= max(1e-6, 1.5 * error(theirs, true, least=0.5))


@settings(max_examples=10)
@given(st.integers(1, 40), st.sampled_from([1, 3, 16, 17, 40]))
def test_any_shape(samples: int, channels: int) -> None:
    _check_statistics(samples, channels, 0.0)
    assert samples > 0


@pytest.mark.parametrize("samples", [2, 16, 17, 256, 300])
@pytest.mark.parametrize("offset", [0.0, 30.0, 300.0])
def test_as_exact_as_eager_ones_far_from_zero(samples: int, offset: float) -> None:
    _check_statistics(samples, 20, offset)
    assert samples > 1


def test_weights_may_be_strided() -> None:
    mean, variance = torch.randn(3, 20, device=DEVICE), torch.rand(3, 20, device=DEVICE)
    weight, bias = torch.randn(20, 2, device=DEVICE).unbind(1)
    args: Any = (mean, variance, weight, bias, 1e-3, 7)
    for found, true in zip(gpu.statistics(*args), expected("statistics", *args), strict=True):
        assert error(found, true, least=0.5) < 1e-6


def test_one_number_has_no_unbiased_variance() -> None:
    numbers = torch.ones(1, 3, device=DEVICE)
    with pytest.raises(ZeroDivisionError):
        gpu.statistics(numbers, numbers, numbers[0], numbers[0], 1e-5, 1)


def test_what_is_not_finite_stays_in_its_channel() -> None:
    mean, variance = torch.randn(3, 20, device=DEVICE), torch.rand(3, 20, device=DEVICE)
    mean[1, 4], variance[2, 17] = torch.nan, torch.nan
    args: Any = (mean, variance, mean[0], mean[2], 1e-5, 9)
    for found, true in zip(gpu.statistics(*args), expected("statistics", *args), strict=True):
        assert torch.equal(found.isnan(), true.isnan())
