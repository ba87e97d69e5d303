"""What the page and the picture of a comparison show alike."""

from __future__ import annotations

import math

from senet.analysis.comparison.comparison import Comparison, Group
from senet.analysis.comparison.seeds import BETTER, UNDECIDED, WORSE
from senet.report.palette import GREEN, GREY, VERMILION

# The colour of each verdict.
VERDICTS = {BETTER: GREEN, UNDECIDED: GREY, WORSE: VERMILION}

# Letters of a label in a figure; how far the runs of a group spread within its row of 1.
_LONGEST, _SPREAD = 32, 0.18


def short(text: str, longest: int = _LONGEST) -> str:
    """A label, or other text, on one line and of so many letters that there is room for the figure."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def jitter(place: int, count: int) -> float:
    """How far below the middle of its row the run ``place`` of ``count`` stands, so that all are seen."""
    return 0.0 if count == 1 else _SPREAD * math.cos(math.pi * place)


def state(group: Group) -> str:
    """Why a group has no points."""
    if group.undefined:
        return f"not defined: {group.undefined}"
    return "failed" if group.failed and not group.missing else "not run yet"


def compared(comparison: Comparison) -> tuple[list[str], list[float]]:
    """Labels and places along the axis of the gains: the baseline first, where the gain is 0.

    Pairs stand at log2 of their depth.
    """
    if comparison.pairs:
        pairs = [pair for pair in comparison.pairs if pair.se in comparison.gains]
        return [pair.se for pair in pairs], [math.log2(pair.depth) for pair in pairs]
    labels = [comparison.baseline, *comparison.gains]
    return labels, [float(place) for place in range(len(labels))]
