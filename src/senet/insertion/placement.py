"""The paper's placements of SE in a residual unit, as data (Figure 5, Tables 14 and 15).

A residual unit is ``relu(branch(x) + shortcut(x))``. A placement names the one tensor of
the unit that SE gates; here they exist once, for the networks that are built with SE and
for those that get it later.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from senet.block import SqueezeExcitation, Substitute
from senet.errors import UndefinedError, check_choice


class Slot:
    """What a residual unit derives from that calls its block itself; such units need no hook.

    ``se`` and ``placement`` are None while it is plain.
    """

    channels: UnitChannels
    placement: Placement | None
    se: SqueezeExcitation | Substitute | None


class Staged(ABC):
    """What a network derives from that has stages of its own; those of others are counted."""

    @abstractmethod
    def stage_of(self, module: str) -> int | None:
        """The k of conv{k}_x for the module at a path, None for one that is in no stage."""


class Rebuilt(ABC):
    """What a network derives from that says how it is built again."""

    @abstractmethod
    def became_constant(self, folded: Sequence[str], scaled: Sequence[str]) -> None:
        """Is told which SE blocks are no longer there, and in whose place a constant scale is."""


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
        tensor: the same as a program says it: branch (its end), entering, leaving, shortcut (its
            end) or middle.
    """

    name: str
    where: str
    source: str
    tensor: str

    def channels_in(self, unit: UnitChannels) -> int:
        """C of the gated tensor; UndefinedError where the unit has no such tensor."""
        # What is added has the channels of the sum.
        channels = {"entering": unit.entering, "middle": unit.middle}.get(self.tensor, unit.leaving)
        if channels is None:
            raise UndefinedError(
                f"placement={self.name!r}",
                found="the network's units are basic: no 3x3 convolution stands inside their branch",
                allowed="standard, pre, post, identity in basic units",
                do="Use a bottleneck network such as resnet50, or another placement.",
            )
        return channels


PLACEMENTS: dict[str, Placement] = {
    name: Placement(name, where, source, tensor)
    for name, where, source, tensor in (
        ("standard", "the end of the branch, before the sum", "Figure 5b, Table 14", "branch"),
        ("pre", "the start of the branch; the shortcut stays as it is", "Figure 5c, Table 14", "entering"),
        ("post", "the unit's output, after the sum and the ReLU", "Figure 5d, Table 14", "leaving"),
        ("identity", "the shortcut, after its projection if any", "Figure 5e, Table 14", "shortcut"),
        ("3x3", "inside a bottleneck, after the 3x3 convolution's ReLU", "Table 15", "middle"),
    )
}


@dataclass(frozen=True)
class Rule:
    """Where SE stands, by default, in one kind of unit.

    Args:
        kind: of the unit (``graph/units.py`` says what makes one).
        tensor: which of the unit's tensors is gated: branch, middle or leaving.
        where: the same in words.
        source: whose choice it is.
    """

    kind: str
    tensor: str
    where: str
    source: str


# The paper's placements are variants of the first; the other kinds have one place each.
RULES: dict[str, Rule] = {
    kind: Rule(kind, tensor, where, source)
    for kind, tensor, where, source in (
        ("residual", "branch", "the end of the branch, before the sum", "section 3.3, Figure 3"),
        ("inverted", "middle", "after the spatial convolution's activation", "MobileNetV3, MnasNet"),
        (
            "inception",
            "leaving",
            "the whole module's output, after the concatenation",
            "section 3.3, Figure 2",
        ),
        ("dense", "branch", "the new features, before they are concatenated", "as for residual units"),
        ("aggregation", "leaving", "after the convolution of the concatenation", "VoVNetV2"),
        ("parallel", "branch", "the sum of the convolutions, before its activation", "RepVGG, MobileOne"),
        ("separable", "branch", "after the pointwise convolution's activation", "SE-MobileNet, Table 3"),
        ("plain", "branch", "after the convolution's activation", "section 3.3, SE-VGG"),
    )
}

# Kinds of unit that have neither a sum nor a concatenation to tell them from a stem or a head.
STACKS = ("parallel", "separable", "plain")


def placement_named(name: str) -> Placement:
    """The placement of that name; OptionError, naming the nearest, if there is none."""
    check_choice(f"placement={name!r}", name, PLACEMENTS)
    return PLACEMENTS[name]
