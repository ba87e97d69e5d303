"""What pictures of gates show, in numbers: whoever draws them, they show the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from senet.analysis.role.measures import class_shares
from senet.analysis.role.profiles import CLOSED, OPEN, BlockProfile
from senet.analysis.role.study import GateStudy
from senet.analysis.stages import paper_names, stages_of
from senet.data.source import evenly_spaced

# Letters of the name of a class.
_LONGEST = 40

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """Numbers over depth that stand together.

    Args:
        title: what they are.
        lines: the columns of ``GateStudy.rows``, each with its name in the legend.
        share: whether they are shown in per cent.
    """

    title: str
    lines: Mapping[str, str]
    share: bool = False


DEPTH = (
    Panel(
        "How much of a gate's variance over images the class explains", {"class_share": "class share"}, True
    ),
    Panel("How alike the profiles of two classes are: their mean correlation", {"similarity": "similarity"}),
    Panel(
        "How far gates lie apart: standard deviation",
        {
            "between_channels": "between channels",
            "between_classes": "between classes",
            "within_class": "between images of a class",
        },
    ),
    Panel(
        "How many gates are at the ends",
        {"closed": f"closed (≤ {CLOSED:g})", "open": f"open (≥ {OPEN:g})"},
        share=True,
    ),
)


def labels(study: GateStudy) -> dict[str, str]:
    """By its name what a block is called: as in the paper if it is known there, else without a shared end."""
    names = list(study.blocks)
    # The last part of each name, then the last but one, as far as all agree and something is left.
    ends = zip(*(reversed(name.split(".")[1:]) for name in names), strict=False)
    shared = sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, ends)) if len(names) > 1 else 0
    short = {name: ".".join(name.split(".")[: -shared or None]) for name in names}
    return short | paper_names(names)


@dataclass(frozen=True)
class Stage:
    """Blocks of one resolution.

    Args:
        first: the number of the first block.
        last: that of the last.
        text: the size of the maps and the channels.
    """

    first: int
    last: int
    text: str


def stages(study: GateStudy) -> list[Stage]:
    """The stages in the order of the blocks."""
    found, first = [], 0
    for names in stages_of(study.blocks.values()):
        block = study.blocks[names[0]]
        size = " × ".join(map(str, block.size)) or f"{block.channels} channels"
        found.append(Stage(first, first + len(names) - 1, size))
        first += len(names)
    return found


def sampled(channels: int, count: int | None) -> list[int]:
    """The numbers of ``count`` evenly spaced channels; of all for None."""
    return evenly_spaced(channels, channels if count is None else count)


def sorted_shares(profile: BlockProfile) -> tuple[Values, list[int]]:
    """The class shares of a block's channels from the lowest on, and the numbers of these channels.

    From 0 to 1: below 0 is chance. Channels without variance are NaN, at the end.
    """
    shares = class_shares(profile)
    order = shares.argsort(stable=True)
    return shares[order].clamp(0, 1).numpy(), order.tolist()


def most_specific(profile: BlockProfile, count: int) -> list[int]:
    """The ``count`` channels whose gates the class explains best, the best first; fewer if few vary."""
    shares = class_shares(profile).nan_to_num(-math.inf)
    return [
        channel
        for channel in shares.argsort(descending=True, stable=True)[:count].tolist()
        if shares[channel] > -math.inf
    ]


def class_labels(study: GateStudy, shown: Sequence[int]) -> list[str]:
    """The names of these classes, cut to a line."""
    names = [" ".join(study.classes[number].split()) or f"class {number}" for number in shown]
    return [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]


def summary(study: GateStudy) -> str:
    """What was looked at, in a line."""
    images, classes = study.evaluation.images, int(next(iter(study.blocks.values())).images.count_nonzero())
    weights = ", random weights: mechanics only" if study.random else ""
    return f"{study.network}{weights} · {images:,} images of {classes:,} classes from {study.data}"


def gate_range(study: GateStudy) -> tuple[float, float]:
    """0 to 1, and as far beyond as gates went."""
    finite = [
        (float(torch.nan_to_num(block.low, 0.0).min()), float(torch.nan_to_num(block.high, 1.0).max()))
        for block in study.blocks.values()
    ]
    return min(0.0, *(low for low, _ in finite)), max(1.0, *(high for _, high in finite))


def over_classes(profile: BlockProfile) -> Tensor:
    """(C,) the mean over the classes that have images, each counting the same, as in the paper's Figure 6."""
    return profile.class_mean[profile.images > 0].mean(0)
