"""The reference against formulas written another way, in float64."""

import ast
import contextlib
import itertools
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from senet.kernels import reference


def test_it_imports_only_torch() -> None:
    tree = ast.parse(Path(reference.__file__).read_text())
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert {str(name).split(".")[0] for name in imported} - sys.stdlib_module_names == {"torch"}


@given(
    n=st.integers(1, 4),
    c=st.integers(1, 5),
    spatial=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
)
def test_squeezes_loop_by_loop(n: int, c: int, spatial: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(n, c, *spatial, generator=generator, dtype=torch.float64)
    mask = torch.rand(n, *spatial, generator=generator) < 0.6
    avg, top = reference.squeeze_avg(u, mask), reference.squeeze_max(u, mask)
    assert torch.equal(reference.squeeze_none(u), u)
    assert torch.equal(reference.squeeze_none(u, mask), u * mask[:, None])
    for sample, channel in itertools.product(range(n), range(c)):
        values = u[sample, channel].flatten().tolist()
        kept = [v for v, m in zip(values, mask[sample].flatten().tolist(), strict=True) if m]
        assert reference.squeeze_avg(u)[sample, channel].item() == pytest.approx(sum(values) / len(values))
        assert reference.squeeze_max(u)[sample, channel].item() == max(values)
        assert avg[sample, channel].item() == pytest.approx(sum(kept) / len(kept) if kept else 0)
        assert top[sample, channel].item() == (max(kept) if kept else 0)


@given(
    n=st.integers(0, 3),
    c=st.integers(1, 5),
    spatial=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    bias=st.booleans(),
    last=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_without_a_squeeze_the_layers_are_1x1_convolutions(
    n: int, c: int, spatial: list[int], bias: bool, last: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    u, w1, b1, w2, b2 = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((n, c, *spatial), (2, c), (2,), (c, 2), (c,))
    )
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(spatial) - 1]
    ones = (1,) * len(spatial)
    biases = (b1, b2) if bias else (None, None)
    hidden = convolve(u, w1.reshape(*w1.shape, *ones), biases[0]).relu()
    wanted = convolve(hidden, w2.reshape(*w2.shape, *ones), biases[1]).sigmoid()
    if last:
        u = u.movedim(1, -1).contiguous().movedim(-1, 1)
    s = reference.excite(reference.squeeze_none(u), w1, biases[0], w2, biases[1], torch.sigmoid)
    torch.testing.assert_close(s, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(reference.scale(u, s), u * wanted, rtol=1e-12, atol=1e-12)


def test_padding_may_hold_anything() -> None:
    u = torch.randn(2, 3, 5)
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 4 + [False]])
    spoiled = torch.where(mask.unsqueeze(1), u, torch.tensor([float("nan")] * 4 + [float("inf")]))
    for squeeze in reference.SQUEEZES.values():
        assert torch.equal(squeeze(spoiled, mask), squeeze(u, mask))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_what_is_squeezed_and_gated_is_at_least_single(dtype: torch.dtype) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert reference.accumulation_dtype(dtype) == wide
    u, mask = torch.randn(2, 4, 5).to(dtype), torch.rand(2, 5) < 0.6
    for squeeze in reference.SQUEEZES.values():
        assert squeeze(u, None).dtype == squeeze(u, mask).dtype == wide
    w1, b1, w2, b2 = (torch.randn(*shape).bfloat16() for shape in ((2, 4), (2,), (4, 2), (4,)))
    s = reference.excite(reference.squeeze_avg(u), w1, b1, w2, b2, torch.sigmoid)
    assert s.dtype == wide
    assert reference.scale(u, s).dtype == reference.scale_add(u, s, u).dtype == dtype


def test_numbers_beside_the_maps_are_widened_and_nothing_else() -> None:
    u, number = torch.randn(2, 4, 5).bfloat16(), torch.randn(4).bfloat16()
    tensors = reference.TailTensors(u, u, number, None, number, None, number, *(number,) * 4)
    wide = tensors.wide()
    assert wide.u is wide.residual is u
    for before, found in zip(tensors[2:], wide[2:], strict=True):
        assert (before is None) == (found is None)
        if before is not None and found is not None:
            assert found.dtype == torch.float32
            assert torch.equal(found, before.float())
    for mean, variance in ((None, number), (number, None)):
        with pytest.raises(TypeError, match="needs a mean and a variance"):
            tensors._replace(mean=mean, variance=variance).fixed(1e-5)


def test_autocast_is_left_only_where_it_is_on() -> None:
    for device in ("cpu", "meta"):
        with reference.autocast_off(device) as entered:
            assert entered is None
    # A region that leaves nothing would stand in every exported graph.
    assert isinstance(reference.autocast_off("cpu"), contextlib.nullcontext)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert isinstance(reference.autocast_off("meta"), contextlib.nullcontext)
        with reference.autocast_off("cpu"):
            assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("gate", "formula", "moved"),
    [
        ("sigmoid", lambda a: 1 / (1 + (-a).exp()), lambda a: 2 / (1 + (-a).exp())),
        ("tanh", lambda a: 1 - 2 / (1 + (2 * a).exp()), lambda a: 2 - 2 / (1 + (2 * a).exp())),
        ("relu", lambda a: a * (a > 0), lambda a: (1 + a) * (a > -1)),
        ("hardsigmoid", lambda a: (a / 6 + 0.5).clamp(0, 1), lambda a: (a / 3 + 1).clamp(0, 2)),
    ],
)
def test_gates(gate: str, formula, moved) -> None:  # type: ignore[no-untyped-def]
    a = torch.linspace(-8, 8, 401, dtype=torch.float64)
    torch.testing.assert_close(reference.GATES[gate](a), formula(a), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(reference.ONE_AT_ZERO[gate](a), moved(a), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gate", list(reference.GATES))
def test_the_moved_gates_are_exactly_one_at_zero_and_not_flat(gate: str, dtype: torch.dtype) -> None:
    a = torch.zeros(3, dtype=dtype, requires_grad=True)
    s = reference.ONE_AT_ZERO[gate](a)
    s.sum().backward()
    assert torch.equal(s, torch.ones_like(s))
    assert a.grad is not None
    assert (a.grad > 0.3).all()


@settings(max_examples=50)
@given(n=st.integers(0, 4), c=st.integers(1, 8), hidden=st.integers(1, 5), bias=st.booleans())
def test_excite_is_equation_3(n: int, c: int, hidden: int, bias: bool) -> None:
    z, w1, w2 = torch.randn(n, c).double(), torch.randn(hidden, c).double(), torch.randn(c, hidden).double()
    b1 = torch.randn(hidden).double() if bias else None
    b2 = torch.randn(c).double() if bias else None
    first = torch.einsum("nc,hc->nh", z, w1) + (0 if b1 is None else b1)
    second = torch.einsum("nh,ch->nc", first * (first > 0), w2) + (0 if b2 is None else b2)
    found = reference.excite(z, w1, b1, w2, b2, torch.sigmoid)
    torch.testing.assert_close(found, 1 / (1 + (-second).exp()), rtol=1e-12, atol=1e-12)


def test_scale_and_scale_add() -> None:
    u, residual = torch.randn(2, 2, 3, 4, 5).double()
    s = torch.rand(2, 3).double()
    scaled = torch.einsum("nchw,nc->nchw", u, s)
    torch.testing.assert_close(reference.scale(u, s), scaled)
    torch.testing.assert_close(reference.scale_add(u, s, residual), scaled + residual)
    torch.testing.assert_close(
        reference.scale_add(u, s, residual, relu=True), (scaled + residual).clamp(min=0)
    )
