"""Every step in C++ against the same step in plain PyTorch, in float64."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.poison import poisoned
from torch import Tensor

from senet.block import SqueezeExcitation
from senet.kernels import composite, cpp
from senet.kernels.activations import ACTIVATIONS
from senet.kernels.cpp import build
from senet.kernels.fused import fused_tail
from senet.kernels.layout import memory_format
from senet.kernels.reference import Tail, TailTensors, accumulation_dtype

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
INNER = ["identity", "relu", "silu", "hardswish"]
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
# Of one value, rounded once, relative to the largest.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    reason = build.unavailable()
    if reason is not None:
        pytest.skip(reason)
    with poisoned():
        yield


def _map(shape: tuple[int, ...], dtype: torch.dtype, last: bool, *, mean: float = 0.5) -> Tensor:
    u = (torch.randn(shape, dtype=torch.float64) + mean).to(dtype)
    return u.contiguous(memory_format=FORMATS[u.ndim]) if last and u.ndim in FORMATS else u


def _wide(*given: Any) -> list[Any]:
    return [each.double() if isinstance(each, Tensor) else each for each in given]


def _check_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    scale = expected.abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * max(scale, 1e-30))


def _check_sums(found: Tensor, expected: Tensor, terms: Tensor, tolerance: float) -> None:
    """Sums may be small where their terms are not: they are measured by the sum of magnitudes."""
    assert found.shape == expected.shape
    torch.testing.assert_close(
        found.double(), expected, rtol=0, atol=tolerance * max(terms.flatten().tolist(), default=1)
    )


class _Case:
    """Random tensors of one shape, as the steps are given them."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, last: bool, norm: bool) -> None:
        n, c = shape[:2]
        self.wide = accumulation_dtype(dtype)
        self.u, self.residual, self.g = (_map(shape, dtype, last) for _ in range(3))
        self.norm: Any = tuple(self.numbers(c) for _ in range(3)) if norm else (None,) * 3
        self.gate, self.dz = self.numbers(n, c), self.numbers(n, c)
        self.through: Any = tuple(self.numbers(c) for _ in range(3)) if norm else (None,) * 3
        self.count = max(1, self.u.numel() // max(1, c))

    def numbers(self, *shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64).to(self.wide)


def _check_steps(case: _Case, inner: str, outer: str, tolerance: float) -> None:
    u, residual, g, norm = case.u, case.residual, case.g, case.norm
    sums = 1e-13 if case.wide is torch.float64 else 1e-6
    for found, expected in zip(cpp.moments(u), composite.moments(u.double()), strict=True):
        _check_close(found, expected, sums)
    pooled: Any = (u, *norm, inner)
    z = composite.pool(*_wide(*pooled))
    _check_sums(cpp.pool(*pooled), z, z.abs() + 1, 2 * sums)
    for added in (residual, None):
        given_: Any = (u, *norm, case.gate, added, inner, outer)
        out = cpp.apply(*given_)
        # A ReLU may leave only numbers that are small as their terms cancel.
        of_norm = (None,) * 3 if norm[0] is None else (norm[0].abs(), -norm[1].abs(), norm[2].abs())
        added_ = None if added is None else added.abs()
        terms: Any = (u.abs(), *of_norm, case.gate.abs(), added_, "identity", "identity")
        largest = composite.apply(*_wide(*terms))
        _check_sums(out, composite.apply(*_wide(*given_)), largest, tolerance)
        assert out.dtype == u.dtype
        assert out.stride() == torch.empty_like(u).stride()
    forward: Any = (u, *norm, case.gate, residual, inner, "relu")
    for kept, second in itertools.product((composite.apply(*forward), None), (None, residual)):
        reduced: Any = (g, kept, u, *norm, inner, second)
        masked, taken = cpp.reduce(*reduced)
        expected_masked, expected_taken = composite.reduce(*_wide(*reduced))
        assert masked.dtype == g.dtype
        # Only the sum of two gradients is rounded.
        rounding = 0.0 if second is None else torch.finfo(g.dtype).eps
        torch.testing.assert_close(masked.double(), expected_masked, rtol=rounding, atol=rounding)
        of_both = g.double().abs() + (0 if second is None else second.double().abs())
        magnitudes = composite.reduce(of_both, None, *_wide(u, *norm, inner))[1].abs()
        positions = math.prod(u.shape[2:])
        for own, truth, terms in zip(taken, expected_taken, magnitudes, strict=True):
            _check_sums(own, truth, terms + positions, 5 * sums)
    for through in (case.through, (None,) * 3):
        swept: Any = (g, u, *norm, case.gate, case.dz, *through, case.count, inner)
        du = cpp.input_gradient(*swept)
        _check_close(du, composite.input_gradient(*_wide(*swept)), 5 * tolerance)
        assert du.dtype == u.dtype
        assert du.stride() == torch.empty_like(u).stride()


@settings(max_examples=150)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40)),
    spatial=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    dtype=st.sampled_from(DTYPES),
    last=st.booleans(),
    norm=st.booleans(),
    inner=st.sampled_from(INNER),
    outer=st.sampled_from(["identity", "relu"]),
    seed=st.integers(0, 2**31),
)
def test_steps(
    shape: tuple[int, int],
    spatial: list[int],
    dtype: torch.dtype,
    last: bool,
    norm: bool,
    inner: str,
    outer: str,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    _check_steps(_Case((*shape, *spatial), dtype, last, norm), inner, outer, TOLERANCE[dtype])


@pytest.mark.filterwarnings("ignore:var_mean")  # of nothing
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "shape",
    # Several tiles, several chunks, lines longer than a tile, many small samples, nothing at all.
    [
        (2, 3, 90, 91),
        (1, 300, 20, 31),
        (1, 1, 70000),
        (1, 4200, 5, 7),
        (70, 33, 2, 2),
        (0, 4, 3, 3),
        (2, 0, 3),
        (2, 0, 1),
    ],
)
def test_steps_on_maps_of_every_kind(shape: tuple[int, ...], last: bool) -> None:
    _check_steps(_Case(shape, torch.float32, last, True), "identity", "relu", 1e-6)
    _check_steps(_Case(shape, torch.bfloat16, last, True), "silu", "relu", 8e-3)


@pytest.mark.parametrize(("of_u", "of_residual"), list(itertools.permutations(DTYPES, 2)))
def test_each_map_may_have_its_own_dtype(of_u: torch.dtype, of_residual: torch.dtype) -> None:
    case = _Case((2, 5, 7, 3), of_u, True, True)
    residual = case.residual.to(of_residual)
    given_: Any = (case.u, *case.norm, case.gate, residual, "silu", "relu")
    out = cpp.apply(*given_)
    assert out.dtype == torch.promote_types(of_u, of_residual)
    _check_close(out, composite.apply(*_wide(*given_)), max(TOLERANCE[out.dtype], 1e-6))
    g = case.g.to(of_residual) * (1 + 1e-9)
    for kept in (out, None):
        reduced: Any = (g, kept, case.u, *case.norm, "silu")
        masked, sums = cpp.reduce(*reduced)
        expected_masked, expected = composite.reduce(*reduced)
        assert torch.equal(masked, expected_masked)
        assert sums.dtype == case.wide
        torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-4)
    swept: Any = (g, case.u, *case.norm, case.gate, case.dz, *case.through, case.count, "relu")
    du = cpp.input_gradient(*swept)
    assert du.dtype == of_u
    _check_close(du, composite.input_gradient(*_wide(*swept)), 5 * TOLERANCE[of_u])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half_number_is_converted_as_pytorch_does(dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).reshape(1, 2**16, 1)
    one, none = torch.ones(1, 2**16), torch.zeros(1, 2**16)
    kept = cpp.apply(every, None, None, None, one, None, "identity", "identity")
    torch.testing.assert_close(kept, every, rtol=0, atol=0, equal_nan=True)
    # Numbers between, at every exponent: a factor moves them off the dtype's grid.
    moved = torch.linspace(0.5, 2, 2**16)[None]
    found = cpp.apply(every, None, None, None, moved, None, "identity", "identity")
    expected = (every.float() * moved[..., None]).to(dtype)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    half = every[:, :, 0].float() / 2
    torch.testing.assert_close(cpp.moments(every)[0], every[..., 0].float(), rtol=0, atol=0, equal_nan=True)
    ties = cpp.apply(every, None, None, None, none + 0.5, None, "identity", "identity")
    torch.testing.assert_close(ties[..., 0], half.to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("offset", [0, 30, 300])
@pytest.mark.parametrize("last", [False, True])
def test_moments_are_as_exact_as_eager(offset: float, last: bool) -> None:
    u = _map((4, 48, 33, 35), torch.float32, last, mean=offset)
    mean, variance = composite.moments(u.double())
    eager = composite.moments(u)
    for found, truth, other in zip(cpp.moments(u), (mean, variance), eager, strict=True):
        error, bar = (found - truth).abs().max(), (other - truth).abs().max()
        assert error <= 1.5 * bar + 1e-7 * max(1, offset)
    # Zeros first, as at a padded border: the spread is not measured from there.
    u[:, :, :16] = 0
    _check_close(cpp.moments(u)[1], composite.moments(u.double())[1], 1e-6)


@pytest.mark.parametrize("offset", [300, 3e5])
@pytest.mark.parametrize("last", [False, True])
def test_what_rounding_takes_from_a_mean_is_put_back(offset: float, last: bool) -> None:
    u = _map((4, 48, 5, 5), torch.float32, last, mean=offset)
    mean, variance = cpp.moments(u)
    true_mean, true_variance = composite.moments(u.double())
    place = torch.nextafter(mean, mean + 1) - mean
    assert ((mean - true_mean).abs() <= 0.51 * place).all()
    _check_close(variance, true_variance, 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_nan_stays_one(dtype: torch.dtype) -> None:
    gm = torch.tensor([0x7FFFFFFF, 0x7FC00001, -1], dtype=torch.int32).view(torch.float32).reshape(1, 3, 1)
    u, one = torch.zeros(1, 3, 1, dtype=dtype), torch.ones(1, 3)
    swept: Any = (gm, u, None, None, None, one, 0 * one, None, None, None, 1, "identity")
    assert cpp.input_gradient(*swept).isnan().all()


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**31),
    inner=st.sampled_from(INNER),
    outer=st.sampled_from(["identity", "relu"]),
    dtype=st.sampled_from(DTYPES),
    last=st.booleans(),
    norm=st.booleans(),
)
def test_what_is_not_finite_goes_on_as_in_pytorch(
    seed: int, inner: str, outer: str, dtype: torch.dtype, last: bool, norm: bool
) -> None:
    torch.manual_seed(seed)
    case = _Case((3, 4, 5, 6), dtype, last, norm)
    for u in (case.u, case.residual, case.g):
        for value in (torch.nan, torch.inf, -torch.inf):
            n, c, y, x = (int(torch.randint(size, ())) for size in u.shape)
            u[n, c, y, x] = value
    u, g = case.u, case.g
    forward: Any = (u, *case.norm, case.gate, case.residual, inner, outer)
    out = composite.apply(*forward)
    kept = out if outer == "relu" else None
    for name, given_ in {
        "pool": (u, *case.norm, inner),
        "apply": forward,
        "reduce": (g, kept, u, *case.norm, inner),
        "input_gradient": (g, u, *case.norm, case.gate, case.dz, *case.through, case.count, inner),
    }.items():
        found, expected = getattr(cpp, name)(*given_), getattr(composite, name)(*given_)
        pairs = [(found, expected)] if isinstance(found, Tensor) else zip(found, expected, strict=True)
        for own, truth in pairs:
            _check_kinds(own, truth)
        if name == "reduce":
            # Where out is NaN, the gradient passes.
            torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0, equal_nan=True)
    # The mean of Inf is Inf, as batch norm has it; var_mean, by its own formula, says NaN.
    mean, variance = cpp.moments(u)
    _check_kinds(mean, u.to(case.wide).mean((2, 3)))
    _check_kinds(variance, composite.moments(u)[1])


def _check_kinds(found: Tensor, expected: Tensor) -> None:
    """The same numbers are NaN, Inf and -Inf."""
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.isposinf(), expected.isposinf())
    assert torch.equal(found.isneginf(), expected.isneginf())


@pytest.mark.parametrize("inner", INNER)
def test_where_pieces_of_an_activation_meet_it_is_as_in_pytorch(inner: str) -> None:
    u, one = torch.tensor([[[-3.0, -0.0, 0.0, 3.0]]]), torch.ones(1, 1)
    swept: Any = (torch.ones_like(u), u, None, None, None, one, 0 * one, None, None, None, 1, inner)
    torch.testing.assert_close(cpp.input_gradient(*swept), composite.input_gradient(*swept))


def test_silu_is_exact_over_the_whole_line() -> None:
    v = torch.cat(
        [torch.linspace(-110, 110, 40001), torch.logspace(-40, 38, 999), -torch.logspace(-40, 38, 999)]
    )
    u, one = v.reshape(1, 1, -1), torch.ones(1, 1)
    found = cpp.apply(u, None, None, None, one, None, "silu", "identity")
    expected = torch.nn.functional.silu(u.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-36)
    slope = cpp.input_gradient(
        torch.ones_like(u), u, None, None, None, one, 0 * one, None, None, None, 1, "silu"
    )
    truth = ACTIVATIONS["silu"].derivative(u.double())
    torch.testing.assert_close(slope.double(), truth, rtol=2e-6, atol=3e-7)


def test_unusual_factors_are_made_dense() -> None:
    case = _Case((2, 6, 4, 4), torch.float32, True, True)
    factors: list[Tensor] = [*case.norm, case.gate]
    strided = [torch.stack([each, each], -1)[..., 0] for each in factors]
    assert not any(each.is_contiguous() for each in strided)
    as_they_are: Any = (case.u, *strided, case.residual, "relu", "relu")
    made_dense: Any = (case.u, *factors, case.residual, "relu", "relu")
    assert torch.equal(cpp.apply(*as_they_are), cpp.apply(*made_dense))


@pytest.mark.parametrize(
    ("shape", "last"),
    [((3, 40, 61, 67), True), ((3, 40, 61, 67), False), ((1, 7, 300, 301), True), ((1, 2, 99999), False)],
)
def test_the_number_of_threads_changes_no_bit(shape: tuple[int, ...], last: bool) -> None:
    case = _Case(shape, torch.float32, last, True)
    forward: Any = (case.u, *case.norm, case.gate, case.residual, "silu", "relu")
    out = cpp.apply(*forward)
    steps: list[Any] = [
        (cpp.moments, (case.u,)),
        (cpp.pool, (case.u, *case.norm, "silu")),
        (cpp.apply, forward),
        (cpp.reduce, (case.g, out, case.u, *case.norm, "silu")),
        (
            cpp.input_gradient,
            (case.g, case.u, *case.norm, case.gate, case.dz, *case.through, case.count, "silu"),
        ),
    ]
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results = [step(*given_) for step, given_ in steps]
            found.append(
                [each for result in results for each in ([result] if isinstance(result, Tensor) else result)]
            )
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(own, first) for own, first in zip(other, found[0], strict=True))


@pytest.mark.parametrize("norm", ["batch", "fixed", "none"])
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("shape", [(4, 12, 9, 7), (3, 5, 20)])
def test_the_whole_tail(norm: str, inner: str, residual: bool, shape: tuple[int, ...]) -> None:
    c, hidden = shape[1], 3
    spec = Tail(norm=norm, inner=inner, outer="relu" if residual else "identity")
    numbers: dict[str, Tensor | None] = {
        "u": torch.randn(shape),
        "residual": torch.randn(shape) if residual else None,
        "keep": torch.rand(shape[0]),
        "weight": torch.rand(c) + 0.5 if norm != "none" else None,
        "bias": torch.randn(c) if norm != "none" else None,
        "mean": torch.randn(c) if norm == "fixed" else None,
        "variance": torch.rand(c) + 0.5 if norm == "fixed" else None,
        "w1": torch.randn(hidden, c) / 2,
        "b1": torch.randn(hidden),
        "w2": torch.randn(c, hidden) / 2,
        "b2": torch.randn(c),
    }
    g = torch.randn(shape)
    results: dict[str, list[Tensor]] = {}
    for backend, dtype in (("cpp", torch.float32), ("composite", torch.float64)):
        leaves: Any = [None if each is None else each.to(dtype).clone() for each in numbers.values()]
        leaves[0] = _last(leaves[0])
        wanted = [leaves[k] for k in (0, 1, 3, 4, 7, 8, 9, 10)]
        learnt = [each.requires_grad_() for each in wanted if each is not None]
        result = fused_tail(spec, TailTensors(*leaves), backend)
        (result.out * g.to(dtype)).sum().add(result.s.square().sum()).backward()
        results[backend] = [result.out.detach(), result.s.detach()]
        results[backend] += [each.grad for each in learnt if each.grad is not None]
        assert len(results[backend]) == 2 + len(learnt)
    for k, (found, expected) in enumerate(zip(results["cpp"], results["composite"], strict=True)):
        _check_close(found, expected, 1e-6 if k < 2 else 5e-6)
    out = results["cpp"][0]
    assert memory_format(out) == memory_format(results["composite"][0])


def _last(u: Tensor | None) -> Tensor | None:
    return u if u is None or u.ndim != 4 else u.contiguous(memory_format=torch.channels_last)


def test_a_default_device_does_not_matter() -> None:
    u = torch.randn(2, 8, 6, 6, requires_grad=True)
    block = SqueezeExcitation(8, 4)
    block.backend = "cpp"
    wanted = block(u)
    with torch.device("meta"):
        found = block(u)
        found.sum().backward()
    assert torch.equal(found, wanted)
    assert u.grad is not None
    assert u.grad.isfinite().all()
