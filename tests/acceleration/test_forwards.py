import copy
import pickle
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import senet
from senet.acceleration.forwards import GateForward, NormForward, is_left


def _accelerated() -> Any:
    model = timm.create_model("seresnet18", num_classes=3, zero_init_last=False).double()
    senet.accelerate(model, backend="composite")
    return model


def _x() -> Tensor:
    return torch.randn(2, 3, 32, 32, dtype=torch.float64)


def test_copies_and_pickles_call_their_own_modules() -> None:
    model, x = _accelerated(), _x()
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        stand_in: Any = copied.layer1[0].se.forward
        assert isinstance(stand_in, GateForward)
        assert id(stand_in.module) == id(copied.layer1[0].se)
        with torch.no_grad():
            copied.layer1[0].se.fc2.bias.fill_(100)
        assert not torch.allclose(copied.eval()(x), model.eval()(x))


def test_what_is_attached_later_sees_what_it_always_saw() -> None:
    model, x = _accelerated().eval(), _x()
    plain = copy.deepcopy(model)
    senet.accelerate(plain, backend="reference")
    for path in ("layer1.0.bn2", "layer1.0.se", "layer2.1.se.fc1", "layer2.0", "layer1.0.act2"):
        seen: list[Tensor] = []
        for each in (model, plain):
            handle = each.get_submodule(path).register_forward_hook(lambda m, i, o, seen=seen: seen.append(o))
            each(x)
            handle.remove()
        assert [type(each) for each in seen] == [Tensor, Tensor]
        torch.testing.assert_close(*seen)


def test_the_module_called_by_itself_gives_a_map() -> None:
    model = _accelerated().eval()
    unit = model.get_submodule("layer1.0")
    u = torch.randn(2, 64, 5, 5, dtype=torch.float64)
    norm = unit.get_submodule("bn2")
    torch.testing.assert_close(torch.as_tensor(norm(u) + 0), nn.BatchNorm2d.forward(norm, u))
    block = unit.get_submodule("se")
    torch.testing.assert_close(block(u) + 0, type(block).forward(block, u))


def test_our_blocks_still_show_their_gates() -> None:
    model: Any = timm.create_model("resnet18", num_classes=3)
    senet.insert(model)
    senet.accelerate(model)
    assert isinstance(model.layer1[0].bn2.forward, NormForward)
    with senet.record_gates(model) as gates:
        model.eval()(torch.randn(2, 3, 32, 32))
    assert len(gates.rows) == 8
    assert gates.rows[0]["mean"] == pytest.approx(1)


def test_hooks_are_the_users_but_for_our_own() -> None:
    model: Any = timm.create_model("resnet18")
    senet.insert(model)
    assert is_left(*model.modules())
    model.conv1.register_forward_hook(lambda *_: None)
    assert not is_left(*model.modules())


@pytest.mark.parametrize("ours", [True, False])
def test_a_layer_that_is_replaced_is_the_one_that_computes(ours: bool) -> None:
    model = senet.build("se_resnet20").eval() if ours else timm.create_model("test_efficientnet").eval()
    images = torch.randn(2, 3, 64, 64)
    senet.accelerate(model, example=images)
    name = "fc1" if ours else "conv_reduce"
    blocks = [each for each in model.modules() if hasattr(each, name)]
    assert blocks
    for block in blocks:
        other = copy.deepcopy(getattr(block, name))
        nn.init.normal_(other.weight)
        setattr(block, name, other)
    with torch.no_grad():
        found = model(images)
        senet.accelerate(model, backend="reference")
        torch.testing.assert_close(found, model(images), rtol=1e-4, atol=1e-4)
