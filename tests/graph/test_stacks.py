import pytest
import torch
from tests.networks import HandSwish, SharedActivation, conv
from torch import Tensor, nn
from torch.nn import functional as F

from senet.graph.found import Found
from senet.graph.trace import trace
from senet.graph.units import find_units


def _found(model: nn.Module) -> Found:
    return find_units(trace(model, torch.empty(2, 3, 16, 16)))


def _head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]


def test_a_convolution_and_its_activation_are_a_plain_unit() -> None:
    for model, count in ((HandSwish(), 1), (SharedActivation(), 3)):
        assert [unit.kind for unit in _found(model).units] == ["plain"] * count


def test_a_map_of_classes_is_none() -> None:
    model = nn.Sequential(
        conv(3, 8), nn.ReLU(), conv(8, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    assert len(_found(model).units) == 1


def test_mobilenet_v1_is_made_of_separable_units() -> None:
    def separable(a: int, b: int) -> list[nn.Module]:
        return [
            conv(a, a, groups=a),
            nn.BatchNorm2d(a),
            nn.ReLU(),
            conv(a, b, 1),
            nn.BatchNorm2d(b),
            nn.ReLU(),
        ]

    model = nn.Sequential(conv(3, 8), nn.ReLU(), *separable(8, 16), *separable(16, 16), *_head(16))
    found = _found(model)
    assert [unit.kind for unit in found.units] == ["separable", "separable"]
    assert [found.flow.graph.op_of(u.leaving).module for u in found.units] == ["7", "13"]  # type: ignore[union-attr]


def test_mbconv_that_changes_size_is_inverted() -> None:
    def mbconv(a: int, b: int) -> list[nn.Module]:
        return [
            conv(a, 4 * a, 1),
            nn.ReLU6(),
            conv(4 * a, 4 * a, groups=4 * a, stride=2),
            nn.ReLU6(),
            conv(4 * a, b, 1),
        ]

    model = nn.Sequential(
        conv(3, 8), nn.ReLU(), *mbconv(8, 12), *mbconv(12, 16), conv(16, 20, 1), nn.ReLU(), *_head(20)
    )
    found = _found(model)
    assert [unit.kind for unit in found.units] == ["inverted", "inverted"]
    for unit, entering, wide in zip(found.units, (8, 12), (32, 48), strict=True):
        assert found.flow.channels(unit.entering) == entering
        assert found.flow.channels(unit.middle or 0) == wide


class _RepVgg(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.c3, self.c1, self.norm = conv(a, b), conv(a, b, 1), nn.BatchNorm2d(b)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.c3(x)) + self.c1(x))


def test_parallel_convolutions_that_are_summed() -> None:
    found = _found(nn.Sequential(_RepVgg(3, 8), _RepVgg(8, 16), *_head(16)))
    assert [unit.kind for unit in found.units] == ["parallel", "parallel"]
    assert all(found.flow.graph.op_of(u.branches[0]).name == "add" for u in found.units)  # type: ignore[union-attr]
    assert found.others == []


class _Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = conv(3, 8), conv(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc((F.relu(self.a(x)) + F.relu(self.b(x))).mean((2, 3)))
        return scores


@pytest.mark.parametrize("model", [_Unknown(), nn.Sequential(nn.Flatten(), nn.Linear(768, 2))])
def test_what_is_not_understood_is_no_stack(model: nn.Module) -> None:
    assert _found(model).units == []
