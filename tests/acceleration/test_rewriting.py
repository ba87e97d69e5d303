from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.acceleration.networks import Spelled
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

from senet.acceleration.rewriting import KINDS, Left, Rewriter, Step
from senet.block import SqueezeExcitation
from senet.graph.examples import trace_with
from senet.graph.flow import Flow


def _plan(model: nn.Module, kinds: tuple[str, ...] = KINDS) -> tuple[list[Step], list[Left]]:
    return Rewriter(model, Flow(trace_with(model, torch.randn(2, 4, 9, 9))[0])).plan(kinds)


def _stack(*layers: nn.Module) -> Any:
    """With layers around it that nothing is done to."""
    return nn.Sequential(nn.Conv2d(4, 8, 3), *layers, nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()


def test_what_is_found() -> None:
    model = _stack(
        nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), SqueezeExcitation(8, 2)
    )
    steps, left = _plan(model)
    assert [(step.kind, step.layer, step.taken) for step in steps] == [
        ("norm", "0", "1"),
        ("norm", "3", "4"),
        ("squeeze", "3", "5"),
    ]
    assert not left
    steps, left = _plan(_stack(nn.SiLU(), Spelled(8), nn.Conv2d(8, 8, 1)))
    assert [(step.kind, step.layer, step.taken) for step in steps] == [("scale", "3", "2")]


def test_a_convolution_between_two_blocks_takes_one_of_them() -> None:
    steps, left = _plan(_stack(nn.SiLU(), Spelled(8), nn.Conv2d(8, 8, 1), Spelled(8)))
    assert [(step.kind, step.layer, step.taken) for step in steps] == [("scale", "3", "2")]
    assert [each.module for each in left] == ["4"]


def _shared() -> nn.Module:
    conv, other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
    other.weight = conv.weight
    return nn.Sequential(conv, SqueezeExcitation(8, 2), nn.ReLU(), other)


def _hooked() -> nn.Module:
    conv = nn.Conv2d(8, 8, 1)
    conv.register_forward_hook(lambda *_: None)
    return nn.Sequential(conv, SqueezeExcitation(8, 2))


class _Read(nn.Module):
    """What the convolution gives is read beside SE."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.se = nn.Conv2d(8, 8, 1), Spelled(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        gated: torch.Tensor = self.se(x) + x
        return gated


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Conv2d(8, 8, 1, stride=2), SqueezeExcitation(8, 2)),
        lambda: nn.Sequential(nn.Conv2d(8, 8, 1, padding=1), SqueezeExcitation(8, 2)),
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), SqueezeExcitation(8, 2)),
        lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.SiLU(), SqueezeExcitation(8, 2)),
        lambda: nn.Sequential(nn.Conv2d(8, 8, 1), SqueezeExcitation(8, 2, squeeze="max")),
        lambda: nn.Sequential(nn.SiLU(), SqueezeExcitation(8, 2), nn.Conv2d(8, 8, 1, groups=2)),
        lambda: nn.Sequential(nn.SiLU(), SqueezeExcitation(8, 2), nn.Conv2d(8, 8, 1, stride=2)),
        lambda: nn.Sequential(nn.SiLU(), SqueezeExcitation(8, 2), nn.ReLU(), nn.Conv2d(8, 8, 1)),
        _shared,
        _hooked,
        _Read,
    ],
    ids="strided padded spatial activated max grouped then_strided then_activated shared hooked read".split(),
)
def test_blocks_that_stay(make: Callable[[], nn.Module]) -> None:
    steps, left = _plan(_stack(make()), ("squeeze", "scale"))
    assert not steps
    assert len(left) == 1
    assert left[0].reason


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(8, track_running_stats=False), nn.GroupNorm(2, 8), FrozenBatchNorm2d(8)],
    ids=lambda norm: type(norm).__name__,
)
def test_norms_that_stay(norm: nn.Module) -> None:
    steps, left = _plan(_stack(norm))
    assert not steps
    assert [each.module for each in left] == ([] if isinstance(norm, nn.GroupNorm) else ["1"])
    steps, left = _plan(_stack(nn.ReLU(), nn.BatchNorm2d(8)))
    assert (steps, [each.module for each in left]) == ([], ["2"])
    assert _plan(_stack(nn.BatchNorm2d(8)), ("scale",)) == ([], [])


def test_a_norm_of_a_convolution_without_affine_numbers_is_folded() -> None:
    model = _stack(nn.BatchNorm2d(8, affine=False))
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    x = torch.randn(2, 4, 9, 9)
    wanted = model(x)
    (step,), _ = _plan(model)
    step.apply(model)
    assert isinstance(model[1], nn.Identity)
    torch.testing.assert_close(model(x), wanted)


class _Branch(nn.Module):
    """A unit whose branch is a Sequential, and that may let others see what SE gives, or the sum."""

    def __init__(self, shows: str) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), SqueezeExcitation(4, 2))
        self.drop, self.relu, self.shows = nn.Identity(), nn.ReLU(), shows

    def forward(self, x: torch.Tensor) -> Any:
        u = self.drop(self.branch(x))
        total = u + x
        shown = {"gated": u, "sum": total}.get(self.shows)
        out = self.relu(total)
        return out if shown is None else (out, shown)


class _Returns(nn.Module):
    """A network of one unit."""

    def __init__(self, shows: str) -> None:
        super().__init__()
        self.unit = _Branch(shows)

    def forward(self, x: torch.Tensor) -> Any:
        return self.unit(x)


@pytest.mark.parametrize(("shows", "end"), [("", "activation"), ("sum", "sum"), ("gated", None)])
def test_what_follows_in_the_unit(shows: str, end: str | None) -> None:
    steps, _ = _plan(_Returns(shows).eval())
    found = steps[-1].epilogue
    assert (found.end if found else None) == end
    if found is not None:
        assert found.unit == "unit"
        names = ("branch", "branch.0", "branch.1", "branch.2", "drop", "relu")
        assert {f"unit.{name}" for name in names} - set(found.through) == set()
    # A network that is itself the unit has nobody who could say so.
    steps, _ = _plan(_Branch(shows).eval())
    assert steps[-1].epilogue is None


def test_a_folded_norm_is_rounded_once() -> None:
    model = _stack(nn.BatchNorm2d(8))
    norm = model[1]
    for each in (norm.running_mean, norm.weight.data, norm.bias.data):
        each.normal_()
    norm.running_var.uniform_(0.5, 2)
    wide: list[Any] = [
        each.detach().double() for each in (*model[0].parameters(), norm.running_mean, norm.running_var)
    ]
    wide += [norm.eps, norm.weight.double(), norm.bias.double()]
    exact: Any = fuse_conv_bn_weights(*wide)
    (step,), _ = _plan(model)
    step.apply(model)
    assert torch.equal(model[0].weight, exact[0].float())
    assert torch.equal(model[0].bias, exact[1].float())
