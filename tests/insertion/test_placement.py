import re

import pytest

from senet.block import SEConfig
from senet.errors import OptionError, UndefinedError
from senet.graph.units import __doc__ as kinds
from senet.insertion.placement import PLACEMENTS, RULES, STACKS, Slot, UnitChannels, placement_named
from senet.models.units import BasicUnit, project

BOTTLENECK = UnitChannels(entering=256, middle=128, leaving=512)


@pytest.mark.parametrize(
    ("name", "channels"), [("standard", 512), ("pre", 256), ("post", 512), ("identity", 512), ("3x3", 128)]
)
def test_each_placement_gates_one_tensor(name: str, channels: int) -> None:
    assert placement_named(name).channels_in(BOTTLENECK) == channels


def test_these_are_the_papers_placements() -> None:
    assert list(PLACEMENTS) == ["standard", "pre", "post", "identity", "3x3"]
    assert all(name == placement.name for name, placement in PLACEMENTS.items())


def test_a_basic_unit_has_no_3x3_inside() -> None:
    with pytest.raises(UndefinedError, match="Use a bottleneck network"):
        placement_named("3x3").channels_in(UnitChannels(64, None, 64))


def test_an_unknown_placement_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'standard'"):
        placement_named("standart")


def test_every_kind_of_unit_has_its_rule() -> None:
    named = re.findall(r"^- (\w+):", str(kinds), re.M)
    assert list(RULES) == named
    assert all(kind == rule.kind for kind, rule in RULES.items())
    assert {rule.tensor for rule in RULES.values()} == {"branch", "middle", "leaving"}
    assert set(STACKS) <= set(RULES)


def test_a_unit_of_ours_is_a_slot() -> None:
    unit = BasicUnit(8, 8, 1, shortcut=project, se=None, placement="standard")
    assert isinstance(unit, Slot)
    assert not isinstance(SEConfig().build(64), Slot)
