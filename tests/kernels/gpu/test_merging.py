import pytest
import torch
from tests.kernels.gpu.cases import DEVICE, error
from tests.kernels.poison import poisoned

from senet.kernels.gpu.merging import merged_moments, merged_sums


@pytest.mark.parametrize("offset", [0.0, 30.0, 300.0])
@pytest.mark.parametrize("parts", [1, 2, 33])
def test_parts_of_unequal_size_merge_to_the_moments_of_the_whole(parts: int, offset: float) -> None:
    size, rest = 4, 1
    u = torch.randn(2, 20, size * (parts - 1) + rest) + offset
    u += torch.linspace(0, 3, u.shape[-1])
    variances, means = [], []
    for part in u.double().split(size, -1):
        variance, mean = torch.var_mean(part, -1, correction=0)
        variances.append(variance)
        means.append(mean)
    whole_variance, whole_mean = torch.var_mean(u.double(), -1, correction=0)
    with poisoned():
        mean, spread = merged_moments(
            torch.stack(means).float().to(DEVICE),
            torch.stack(variances).float().to(DEVICE),
            u.shape[-1],
            size if parts > 1 else rest,
        )
    assert error(mean.cpu(), whole_mean) < 2e-7
    # The means of the parts are rounded to float32 before they are merged.
    assert error(spread.cpu(), whole_variance, least=0.1) < 1e-6 * (1 + offset / 10)


@pytest.mark.parametrize("parts", [1, 2, 33])
def test_sums_are_merged_number_by_number(parts: int) -> None:
    partial = torch.randn(parts, 2, 3, 20, device=DEVICE)
    with poisoned():
        merged = merged_sums(partial)
    assert error(merged, partial.double().sum(0)) < 1e-6


def test_parts_of_more_than_two_to_the_31_positions_count_as_they_should() -> None:
    size, positions = 2**30, 3 * 2**31 + 2**29
    counts = torch.tensor([size] * 6 + [2**29], dtype=torch.float64)[:, None, None] / positions
    means, spreads = torch.randn(7, 1, 3), torch.rand(7, 1, 3)
    mean = (means.double() * counts).sum(0)
    spread = ((spreads.double() + (means.double() - mean).square()) * counts).sum(0)
    with poisoned():
        found = merged_moments(means.to(DEVICE), spreads.to(DEVICE), positions, size)
    assert error(found[0].cpu(), mean) < 1e-6
    assert error(found[1].cpu(), spread) < 1e-6
