"""What the C++ steps compute more exactly than their tolerances elsewhere ask for."""

import math

import pytest
import torch

from senet.kernels import cpp
from senet.kernels.cpp import build


@pytest.fixture(autouse=True)
def _built() -> None:
    reason = build.unavailable()
    if reason is not None:
        pytest.skip(reason)


def test_every_term_of_the_exponential_counts() -> None:
    # There SiLU is v e^v: errors of rounding cancel in the mean, and that of a polynomial does not.
    v = -torch.linspace(5, 80, 60001)
    found = cpp.apply(v.reshape(1, 1, -1), None, None, None, torch.ones(1, 1), None, "silu", "identity")
    truth = torch.nn.functional.silu(v.double())
    error = (found.flatten() - truth) / truth
    places = -v.double() / math.log(2)
    parts = ((places - places.round() + 0.5) * 14).long().clamp(0, 13)
    bias = torch.bincount(parts, error, 14) / torch.bincount(parts, minlength=14)
    assert bias.abs().max() < 1.5e-8
    assert error.abs().max() < 3e-7


@pytest.mark.parametrize("last", [False, True])
def test_equal_numbers_have_no_variance_though_their_squares_are_beyond_float64(last: bool) -> None:
    u = torch.full((2, 3, 4, 4), 2.0**600, dtype=torch.float64)
    mean, variance = cpp.moments(u.contiguous(memory_format=torch.channels_last) if last else u)
    assert (mean == 2.0**600).all()
    assert (variance == 0).all()


@pytest.mark.parametrize(
    ("shape", "last"), [((2, 40, 357), False), ((3, 32, 59, 1), True), ((2, 90, 21, 1), True)]
)
def test_a_mean_that_is_exact_leaves_exact_deviations(shape: tuple[int, ...], last: bool) -> None:
    # Numbers that add up to 0: only deviations from that very mean have squares that are not rounded.
    half = torch.randint(-50, 50, (*shape[:2], shape[2] // 2))
    u = torch.cat([half, -half, torch.zeros(*shape[:2], shape[2] % 2)], 2)
    u = u[:, :, torch.randperm(shape[2])].reshape(shape)
    mean, variance = cpp.moments(u.contiguous(memory_format=torch.channels_last) if last else u)
    assert (mean == 0).all()
    assert torch.equal(variance, u.double().square().flatten(2).mean(2).float())
