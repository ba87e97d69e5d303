"""Random tails, and how far a result may be from the composite's in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from senet.kernels import composite

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

INNER = ("identity", "relu", "silu", "hardswish")
OUTER = ("identity", "relu")
GATES = ("sigmoid", "tanh", "relu", "hardsigmoid")
HIDDEN = ("relu", "silu", "hardswish")

# Maximum error over maximum value, of what is written in a dtype.
BOUNDS = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Case:
    """One tail: which form it has, and of what its numbers are drawn."""

    shape: tuple[int, ...]
    last: bool = False
    dtype: torch.dtype = torch.float32
    other: torch.dtype = torch.float32
    norm: str = "batch"
    inner: str = "identity"
    outer: str = "relu"
    residual: bool = True
    hidden: int = 5
    seed: int = 0
    offset: float = 0.0

    @property
    def positions(self) -> int:
        return composite.positions(torch.empty(self.shape, device="meta"))


@st.composite
def cases(draw: Any, most: int = 9) -> Case:
    """Small maps of one to three dimensions in every form."""
    sides = draw(st.lists(st.integers(1, most), min_size=1, max_size=3))
    if len(sides) == 3:
        sides = [min(side, 4) for side in sides]
    dtypes = st.sampled_from(list(BOUNDS))
    return Case(
        shape=(draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 8, 16, 20, 33, 64, 72])), *sides),
        last=len(sides) > 1 and draw(st.booleans()),
        dtype=draw(dtypes),
        other=draw(dtypes),
        norm=draw(st.sampled_from(["batch", "fixed", "none"])),
        inner=draw(st.sampled_from(INNER)),
        outer=draw(st.sampled_from(OUTER)),
        residual=draw(st.booleans()),
        hidden=draw(st.sampled_from([1, 4, 16, 37])),
        seed=draw(st.integers(0, 2**16)),
    )


class Drawn:
    """A case's tensors: maps u, r, g and out; and numbers per channel, as a norm has them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.random = torch.Generator().manual_seed(case.seed)
        self.u = self.map(case.dtype, case.offset)
        self.r = self.map(case.other) if case.residual else None
        self.g = self.map(case.other)
        # As a ReLU gives it: many numbers are exactly 0.
        self.out = self.map(case.dtype).relu() if case.outer == "relu" else None
        samples, channels = case.shape[:2]
        self.gate = self.numbers(samples, channels).sigmoid()
        self.dz = self.numbers(samples, channels)
        self.norm: Any = (None, None, None)
        self.through: Any = (None, None, None)
        if case.norm != "none":
            self.norm = (
                self.numbers(channels),
                self.numbers(channels) + case.offset,
                self.numbers(channels),
            )
        if case.norm == "batch":
            self.through = (self.numbers(channels).abs(), self.numbers(channels), self.numbers(channels))

    def map(self, dtype: torch.dtype, offset: float = 0.0) -> Tensor:
        made = (torch.randn(self.case.shape, generator=self.random) + offset).to(dtype)
        form = LAST[made.ndim] if self.case.last else torch.contiguous_format
        return made.to(DEVICE).contiguous(memory_format=form)

    def numbers(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random).to(DEVICE)


def wide(value: Any) -> Any:
    """Tensors in float64, so that the composite rounds nothing."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def expected(step: str, *args: Any) -> Any:
    """What the composite gives in float64."""
    return getattr(composite, step)(*(wide(each) for each in args))


def error(found: Tensor, true: Tensor, least: float = 0.0) -> float:
    """The largest difference, over the largest value or ``least``, whichever is larger."""
    assert found.shape == true.shape
    if found.numel() == 0:
        return 0.0
    apart = (found.double() - true).abs().max()
    return float(apart / true.abs().max().clamp(min=max(least, 1e-30)))


def same_kind(found: Tensor, true: Tensor) -> bool:
    """Whether both are NaN, +Inf and −Inf in the same places."""
    return bool(
        (found.isnan() == true.isnan()).all()
        and (found.isposinf() == true.isposinf()).all()
        and (found.isneginf() == true.isneginf()).all()
    )
