import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.acceleration.held import stirred
from tests.acceleration.networks import NETWORKS, SLOW, basic, bottlenecks, images, inserted
from tests.networks import Bottleneck, Net, Unit
from torch import Tensor, nn

import senet
from senet.acceleration.pointwise import GatedInput, GatedOutput
from senet.acceleration.simplify import simplified
from senet.errors import AccelerationError, InsertionError, OptionError
from senet.models import resnet
from senet.models.registry import NetworkConfig
from senet.models.units import BottleneckUnit
from senet.normalisation import is_batch_norm

# No norm, and no pointwise convolution beside SE.
NOTHING = ("stack", "user")
# Blocks whose gates are squeezed before a convolution, and those in the weights of one.
BOTH = {
    "bottlenecks": (3, 0), "bottlenecks pre": (0, 3), "bottlenecks 3x3": (0, 3), "inserted": (2, 0),
    "inserted pre": (0, 2), "timm efficientnet": (0, 0), "torchvision": (0, 1),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        *(each for each in NETWORKS if each not in NOTHING),
        *(pytest.param(each, marks=pytest.mark.slow) for each in SLOW),
    ],
)
def test_it_computes_the_same_with_less(name: str) -> None:
    model = stirred((NETWORKS | SLOW)[name]()).eval()
    before, x = {key: value.clone() for key, value in model.state_dict().items()}, images(name)
    found, report = simplified(model, example=x)
    assert isinstance(report.change, float)
    assert report.change < 1e-12
    torch.testing.assert_close(found(x), model(x), rtol=1e-10, atol=1e-10)
    # Of other sizes than the one that it was made with.
    y = images(name)[:1, :, :, 2:]
    torch.testing.assert_close(found(y), model(y), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    if name in BOTH:
        assert (_count(found, GatedOutput), _count(found, GatedInput)) == BOTH[name]
    assert len(report) == sum(step.kind == "norm" for step in report.steps) + _count(
        found, GatedOutput
    ) + _count(found, GatedInput)


def _count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


def test_each_rewriting_can_be_switched_off() -> None:
    model = bottlenecks().eval()
    with_norms = senet.simplify(model, squeeze=False, scale=False)
    assert not any(is_batch_norm(module) for module in with_norms.modules())
    assert _count(with_norms, senet.SqueezeExcitation) == 3
    # The norm between the convolution and the block stays, and is in the way.
    with pytest.raises(AccelerationError, match=r"nothing to rewrite; layer1.0.se: no pointwise"):
        senet.simplify(model, norms=False)
    model = bottlenecks("3x3").eval()
    assert _count(senet.simplify(model, norms=False), GatedInput) == 3
    assert _count(senet.simplify(model, scale=False), GatedInput) == 0
    with pytest.raises(OptionError, match="all False"):
        senet.simplify(model, norms=False, squeeze=False, scale=False)


def test_the_report_says_what_was_done_and_what_was_left(tmp_path: Path) -> None:
    _, report = simplified(basic().eval(), example=torch.randn(2, 3, 16, 16))
    text = str(report)
    assert "x batch norm folded into the convolution before it" in text
    assert "3 x left, such as layer1.0.se: no pointwise convolution stands beside it" in text
    report.save(tmp_path / "report.csv")
    assert (tmp_path / "report.csv").read_text().count("\n") == 1 + len(report.rows)
    _, report = simplified(bottlenecks("3x3").eval(), example=torch.randn(2, 3, 4, 4))
    assert "has 32 weights a channel, the map 16 positions" in str(report)


def test_a_network_in_training_comes_out_in_evaluation_and_the_given_one_stays() -> None:
    model = bottlenecks()
    found = senet.simplify(model)
    assert model.training
    assert not any(module.training for module in found.modules())
    x = images("bottlenecks").float()
    torch.testing.assert_close(found(x), model.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_stays(dtype: torch.dtype) -> None:
    found = senet.simplify(stirred(bottlenecks()).to(dtype).eval())
    assert {tensor.dtype for tensor in found.state_dict().values()} == {dtype}
    assert found(torch.randn(2, 3, 16, 16, dtype=dtype)).dtype == dtype


def test_accelerated_networks_are_simplified_from_what_they_were() -> None:
    model = stirred(inserted()).eval()
    x = images("inserted")
    wanted = model(x)
    senet.accelerate(model)
    found = senet.simplify(model)
    assert _count(found, GatedOutput) == 2
    assert not any("forward" in module.__dict__ for module in found.modules())
    torch.testing.assert_close(found(x), wanted, rtol=1e-10, atol=1e-10)


def test_it_is_exported() -> None:
    model = stirred(bottlenecks()).float().eval()
    found, x = senet.simplify(model), torch.randn(2, 3, 32, 32)
    sizes = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    exported: Any = torch.export.export(found, (x,), dynamic_shapes=(sizes,))
    y = torch.randn(3, 3, 48, 40)
    torch.testing.assert_close(exported.module()(y), model(y), rtol=1e-4, atol=1e-4)
    names = {str(node.target) for node in exported.graph.nodes}
    assert not any("batch_norm" in name for name in names)


def test_gates_are_still_recorded() -> None:
    model = bottlenecks().eval()
    x = torch.randn(4, 3, 32, 32)
    found = senet.simplify(model)
    with senet.record_gates(model) as wanted, torch.no_grad():
        model(x)
        found(x)
        assert wanted["layer1.0.se"].count == 4, "those of the given network alone"
    with senet.record_gates(found) as gates, torch.no_grad():
        found(x)
    assert len(gates) == len(wanted) == 3
    for now, was in zip(gates, wanted, strict=True):
        torch.testing.assert_close(now.mean, was.mean, rtol=1e-4, atol=1e-5)


def test_its_weights_do_not_say_that_they_are_the_networks(tmp_path: Path) -> None:
    model = senet.build("se_resnet20", num_classes=4).eval()
    senet.weights.save(senet.simplify(model), tmp_path / "simple.safetensors")
    with pytest.raises(senet.SenetError, match="network"):
        senet.load(str(tmp_path / "simple.safetensors"))
    again = senet.simplify(copy.deepcopy(model))
    again.load_state_dict(senet.simplify(model).state_dict())


class _Lies(nn.Module):
    """A norm that its network reads itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        scored: Tensor = self.norm(self.conv(x)) + getattr(self.norm, "eps", 1.0)
        return scored


class _Infinite(_Lies):
    """Hides what it computes among outputs that are infinite, or large."""

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        y[:, 0] = float("-inf")
        return {"scores": y, "size": y[:, 1:].mean() * 0 + 1e12}


@pytest.mark.parametrize("kind", [_Lies, _Infinite])
def test_what_computes_something_else_is_an_error(kind: type[nn.Module]) -> None:
    with pytest.raises(AccelerationError, match=r"rewritten, it differs by .* from the network as it was"):
        senet.simplify(kind().eval())


@dataclass
class _Found:
    scores: Tensor


class _Tells(nn.Module):
    """Gives what cannot be looked into, or does not run in float64."""

    def __init__(
        self, tells: Callable[[Tensor], Any], before: Callable[[Tensor], Tensor] = lambda x: x
    ) -> None:
        super().__init__()
        self.conv, self.norm, self.tells, self.before = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), tells, before

    def forward(self, x: Tensor) -> Any:
        return self.tells(self.norm(self.conv(self.before(x))))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (_Tells(_Found), "returns no tensor of floating-point numbers"),
        (_Tells(lambda y: y.argmax(1)), "returns no tensor of floating-point numbers"),
        (_Tells(lambda y: y, lambda x: x.float()), "in float64 the network does not run"),
    ],
    ids="dataclass integers float32".split(),
)
def test_what_cannot_be_compared_is_an_error(model: nn.Module, why: str) -> None:
    with pytest.raises(AccelerationError, match=f"cannot be compared with it, as .*{why}"):
        senet.simplify(model.eval())


def test_nan_and_random_numbers_are_no_difference() -> None:
    model = _Tells(lambda y: y + torch.randn_like(y)).eval()
    nn.init.constant_(model.conv.weight[0], float("nan"))
    assert simplified(model)[1].change == pytest.approx(0, abs=1e-12)


def test_numbers_that_a_dtype_does_not_hold_are_an_error() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8, eps=1e-7)).half().eval()
    nn.init.constant_(model[0].weight, 100.0)
    nn.init.constant_(model[1].running_var, 1e-7)
    with pytest.raises(AccelerationError, match=r"too large for its dtype.*in float32"):
        senet.simplify(model)


def test_a_simplified_network_is_copied_pickled_and_simplified_again() -> None:
    """Also where the hooks of inserted SE are on a norm that is gone."""
    model = Net(Unit(), Bottleneck(16, 32, 2), leaving=32).eval()
    senet.insert(model, reduction=4, init="random")
    x = torch.randn(2, 3, 16, 16)
    found = senet.simplify(model)
    assert _count(found, senet.SqueezeExcitation) == 1
    for again in (copy.deepcopy(found), pickle.loads(pickle.dumps(found)), senet.simplify(model)):
        assert torch.equal(again(x), found(x))
    assert not any(each.requires_grad for each in senet.simplify(model.requires_grad_(False)).parameters())
    with pytest.raises(InsertionError, match="it was simplified"):
        senet.remove(found)


@pytest.mark.parametrize("other", [{"gate": "tanh"}, {"init": "identity"}])
def test_weights_are_not_loaded_into_a_network_with_other_gates(
    other: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "simple.safetensors"
    row = resnet.Row(BottleneckUnit, (1, 1), planes=8, stem="conv3")
    networks = [
        resnet.ResNet(row, NetworkConfig("se_resnet50", 4, se=senet.SEConfig(reduction=4, **each)))
        for each in ({}, other)
    ]
    mine, theirs = map(senet.simplify, networks)
    senet.weights.save(mine, path)
    senet.weights.load(senet.simplify(networks[0]), path)
    with pytest.raises(senet.SenetError):
        senet.weights.load(theirs, path)


@pytest.mark.parametrize("name", NOTHING)
def test_what_has_nothing_to_rewrite_is_an_error(name: str) -> None:
    with pytest.raises(AccelerationError, match=r"there is nothing to rewrite; .*: no pointwise convolution"):
        senet.simplify(NETWORKS[name]())


def test_what_cannot_be_followed_is_an_error() -> None:
    with pytest.raises(InsertionError, match="wrapped for parallel training"):
        senet.simplify(nn.DataParallel(basic()))


def test_a_network_without_memory_is_simplified_but_not_compared() -> None:
    with torch.device("meta"):
        model = senet.build("se_resnet20")
    found, report = simplified(model)
    assert "not compared, as the network is on meta" in str(report)
    assert len(found.state_dict()) < len(model.state_dict())
