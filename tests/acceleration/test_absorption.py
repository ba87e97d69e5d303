import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torchvision.ops import FrozenBatchNorm2d

from senet.acceleration.absorption import Fold, Neighbours
from senet.graph.flow import Flow
from senet.graph.trace import trace

Way = Callable[..., Tensor]


class Gate(nn.Module):
    """A constant scale, 1 unless it is set."""

    s: Tensor | float = 1.0

    def forward(self, u: Tensor) -> Tensor:
        return u * self.s


class Around(nn.Module):
    """Layers, a scale in their middle, and one way from the input to it and one from there on."""

    def __init__(self, before: Way, after: Way) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.norm, self.frozen = nn.BatchNorm2d(4), FrozenBatchNorm2d(4)
        self.bare = nn.BatchNorm2d(4, affine=False)
        self.gate = Gate()
        self.next, self.grouped = nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(4, 6, 3, groups=2)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.reflecting = nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect")
        self.fc, self.wide, self.rows = nn.Linear(4, 3), nn.Linear(4 * 9, 3), nn.Linear(6, 3)
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self, self.gate(self.before(self, x)), x)


def _absorbed(model: Around, sign: float = 1.0) -> tuple[Tensor, list[Fold] | None]:
    """Numbers from 0 to 1.5, or below, and who takes them in."""
    flow = Flow(trace(model, torch.randn(2, 3, 6, 6)))
    call = next(call for call in flow.graph.calls if call.module == "gate")
    gated, product = call.arguments[0], call.output
    assert gated is not None
    assert product is not None
    scale = sign * torch.linspace(0.0, 1.5, flow.channels(gated), dtype=torch.float64)
    return scale, Neighbours(model, flow).absorb(gated, range(call.first, call.end), product, scale)


def _folds(model: Around) -> list[Fold] | None:
    return _absorbed(model)[1]


def _said(folds: list[Fold] | None) -> str:
    return ", ".join(f"{fold.side} of {fold.layer}" for fold in folds or [])


def _closed(m: Any, u: Tensor, x: Tensor) -> Tensor:
    """What no scale passes, so that only what is before can take it in."""
    return u.tanh()


def _opaque(m: Any, x: Tensor) -> Tensor:
    """The same before."""
    gated: Tensor = m.conv(x).tanh()
    return gated


BEFORE: dict[str, tuple[Way, str]] = {
    "conv": (lambda m, x: m.conv(x), "output of conv"),
    "norm": (lambda m, x: m.norm(m.conv(x)), "output of norm"),
    "frozen norm": (lambda m, x: m.frozen(m.conv(x)), "output of frozen"),
    "relu in place": (lambda m, x: m.norm(m.conv(x)).relu_(), "output of norm"),
    "pooled": (lambda m, x: F.max_pool2d(F.leaky_relu(m.conv(x)), 3, 1, 1), "output of conv"),
    "constants": (lambda m, x: F.avg_pool2d(0.3 * m.conv(x), 3, 1, 1), "output of conv"),
    "sum": (lambda m, x: m.norm(m.conv(x)) + m.other(x), "output of norm, output of other"),
    "mix": (lambda m, x: torch.lerp(m.conv(x), m.other(x), 0.3), "output of conv, output of other"),
    "concatenation": (
        lambda m, x: torch.cat([m.other(x), m.norm(m.conv(x))], 1),
        "output of other, output of norm",
    ),
    "norm without weights": (lambda m, x: m.bare(m.conv(x)), ""),
    "another activation": (lambda m, x: F.silu(m.conv(x)), ""),
    "a sum with the input": (lambda m, x: m.conv(x) + x.mean(1, keepdim=True), ""),
    "a product": (lambda m, x: m.conv(x) * m.other(x), ""),
    "a layer twice": (lambda m, x: m.depthwise(m.depthwise(m.conv(x))), ""),
    "the input": (lambda m, x: x, ""),
}
AFTER: dict[str, tuple[Way, str]] = {
    "conv": (lambda m, u, x: m.next(u), "input of next"),
    "grouped": (lambda m, u, x: m.grouped(u), "input of grouped"),
    "depthwise": (lambda m, u, x: m.depthwise(u), "input of depthwise"),
    "several": (lambda m, u, x: m.next(u.relu()).sum() + m.fc(u.mean((2, 3))), "input of next, input of fc"),
    "pooled and flattened": (
        lambda m, u, x: m.wide(F.max_pool2d(F.avg_pool2d(u, 3, 1, 1), 2).flatten(1)),
        "input of wide",
    ),
    "one map": (lambda m, u, x: m.fc(F.adaptive_avg_pool2d(u, 1).flatten(1)), "input of fc"),
    "reflected": (lambda m, u, x: m.reflecting(u), ""),
    "a norm": (lambda m, u, x: m.next(m.norm(u)), ""),
    "one reader of two": (lambda m, u, x: m.next(u) + u.mean(1, keepdim=True), ""),
    "a sum": (lambda m, u, x: m.next(u + m.other(x)), ""),
    "channels mixed by a view": (lambda m, u, x: m.wide(u.reshape(2, 36, 4).transpose(1, 2)), ""),
    "returned": (lambda m, u, x: u, ""),
    "a layer of rows": (lambda m, u, x: m.rows(u), ""),
}


def _checked(model: Around) -> str:
    """Who takes the scale in, after comparing what the network then computes."""
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    scale, folds = _absorbed(model)
    scaled, folded = copy.deepcopy(model).double(), copy.deepcopy(model).double()
    scaled.gate.s = scale[:, None, None]
    for fold in folds or []:
        fold.apply(folded)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    for training in (True, False) if folds else ():
        found, meant = folded.train(training)(x), scaled.train(training)(x)
        torch.testing.assert_close(found, meant, rtol=1e-10, atol=1e-10)
    return _said(folds)


@pytest.mark.parametrize("name", BEFORE)
def test_what_makes_a_map_takes_its_scale_in(name: str) -> None:
    way, wanted = BEFORE[name]
    assert _checked(Around(way, _closed)) == wanted


@pytest.mark.parametrize("name", AFTER)
def test_what_reads_a_map_takes_its_scale_in(name: str) -> None:
    way, wanted = AFTER[name]
    assert _checked(Around(_opaque, way)) == wanted


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda m, x: m.conv(x).relu(), _closed),
        (lambda m, x: F.max_pool2d(m.conv(x), 2), _closed),
        (_opaque, lambda m, u, x: m.next(u.relu())),
    ],
)
def test_numbers_below_zero_pass_nothing_that_bends(before: Way, after: Way) -> None:
    model = Around(before, after)
    assert _absorbed(model, -1.0)[1] is None
    assert _absorbed(model, 0.0)[1] is not None


def test_a_layer_that_anything_else_depends_on_is_left_alone() -> None:
    def model() -> Any:
        return Around(BEFORE["conv"][0], _closed)

    hooked, weighed, tied, subclassed, replaced = (model() for _ in range(5))
    hooked.conv.register_forward_hook(lambda *_: None)
    parametrizations.weight_norm(hooked.conv)
    parametrizations.weight_norm(weighed.conv)
    tied.another = nn.Conv2d(3, 4, 3)
    tied.another.weight = tied.conv.weight
    subclassed.conv = type("StdConv2d", (nn.Conv2d,), {})(3, 4, 3)
    replaced.conv.forward = lambda x: F.conv2d(x, torch.ones(4, 3, 1, 1))
    for each in (hooked, weighed, tied, subclassed, replaced):
        assert _folds(each) is None
    assert _said(_folds(model())) == "output of conv"


def test_a_map_that_is_read_beside_the_scale_keeps_its_size() -> None:
    def after(m: Any, u: Tensor, x: Tensor) -> Tensor:
        total: Tensor = u.tanh() + m.kept
        return total

    def before(m: Any, x: Tensor) -> Tensor:
        m.kept = m.conv(x)
        kept: Tensor = m.kept
        return kept

    assert _folds(Around(before, after)) is None
