"""The stages of a network, as its SE blocks show them, and what the paper calls a block."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Protocol


class Placed(Protocol):
    """A block, and the maps that it gates.

    Args:
        name: in the network.
        channels: C.
        size: of the map, () if it is not known.
    """

    @property
    def name(self) -> str:
        """In the network."""

    @property
    def channels(self) -> int:
        """C."""

    @property
    def size(self) -> tuple[int, ...]:
        """Of the map, () if it is not known."""


def stages_of(blocks: Iterable[Placed]) -> list[list[str]]:
    """The names of the blocks in runs of equal resolution; of equal width where it is not known."""
    ordered = list(blocks)
    known = all(block.size for block in ordered)
    runs = groupby(ordered, key=lambda block: block.size if known else (block.channels,))
    return [[block.name for block in run] for _, run in runs]


def panels(blocks: Iterable[Placed]) -> list[str]:
    """The blocks that the paper's Figures 6 and 7 show.

    "The last SE block of each stage", and of the last stage the first two besides: in ResNet-50 SE_2_3,
    SE_3_4, SE_4_6, SE_5_1, SE_5_2 and SE_5_3 (section 7.2).
    """
    *earlier, last = stages_of(blocks)
    return [*(stage[-1] for stage in earlier), *dict.fromkeys([*last[:2], last[-1]])]


# layer1 to layer4 are the paper's stages 2 to 5; a CIFAR network, with three, has no names there.
_RESIDUAL = re.compile(r"layer([1-4])\.(\d+)\b")


def paper_names(names: Sequence[str]) -> dict[str, str]:
    """SE_stage_block, as the paper calls the blocks of its residual networks; none of other networks."""
    matches = {name: _RESIDUAL.match(name) for name in names}
    if not any(match and match[1] == "4" for match in matches.values()):
        return {}
    return {name: f"SE_{int(match[1]) + 1}_{int(match[2]) + 1}" for name, match in matches.items() if match}
