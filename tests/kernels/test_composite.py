"""The steps against sums that are written another way."""

import pytest
import torch

from senet.kernels import composite


def test_moments_are_centred() -> None:
    u = torch.randn(3, 4, 8, 8, dtype=torch.float64) + 300
    for given, bound in ((u, 1e-12), (u.float(), 1e-5)):
        mean, variance = composite.moments(given)
        torch.testing.assert_close(mean.double(), u.flatten(2).mean(2), rtol=bound, atol=bound)
        torch.testing.assert_close(variance.double(), u.flatten(2).var(2, correction=0), rtol=bound, atol=0)


def test_statistics_of_the_batch_from_those_of_samples() -> None:
    u = torch.randn(5, 3, 7, 2, dtype=torch.float64) * 2 + 1
    weight, bias = torch.randn(2, 3, dtype=torch.float64).unbind()
    mean, unbiased, inverse, scale, z = composite.statistics(*composite.moments(u), weight, bias, 1e-3, 14)
    flat = u.transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean, flat.mean(1))
    torch.testing.assert_close(unbiased, flat.var(1))
    torch.testing.assert_close(inverse, (flat.var(1, correction=0) + 1e-3) ** -0.5)
    torch.testing.assert_close(scale, weight * inverse)
    normalised = torch.nn.functional.batch_norm(u, None, None, weight, bias, True, eps=1e-3)
    torch.testing.assert_close(z, normalised.mean((2, 3)))


def test_pool_and_apply_without_a_norm() -> None:
    u, residual = torch.randn(2, 2, 3, 4, 5).unbind()
    gate = torch.rand(2, 3)
    torch.testing.assert_close(composite.pool(u, None, None, None, "relu"), u.relu().mean((2, 3)))
    out = composite.apply(u, None, None, None, gate, residual, "identity", "relu")
    torch.testing.assert_close(out, (u * gate[:, :, None, None] + residual).relu())


def test_reduce_gives_the_masked_gradient_only_where_there_is_a_mask() -> None:
    g, out, u = torch.randn(3, 2, 3, 4, 5).unbind()
    masked, sums = composite.reduce(g, out, u, None, None, None, "identity")
    torch.testing.assert_close(masked, g * (out > 0))
    torch.testing.assert_close(sums, torch.stack([masked.sum((2, 3)), (masked * u).sum((2, 3))]))
    nothing, _ = composite.reduce(g, None, u, None, None, None, "identity")
    assert nothing.numel() == 0


def test_two_readers_gradients_are_added_before_they_are_rounded() -> None:
    g, second, u = torch.randn(3, 2, 3, 4, 5).bfloat16().unbind()
    masked, sums = composite.reduce(g, None, u, None, None, None, "identity", second)
    both = g.float() + second.float()
    assert masked.dtype == torch.bfloat16
    assert torch.equal(masked, both.bfloat16())
    torch.testing.assert_close(sums, torch.stack([both.sum((2, 3)), (both * u.float()).sum((2, 3))]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_moments_of_half_precision_are_single(dtype: torch.dtype) -> None:
    u = torch.randn(2, 3, 5, 5).to(dtype)
    for given, exact in zip(composite.moments(u), composite.moments(u.double()), strict=True):
        assert given.dtype == torch.float32
        torch.testing.assert_close(given.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_a_gradient_in_half_precision_are_single(dtype: torch.dtype) -> None:
    g, u = torch.randn(2, 2, 3, 9, 9).to(dtype).unbind()
    scale, mean, shift = torch.rand(3, 3).unbind()
    _, sums = composite.reduce(g, None, u, scale, mean, shift, "identity")
    scale, mean, shift = (number.double() for number in (scale, mean, shift))
    _, exact = composite.reduce(g.double(), None, u.double(), scale, mean, shift, "identity")
    torch.testing.assert_close(sums.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_without_a_norm_half_precision_is_summed_in_single_too(dtype: torch.dtype) -> None:
    g, u = torch.randn(2, 2, 3, 9, 9).to(dtype).unbind()
    none = (None, None, None)
    z, (_, sums) = composite.pool(u, *none, "silu"), composite.reduce(g, None, u, *none, "silu")
    wide = u.double()
    assert z.dtype == sums.dtype == torch.float32
    torch.testing.assert_close(z.double(), composite.pool(wide, *none, "silu"), rtol=1e-5, atol=1e-5)
    _, exact = composite.reduce(g.double(), None, wide, *none, "silu")
    torch.testing.assert_close(sums.double(), exact, rtol=1e-5, atol=1e-5)
    gate, dz = torch.rand(2, 2, 3).unbind()
    du = composite.input_gradient(g, u, *none, gate, dz, *none, 162, "silu")
    assert du.dtype == dtype
