"""A comparison as a picture on paper: the errors of all runs, and the gains."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet.analysis.comparison.comparison import Comparison
from senet.analysis.comparison.seeds import Estimate
from senet.errors import MissingExtraError
from senet.files import replacing
from senet.report.comparison.views import VERDICTS, jitter, short, state
from senet.report.palette import BLUE, GREY, INK, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE, FORMATS = "comparison", ("png", "svg")
_DPI = 150
# In inches: the width, a row, and what stands above and below the rows.
_WIDE, _ROW, _AROUND = 8.5, 0.32, 1.25
# Letters of the title, and of why a group has no runs.
_TITLE, _WHY = 85, 48


def write_figure(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes ``comparison.png`` (150 dots an inch) and ``comparison.svg``, each whole or not at all.

    Args:
        comparison: nothing is written before a run is done.
        folder: it exists.

    Returns:
        Their paths.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if not any(group.results for group in comparison.groups):
        return []
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise MissingExtraError.of("matplotlib", extra="plot", need="the picture") from error
    written = []
    # SVG names its parts at random, unless it is told not to.
    with rc_context({"svg.hashsalt": "senet"}), warnings.catch_warnings():
        # Scripts that no font here has are drawn as boxes; the page beside the picture has them.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure = figure_of(comparison)
        for kind in FORMATS:
            path = folder / f"{PICTURE}.{kind}"
            with replacing(path) as temporary:
                metadata = {"Date": None} if kind == "svg" else {}
                figure.savefig(temporary, format=kind, dpi=_DPI, metadata=metadata)
            written.append(path)
    return written


def figure_of(comparison: Comparison) -> Figure:
    """A row a group: left the test errors of its runs with mean and interval, right the gain."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    groups = comparison.groups
    height = _ROW * len(groups) + _AROUND
    # Not by pyplot, which chooses a backend for the whole program.
    apart = ConstrainedLayoutEngine(wspace=0.06)
    figure = Figure(figsize=(_WIDE, height), dpi=_DPI, facecolor="white", layout=apart)
    errors, gains = figure.subplots(1, 2, sharey=True)
    _furnish(errors, "test error, %")
    _furnish(gains, "gain, points of test top-1")
    gains.axvline(0, color=GREY, linewidth=0.8)
    for row, group in enumerate(groups):
        values = list(group.values("test_error").values())
        spots = [row + jitter(place, len(values)) for place in range(len(values))]
        errors.plot(values, spots, "o", color=BLUE, alpha=0.45, markersize=4, markeredgewidth=0)
        _mark(errors, row, group.mean("test_error"), INK)
        if not values:
            where = errors.get_yaxis_transform()
            why = errors.text(0.01, row, short(state(group), _WHY), transform=where, va="center", fontsize=8)
            why.set(color=GREY, parse_math=False, in_layout=False)
        if gain := comparison.gains.get(group.label):
            own = list(gain.by_seed.values())
            spots = [row + jitter(place, len(own)) for place in range(len(own))]
            gains.plot(own, spots, "o", color=BLUE, alpha=0.45, markersize=4, markeredgewidth=0)
            _mark(gains, row, gain.estimate, VERDICTS[gain.verdict])
    errors.set_ylim(len(groups) - 0.5, -0.5)
    errors.set_yticks(range(len(groups)), [short(group.label) for group in groups], fontsize=9, color=INK)
    for tick in errors.get_yticklabels():
        tick.set_parse_math(False)
    title = short(comparison.title, _TITLE)
    heading = figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    heading.set_parse_math(False)
    below = "dots: runs; diamonds: means over seeds with 95 % intervals, in colour where better or worse"
    figure.supxlabel(below, fontsize=8, color=GREY)
    return figure


def _mark(axes: Axes, row: int, mean: Estimate | None, colour: str) -> None:
    """A mean with its interval, where they are known."""
    if mean is None:
        return
    reach: Any = None if mean.high is None else mean.high - mean.mean
    axes.errorbar(mean.mean, row, xerr=reach, fmt="D", color=colour, markersize=5, linewidth=1.5, capsize=3)


def _furnish(axes: Axes, name: str) -> None:
    """A name above, a thin grid, and no frame."""
    axes.set_title(name, loc="left", fontsize=9, color=GREY)
    axes.grid(color=PALE, linewidth=0.6, axis="x")
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, colors=GREY)
