"""Copies: with tensors of their own, without users' hooks, without SE."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import senet
from senet.acceleration.forwards import GateForward
from senet.analysis.cost.replica import on_meta, replica, without


class _TheirSE(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        s: Tensor = self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x * s


def _theirs() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), _TheirSE(8), nn.ReLU())


def test_a_copy_has_tensors_of_its_own_and_keeps_what_is_shared() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)).requires_grad_(
        False
    )
    model[2].weight = model[0].weight
    model[0].weight.requires_grad_(True)
    copied: Any = replica(model, lambda tensor: tensor.clone())
    assert copied[2].weight is copied[0].weight is not model[0].weight
    assert [each.requires_grad for each in copied.parameters()] == [
        each.requires_grad for each in model.parameters()
    ]
    copied.train()(torch.randn(4, 3, 5, 5))
    assert int(model[1].num_batches_tracked) == 0


def test_what_users_attached_stays_behind() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 16, 1), senet.SqueezeExcitation(16))
    seen: list[object] = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    model[1].register_gate_hook(lambda *_: seen.append(2))
    replica(model, lambda tensor: tensor)(torch.zeros(1, 3, 4, 4))
    assert not seen
    model(torch.zeros(1, 3, 4, 4))
    assert seen == [1, 2]


def test_inserted_blocks_come_along() -> None:
    model = senet.build("resnet20")
    senet.insert(model, init="random")
    x = torch.randn(2, 3, 32, 32)
    copied = replica(model, lambda tensor: tensor.clone()).eval()
    assert torch.equal(copied(x), model.eval()(x))


@pytest.mark.parametrize("how", ["built", "inserted", "accelerated", "theirs"])
def test_without_se(how: str) -> None:
    x = torch.randn(2, 3, 32, 32)
    if how == "theirs":
        model: Any = _theirs()
        paths = ["2"]
        plain: nn.Module = nn.Sequential(*(model[k] for k in (0, 1, 3)))
    else:
        model = senet.build("se_resnet20" if how == "built" else "resnet20")
        plain = senet.build("resnet20")
        if how != "built":
            senet.insert(model, init="random")
        if how == "accelerated":
            senet.accelerate(model, backend="composite")
        plain.load_state_dict(model.state_dict(), strict=False)
        paths = [name for name, each in model.named_modules() if isinstance(each, senet.SqueezeExcitation)]
    keys = list(model.state_dict())
    for training in (False, True):
        found = without(model.train(training), paths)(x)
        torch.testing.assert_close(found, plain.train(training)(x))
    assert list(model.state_dict()) == keys


def test_one_of_several_accelerated_blocks() -> None:
    model: Any = nn.Sequential(_theirs(), nn.Conv2d(8, 3, 1), _theirs())
    x = torch.randn(2, 3, 16, 16)
    model.eval()
    wanted = model[2](model[1](nn.Sequential(*(model[0][k] for k in (0, 1, 3)))(x)))
    senet.accelerate(model, backend="composite", example=x)
    copied = without(model, ["0.2"])
    torch.testing.assert_close(copied(x), wanted)
    left = [
        name for name, each in copied.named_modules() if isinstance(each.__dict__.get("forward"), GateForward)
    ]
    assert left == ["2.2"]


def test_on_meta_blocks_compute_as_asked() -> None:
    model = senet.build("se_resnet20")
    chosen = model.get_submodule("layer1.0.se")
    chosen.backend = "reference"  # type: ignore[assignment]
    for fused, wanted in ((True, "composite"), (False, "auto")):
        copied = on_meta(model, fused=fused)
        assert all(each.is_meta for each in (*copied.parameters(), *copied.buffers()))
        assert copied.get_submodule("layer1.0.se").backend == "reference"
        assert copied.get_submodule("layer1.1.se").backend == wanted
    assert not next(model.parameters()).is_meta
