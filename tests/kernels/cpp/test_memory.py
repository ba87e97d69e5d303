"""The C++ steps write no memory but their own, and read none that they have not written."""

import ctypes
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from senet.kernels import cpp
from senet.kernels.cpp import build

# What it takes is decided at run time.
STEPS: Any = cpp
GUARD = Path(__file__).with_name("guard.hpp")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The steps with an allocator that tells."""
    reason = build.unavailable()
    if reason is not None:
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("guarded") / "steps.so"
    # Not optimised: it runs for a moment only.
    flags = [each for each in build._FLAGS if not each.startswith("-O")]
    build._compile(build._compiler(), [*flags, "-O0", "-include", str(GUARD)], path)
    return ctypes.CDLL(str(path))


@pytest.fixture(autouse=True)
def _guarded(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    library.senet_threads(*(ctypes.c_void_p(each) for each in build._threads()))
    monkeypatch.setattr(build, "library", lambda: library)
    monkeypatch.setattr(cpp, "_functions", functools.cache(cpp._functions.__wrapped__))
    overruns, most = (ctypes.c_long.in_dll(library, name) for name in ("overruns", "most"))
    overruns.value = most.value = 0
    yield
    assert overruns.value == 0
    # Whatever the size of the maps: it shall stay in the cache.
    assert 0 < most.value < 1 << 20


def _finite(results: Tensor | tuple[Tensor, ...]) -> bool:
    return all(each.isfinite().all() for each in (results if isinstance(results, tuple) else (results,)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "shape", [(3, 5, 7, 9), (2, 70, 6, 5), (2, 1, 260, 260), (1, 2100, 8, 3), (300, 90, 2, 1)]
)
def test_sweeps(shape: tuple[int, ...], last: bool, dtype: torch.dtype) -> None:
    n, c = shape[:2]
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    u = torch.randn(shape).to(dtype)
    u = u.contiguous(memory_format=torch.channels_last) if last else u
    norm: Any = tuple(torch.rand(c, dtype=wide) for _ in range(3))
    gate = torch.rand(n, c, dtype=wide)
    assert _finite(cpp.moments(u))
    for inner in ("identity", "silu"):
        assert _finite(STEPS.pool(u, *norm, inner))
        for other, through in ((u, norm), (None, (None,) * 3)):
            assert _finite(STEPS.apply(u, *norm, gate, other, inner, "relu"))
            assert _finite(STEPS.reduce(u, other, u, *norm, inner, other))
            assert _finite(STEPS.input_gradient(u, u, *norm, gate, gate, *through, 9, inner))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "c", "hidden"), [(1, 1, 1), (3, 64, 1), (2, 128, 32), (4, 33, 40), (1, 1, 64)])
@pytest.mark.parametrize("inner", ["identity", "silu"])
def test_steps_between_the_sweeps(n: int, c: int, hidden: int, dtype: torch.dtype, inner: str) -> None:
    def numbers(*shape: int) -> Tensor:
        return torch.rand(shape, dtype=dtype)

    vectors = (numbers(c), numbers(c))
    assert _finite(cpp.statistics(numbers(n, c), numbers(n, c), *vectors, 1e-5, 9))
    z, w1, w2 = numbers(n, c), numbers(hidden, c), numbers(c, hidden)
    asked = (z, w1, numbers(hidden), w2, numbers(c), "relu", "sigmoid", True)
    entering, s = cpp.excitation(*asked)
    assert _finite((entering, s))
    sums = numbers(2 if inner == "identity" else 5, n, c)
    norm = (numbers(n, c), *vectors, *vectors)
    back = (sums, z, s, numbers(n), entering, z, w1, w2, *norm, 9, inner, "relu", "sigmoid", True)
    assert _finite(cpp.gate_gradients(*back))


def test_a_map_that_the_gradient_does_not_depend_on_is_not_read() -> None:
    gm, gate = torch.randn(2, 3, 4).bfloat16(), torch.rand(2, 3)
    u = torch.empty_like(gm)
    u.untyped_storage().resize_(0)
    du = cpp.input_gradient(gm, u, None, None, None, gate, 0 * gate, None, None, None, 1, "identity")
    assert torch.equal(du, (gm * gate[..., None]).bfloat16())
