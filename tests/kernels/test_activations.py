from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from senet.kernels.activations import ACTIVATIONS, GATE_DERIVATIVES, ONE_AT_ZERO_DERIVATIVES
from senet.kernels.reference import GATES, ONE_AT_ZERO

# Where one piece of a function ends and the next begins.
EDGES = torch.tensor([-3.0, -1.0, 0.0, 3.0], dtype=torch.float64)


def _slope(function: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    v = v.detach().requires_grad_()
    (slope,) = torch.autograd.grad(function(v).sum(), v)
    return slope


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_derivatives_are_autograds(name: str) -> None:
    v = torch.cat([torch.randn(2000, dtype=torch.float64) * 4, EDGES])
    activation = ACTIVATIONS[name]
    torch.testing.assert_close(activation.derivative(v), _slope(activation.forward, v))


@pytest.mark.parametrize("name", sorted(GATES))
def test_gates_derivatives_come_from_what_they_give(name: str) -> None:
    y = torch.cat([torch.randn(2000, dtype=torch.float64) * 3, EDGES])
    for gate, derivative in (
        (GATES[name], GATE_DERIVATIVES[name]),
        (ONE_AT_ZERO[name], ONE_AT_ZERO_DERIVATIVES[name]),
    ):
        # PyTorch's own derivative of the hard sigmoid takes its 1/6 in single precision.
        rtol = 1e-6 if name == "hardsigmoid" else 1e-9
        torch.testing.assert_close(derivative(gate(y)), _slope(gate, y), rtol=rtol, atol=1e-9)


def test_not_a_number_passes_the_relu_as_in_pytorch() -> None:
    v = torch.tensor([torch.nan, 0.0, -0.0, torch.inf])
    torch.testing.assert_close(ACTIVATIONS["relu"].derivative(v), torch.tensor([1.0, 0.0, 0.0, 1.0]))
