"""The paper's placements of SE in a residual unit, as data (Figure 5, Tables 14 and 15).

A residual unit is ``relu(branch(x) + shortcut(x))``. A placement names the one tensor of
the unit that SE gates; here they exist once, for the networks that are built with SE and
for those that get it later.
"""

from __future__ import annotations

from dataclasses import dataclass

from senet.errors import OptionError, check_choice


@dataclass(frozen=True)
class UnitChannels:
    """The channels of a residual unit: what enters, after its 3×3 in the middle, what leaves.

    ``middle`` is None where no 3×3 convolution stands inside the branch: in a basic unit
    the last one ends the branch, which is the standard place.
    """

    entering: int
    middle: int | None
    leaving: int


@dataclass(frozen=True)
class Placement:
    """One place of SE in a residual unit.

    Args:
        name: as in ``placement=``.
        where: the tensor that is gated, in words.
        source: where the paper defines it.
        channels: which of the unit's channel counts that tensor has.
    """

    name: str
    where: str
    source: str
    channels: str

    def channels_in(self, unit: UnitChannels) -> int:
        """C of the gated tensor; OptionError where the unit has no such tensor."""
        channels: int | None = getattr(unit, self.channels)
        if channels is None:
            raise OptionError(
                f"placement={self.name!r}",
                found="the network's units are basic: no 3x3 convolution stands inside their branch",
                allowed="standard, pre, post, identity in basic units",
                do="Use a bottleneck network such as resnet50, or another placement.",
            )
        return channels


PLACEMENTS: dict[str, Placement] = {
    name: Placement(name, where, source, channels)
    for name, where, source, channels in (
        ("standard", "the end of the branch, before the sum", "Figure 5b, Table 14", "leaving"),
        ("pre", "the start of the branch; the shortcut stays as it is", "Figure 5c, Table 14", "entering"),
        ("post", "the unit's output, after the sum and the ReLU", "Figure 5d, Table 14", "leaving"),
        ("identity", "the shortcut, after its projection if any", "Figure 5e, Table 14", "leaving"),
        ("3x3", "inside a bottleneck, after the 3x3 convolution's ReLU", "Table 15", "middle"),
    )
}


def placement_named(name: str) -> Placement:
    """The placement of that name; OptionError, naming the nearest, if there is none."""
    check_choice(f"placement={name!r}", name, PLACEMENTS)
    return PLACEMENTS[name]
