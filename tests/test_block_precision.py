"""The block in every dtype, on maps of every kind, beside the same formula in float64."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from senet import SqueezeExcitation, functional
from tests.blocks import awkward_maps, double_formula, randomised

FORWARD_BARS = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [1, 7, 56])
@pytest.mark.parametrize("lowered_weights", [False, True])
@pytest.mark.parametrize("dtype", FORWARD_BARS)
def test_parity_with_float64(
    dtype: torch.dtype, lowered_weights: bool, size: int, memory_format: torch.memory_format
) -> None:
    _check_parity("cpu", dtype, lowered_weights, size, memory_format)


@pytest.mark.gpu
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [1, 7, 56])
@pytest.mark.parametrize("dtype", FORWARD_BARS)
def test_parity_with_float64_on_a_gpu(
    dtype: torch.dtype, size: int, memory_format: torch.memory_format
) -> None:
    _check_parity("cuda", dtype, True, size, memory_format)


def _check_parity(
    device: str, dtype: torch.dtype, lowered_weights: bool, size: int, memory_format: torch.memory_format
) -> None:
    block = randomised(SqueezeExcitation(64).to(device))
    if lowered_weights:
        block = block.to(dtype)
    u = torch.randn(4, 64, size, size, device=device).to(dtype).contiguous(memory_format=memory_format)
    upstream = torch.randn(u.shape, device=device).to(dtype)
    exact_u = u.double().requires_grad_()
    exact_block = copy.deepcopy(block).double()
    exact = double_formula(exact_block, exact_u)
    exact.backward(upstream.double())
    u = u.requires_grad_()
    out = block(u)
    out.backward(upstream)

    def error(found: Tensor | None, wanted: Tensor | None) -> float:
        assert found is not None
        assert wanted is not None
        return ((found.double() - wanted).abs().max() / wanted.abs().max()).item()

    assert out.dtype == dtype
    assert error(out, exact) <= FORWARD_BARS[dtype]
    bar = 5 * FORWARD_BARS[dtype]
    assert error(u.grad, exact_u.grad) <= bar
    for (name, parameter), other in zip(block.named_parameters(), exact_block.parameters(), strict=True):
        assert error(parameter.grad, other.grad) <= bar, name


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(1, 1), (1, 70_000), (7, 7), (112, 112), (4096, 4096)])
@pytest.mark.parametrize(
    ("dtype", "top", "bar"), [(torch.float16, 60_000, 2**-11), (torch.bfloat16, 1e30, 2**-8)]
)
def test_the_squeeze_of_huge_half_precision_maps(
    dtype: torch.dtype, top: float, bar: float, size: tuple[int, int], memory_format: torch.memory_format
) -> None:
    constant = torch.full((1, 2, *size), top, dtype=dtype).contiguous(memory_format=memory_format)
    constant[:, 1] = -top
    spread = (torch.rand(1, 2, *size) * top).to(dtype).contiguous(memory_format=memory_format)
    for u in (constant, spread):
        z = functional.squeeze(u)
        wanted = u.double().mean((2, 3))
        assert z.dtype == torch.float32
        assert torch.isfinite(z).all()
        assert ((z - wanted).abs() <= bar * wanted.abs()).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_squeeze_of_half_precision_maps_is_not_rounded_to_half(dtype: torch.dtype) -> None:
    u = torch.rand(2, 64, 15, 15).to(dtype)
    z = functional.squeeze(u)
    torch.testing.assert_close(z.double(), u.double().mean((2, 3)), rtol=1e-6, atol=0)


def test_a_map_whose_sum_overflows_float16() -> None:
    u = torch.full((1, 16, 112, 112), 60_000.0, dtype=torch.float16)
    assert u.sum((2, 3)).isinf().all()
    assert torch.equal(functional.squeeze(u), torch.full((1, 16), 60_000.0))
    block = SqueezeExcitation(16).half()
    assert torch.isfinite(block(u)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_lower_the_gate(dtype: torch.dtype) -> None:
    block = randomised(SqueezeExcitation(64))
    u = torch.randn(2, 64, 8, 8).to(dtype)
    outside = block.gate(u)
    with torch.autocast("cpu", dtype):
        inside, out = block.gate(u), block(u)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)
    assert out.dtype == dtype


@settings(max_examples=200)
@given(
    value=st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    place=st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3), st.integers(0, 4)),
    second=st.sampled_from([None, float("nan"), float("inf"), float("-inf")]),
    seed=st.integers(0, 2**31),
)
def test_what_is_not_finite_stays_where_it_is_in_plain_pytorch(
    value: float, place: tuple[int, int, int, int], second: float | None, seed: int
) -> None:
    torch.manual_seed(seed)
    block = randomised(SqueezeExcitation(4, 2))
    clean = torch.randn(3, 4, 4, 5)
    u = clean.clone()
    u[place] = value
    if second is not None:
        u[place[0], 3 - place[1], 0, 0] = second
    w1, b1, w2, b2 = block.parameters()
    plain = u * torch.sigmoid(torch.relu(u.mean((2, 3)) @ w1.T + b1) @ w2.T + b2)[:, :, None, None]
    out = block(u)
    assert torch.equal(out.isnan(), plain.isnan())
    assert torch.equal(out.isposinf(), plain.isposinf())
    assert torch.equal(out.isneginf(), plain.isneginf())
    others = [sample for sample in range(3) if sample != place[0]]
    assert torch.equal(out[others], block(clean)[others])


@pytest.mark.parametrize("name", awkward_maps())
@pytest.mark.parametrize("options", [{}, {"reduction": 7}, {"hidden": 1}, {"reduction": 24}])
def test_awkward_maps(name: str, options: dict[str, Any]) -> None:
    block = randomised(SqueezeExcitation(24, **options))
    u = awkward_maps()[name]
    out = block(u)
    assert out.shape == u.shape
    if len(u):
        exact = double_formula(block, u)
        assert (out - exact).abs().max() <= 1e-6 * exact.abs().max()
    if name.endswith("hannels last"):
        assert out.stride() == u.stride()
    if u.is_contiguous():
        assert out.is_contiguous()


def test_one_channel() -> None:
    block = randomised(SqueezeExcitation(1, 1))
    u = torch.randn(3, 1, 4, 4)
    torch.testing.assert_close(block(u).double(), double_formula(block, u))


@pytest.mark.gpu
def test_more_than_two_billion_elements() -> None:
    block = randomised(SqueezeExcitation(16).half().cuda())
    u = torch.ones(33, 16, 2048, 2048, dtype=torch.float16, device="cuda")
    assert u.numel() > 2**31
    out = block(u)
    torch.testing.assert_close(
        out[-1, :, -1, -1].double(), double_formula(block, u[-1:, :, :2, :2])[0, :, 0, 0]
    )
