"""Every operator by PyTorch's own checks: schema, fake, registration, ahead-of-time tracing."""

import pytest
import torch
from torch import Tensor

from senet.kernels import composite, operators
from senet.kernels.operators import ops

SHAPES = [(2, 3, 4, 5), (1, 1, 1, 1), (2, 4, 6), (2, 2, 2, 3, 2)]


def _samples(shape: tuple[int, ...], last: bool) -> dict[str, tuple[object, ...]]:
    n, channels = shape[:2]

    def a_map() -> Tensor:
        u = torch.randn(shape)
        return u.contiguous(memory_format=torch.channels_last) if last else u

    scale, mean, shift, inverse, weight, bias = torch.rand(6, channels).unbind()
    s, dz, z, sample_mean, variance = torch.rand(5, n, channels).unbind()
    w1, w2 = torch.randn(3, channels), torch.randn(channels, 3)
    affine = (scale, mean, shift)
    size = shape[2:].numel() if isinstance(shape, torch.Size) else torch.Size(shape[2:]).numel()
    return {
        "moments": (a_map(),),
        "pool": (a_map(), *affine, "silu"),
        "apply": (a_map(), *affine, s, a_map(), "identity", "relu"),
        "reduce": (a_map(), a_map(), a_map(), *affine, "relu", a_map()),
        "input_gradient": (
            a_map(), a_map(), *affine, s, dz, inverse, weight, bias, n * size, "identity",
        ),
        "statistics": (sample_mean, variance, weight, bias, 1e-5, size + 1),
        "excitation": (z, w1, None, w2, bias, "relu", "sigmoid", False),
        "gate_gradients": (
            torch.randn(2, n, channels), dz, s, torch.rand(n), torch.randn(n, 3), z, w1, w2, sample_mean,
            mean, inverse, scale, shift, size, "identity", "relu", "sigmoid", True,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(operators.SCHEMAS))
@pytest.mark.parametrize(("shape", "last"), [*((shape, False) for shape in SHAPES), ((2, 3, 4, 5), True)])
def test_opcheck(name: str, shape: tuple[int, ...], last: bool) -> None:
    sample = _samples(shape, last)[name]
    done = torch.library.opcheck(getattr(ops, name).default, (*sample, "composite"))
    assert set(done.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", sorted(operators.SCHEMAS))
def test_an_operator_runs_the_step_of_its_backend(name: str) -> None:
    sample = _samples((2, 3, 4, 5), False)[name]
    torch.testing.assert_close(getattr(ops, name)(*sample, "composite"), getattr(composite, name)(*sample))


def test_a_step_that_a_backend_lacks_is_the_composite_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(operators.MODULES, "empty", "senet.errors")
    assert operators.step("moments", "empty") is composite.moments
    operators.step.cache_clear()
