import pytest
import torch
from tests.networks import Bottleneck, Net, Unit, conv
from torch import Tensor, nn
from torch.nn import functional as F

from senet.graph.found import Found
from senet.graph.found import Unit as FoundUnit
from senet.graph.trace import trace
from senet.graph.units import find_units
from senet.insertion.attachment import (
    Attachment,
    attachment_at_shortcut,
    attachment_at_start,
    attachment_for,
)


def _unit(model: nn.Module, index: int = 0) -> tuple[Found, FoundUnit]:
    found = find_units(trace(model, torch.empty(2, 3, 16, 16)))
    return found, found.units[index]


def test_the_module_that_makes_a_value() -> None:
    found, unit = _unit(Net(Unit()))
    assert attachment_for(found.flow, unit.branches[0]) == Attachment("output", "units.0.b2")
    assert attachment_for(found.flow, unit.leaving) == Attachment("output", "units.0")
    assert str(attachment_for(found.flow, unit.leaving)) == "output of units.0"


def test_the_module_that_alone_is_given_a_value() -> None:
    found, unit = _unit(Net(Bottleneck(16, 16)))
    # Its activation runs three times, so that it cannot be the one.
    assert attachment_for(found.flow, unit.middle or 0) == Attachment("input", "units.0.c3")


class _Scaled(nn.Module):
    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.c1, self.c2, self.last = conv(16, 16), conv(16, 16), last

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(0.1 * self.c2(F.relu(self.c1(x))))  # type: ignore[no-any-return]


@pytest.mark.parametrize("last", [nn.Identity(), nn.Sequential(), nn.Dropout()])
def test_a_value_that_a_module_passes_on_is_gated_before_it(last: nn.Module) -> None:
    found, unit = _unit(Net(_Scaled(last)))
    assert attachment_for(found.flow, unit.branches[0]) == Attachment("input", "units.0.last")


def test_gating_commutes_with_a_constant() -> None:
    found, unit = _unit(Net(Unit(how="scaled")))
    assert attachment_for(found.flow, unit.branches[0]) == Attachment("output", "units.0.b2")


class _Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(16, 8), conv(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([F.relu(self.a(x)), F.relu(self.b(x))], 1)
        return y.view(2, 2, 8, 16, 16).transpose(1, 2).reshape(2, 16, 16, 16)


def test_gating_commutes_with_a_shuffle_of_channels() -> None:
    found, unit = _unit(Net(_Shuffled()))
    assert attachment_for(found.flow, unit.leaving) == Attachment("output", "units.0")


class _Functions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(16, 16, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + F.conv2d(F.relu(F.conv2d(x, self.w, padding=1)), self.w, padding=1)


def test_between_functions_there_is_no_place() -> None:
    found, unit = _unit(Net(_Functions()))
    assert attachment_for(found.flow, unit.branches[0]) is None
    assert attachment_at_start(found.flow, unit) is None


class _Twice(nn.Module):
    """One operation reads the activation before dropout, another after."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.drop, self.fc = conv(3, 16), conv(16, 16), nn.Dropout2d(), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = F.relu(self.c1(x))
        b = F.relu(self.c2(self.drop(a)))
        return self.fc(a.mean((2, 3))), self.fc(b.mean((2, 3)))


def test_what_others_read_before_dropout_is_not_gated_at_it() -> None:
    found, first = _unit(_Twice())
    assert attachment_for(found.flow, first.leaving) is None


def test_the_start_of_a_branch() -> None:
    found, unit = _unit(Net(Bottleneck(16, 32, 2), leaving=32))
    assert attachment_at_start(found.flow, unit) == Attachment("input", "units.0.c1")


def test_a_shortcut_with_a_module_and_one_without() -> None:
    model = Net(Bottleneck(16, 32, 2), Bottleneck(32, 32), leaving=32)
    found, first = _unit(model)
    calls = {call.module: call for call in found.flow.graph.calls}
    assert attachment_at_shortcut(found.flow, first, calls["units.0"]) == Attachment(
        "output", "units.0.project.1"
    )
    second = found.units[1]
    wanted = Attachment("shortcut", "units.1", 0, (("units.1.c1", 0),))
    assert attachment_at_shortcut(found.flow, second, calls["units.1"]) == wanted
    assert attachment_at_shortcut(found.flow, second, calls["units"]) is None, "not its input"
