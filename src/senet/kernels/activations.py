"""Activations and gates with their derivatives: what a fused backward needs beside the forward.

A comparison decides with ``where`` and not by a product, so that NaN goes on as it does in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from senet.kernels.reference import ACTIVATIONS as FORWARD


class Activation(NamedTuple):
    """A function of one number and its derivative, both of the number that enters."""

    forward: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


def _silu_derivative(v: Tensor) -> Tensor:
    sigmoid = torch.sigmoid(v)
    return sigmoid * (1 + v * (1 - sigmoid))


def _hardswish_derivative(v: Tensor) -> Tensor:
    return torch.where(v <= -3, 0, torch.where(v < 3, v / 3 + 0.5, 1))


_DERIVATIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": torch.ones_like,
    "relu": lambda v: torch.where(v <= 0, 0, 1).to(v.dtype),
    "silu": _silu_derivative,
    "hardswish": _hardswish_derivative,
}
ACTIVATIONS = {name: Activation(forward, _DERIVATIVES[name]) for name, forward in FORWARD.items()}

# The derivatives of the gates, of what they give: s is at hand, what entered is not.
GATE_DERIVATIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda s: s * (1 - s),
    "tanh": lambda s: 1 - s * s,
    "relu": lambda s: torch.where(s <= 0, 0, 1).to(s.dtype),
    "hardsigmoid": lambda s: torch.where((s <= 0) | (s >= 1), 0, torch.full_like(s, 1 / 6)),
}
ONE_AT_ZERO_DERIVATIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda s: s * (1 - s / 2),
    "tanh": lambda s: s * (2 - s),
    "relu": lambda s: torch.where(s <= 0, 0, 1).to(s.dtype),
    "hardsigmoid": lambda s: torch.where((s <= 0) | (s >= 2), 0, torch.full_like(s, 1 / 3)),
}
