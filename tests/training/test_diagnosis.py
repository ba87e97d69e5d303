import pytest
import torch
from torch import Tensor, nn

import senet
from senet.training.diagnosis import first_not_finite


class Spoils(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x * self.value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_layer_is_named(value: float) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), Spoils(value)), nn.Linear(3, 2))
    x = torch.randn(4, 3)
    assert first_not_finite(model, lambda: model(x)) == "the output of 1.1 (Spoils)"
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_inside_a_fused_unit_is_found() -> None:
    model = senet.build("se_resnet20").train()
    with torch.no_grad():
        dict(model.named_parameters())["layer2.1.bn2.weight"].fill_(float("inf"))
    x = torch.randn(2, 3, 16, 16)
    assert first_not_finite(model, lambda: model(x)) == "the output of layer2.1.bn2 (BatchNorm2d)"


def test_where_the_forward_is_finite_it_is_the_last_gradient() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    x = torch.randn(4, 3)
    model(x).sum().backward()
    assert first_not_finite(model, lambda: model(x)) is None
    for name in ("0.weight", "2.weight"):
        dict(model.named_parameters())[name].grad.fill_(float("nan"))  # type: ignore[union-attr]
    assert first_not_finite(model, lambda: model(x)) == "the gradient of 2.weight"
