"""The bars of ``tests/bars.py`` for the forms that run on the CPU, and for what compilers make of them."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from tests import bars
from tests.tails import random_tail, worst

from senet import functional
from senet.errors import BackendError, ShapeError
from senet.kernels import backends, cpp
from senet.kernels.cpp import build
from senet.kernels.operators import step
from senet.kernels.reference import Tail, TailResult, TailTensors, tail

BACKENDS = ["composite", "cpp", "aten"]


@pytest.fixture(params=BACKENDS)
def run(request: pytest.FixtureRequest) -> bars.Run:
    return _form(request.param)


def _form(name: str) -> bars.Run:
    if name == "cpp" and (reason := build.unavailable()):
        pytest.skip(reason)
    return partial(backends.run, backend=name)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", bars.FORWARD)
@pytest.mark.parametrize("spec", bars.FORMS, ids=str)
def test_parity_with_float64(run: bars.Run, spec: Tail, dtype: torch.dtype, last: bool) -> None:
    bars.check_parity(run, spec, dtype, last)


def _compiled(compiler: str, spec: Tail, tensors: TailTensors) -> TailResult:
    torch._dynamo.reset()

    def forward(*given: Any) -> TailResult:
        return backends.run(spec, TailTensors(*given))

    return TailResult(*torch.compile(forward, backend=compiler, fullgraph=True)(*tensors))


@pytest.mark.parametrize(
    ("compiler", "dtype"),
    [("aot_eager", torch.float32), ("aot_eager", torch.bfloat16)]
    + [pytest.param("inductor", dtype, marks=pytest.mark.slow) for dtype in bars.FORWARD],
)
def test_parity_of_what_is_compiled(compiler: str, dtype: torch.dtype) -> None:
    for spec in bars.FORMS[:1] if compiler == "aot_eager" else bars.FORMS:
        bars.check_parity(partial(_compiled, compiler), spec, dtype, last=True)


@settings(max_examples=200)
@given(**bars.SPOILT)
def test_what_is_not_finite_is_so_in_the_same_places(**drawn: Any) -> None:
    names = [name for name in BACKENDS if name != "cpp" or build.unavailable() is None]
    bars.check_nonfinite({name: _form(name) for name in names}, **drawn)


@pytest.mark.parametrize("name", bars.MAPS)
@pytest.mark.parametrize("norm", ["batch", "fixed"])
def test_awkward_maps(run: bars.Run, name: str, norm: str) -> None:
    if (name, norm) == ("1 number", "batch"):
        with pytest.raises(BackendError, match=r"\(1, 24, 1, 1\).*one number"):
            bars.check_awkward(run, name, Tail(norm))
    else:
        bars.check_awkward(run, name, Tail(norm))


def test_nothing_is_as_in_eager_and_no_height_is_an_error() -> None:
    spec = Tail("fixed")
    tensors = random_tail(spec, (0, 4, 3, 3))
    assert backends.run(spec, tensors).out.shape == tail(spec, tensors).out.shape
    for name in BACKENDS:
        with pytest.raises((BackendError, ShapeError), match=r"\(0, 4, 3, 3\).*empty"):
            backends.run(spec, tensors, name)
    z, w = torch.zeros(2, 4, 0, 3), torch.zeros(4, 4)
    with pytest.raises(ValueError, match=r"\(2, 4, 0, 3\)"):
        functional.bn_se_add_act(z, w[0], w[0], None, None, w, None, w, None, training=False)


@pytest.mark.parametrize("spec", bars.FORMS[::3], ids=str)
def test_the_same_numbers_give_the_same_bits(run: bars.Run, spec: Tail) -> None:
    bars.check_repeated(run, spec)


SIZES = [(1, 1), (1, 70_000), (7, 7), (112, 112), pytest.param((4096, 4096), marks=pytest.mark.slow)]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["composite", "cpp"])
def test_the_squeeze_of_huge_half_precision_maps(
    backend: str, dtype: torch.dtype, size: tuple[int, int], last: bool
) -> None:
    _form(backend)
    for u in bars.huge(dtype, size, last):
        bars.check_squeezed(step("pool", backend)(u, None, None, None, "identity"), u)
        bars.check_squeezed(step("moments", backend)(u)[0], u)


@pytest.mark.parametrize("backend", ["composite", "cpp"])
def test_near_the_limit_of_float32_the_squeeze_is_that_of_eager_pytorch(backend: str) -> None:
    _form(backend)
    for size in ((1, 1), (1, 2), (9, 11)):
        u = torch.tensor([3e38, -3e38, 1e38 / 50]).reshape(1, 3, 1, 1).expand(1, 3, *size).contiguous()
        z, eager = step("pool", backend)(u, None, None, None, "identity"), u.mean((2, 3))
        assert bars.same_kind(z, eager)
        assert worst([z.nan_to_num(0, 0, 0)], [eager.nan_to_num(0, 0, 0)]) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("last", [False, True])
def test_cpp_addresses_beyond_two_to_the_31(last: bool) -> None:
    _form("cpp")
    # Zeros that nobody has written take no memory, and reading leaves it so.
    size = 2**30 + 64
    u = torch.zeros((1, 1, size, 2) if last else (1, 2, 1, size), dtype=torch.float16)
    u = u.permute(0, 3, 1, 2) if last else u
    u[0, 1, 0, -1] = 512
    assert u.numel() > 2**31
    assert torch.equal(cpp.pool(u, None, None, None, "identity"), torch.tensor([[0, 512 / size]]))
