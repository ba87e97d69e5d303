"""The gates of a network as pictures on paper: the paper's Figures 6 and 7, and two over depth."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from senet.analysis.role.study import GateStudy
from senet.analysis.stages import panels as panels_of
from senet.errors import MissingExtraError, check_choice
from senet.files import replacing
from senet.report.gates.views import (
    DEPTH,
    class_labels,
    gate_range,
    labels,
    over_classes,
    sampled,
    sorted_shares,
    stages,
    summary,
)
from senet.report.palette import GREY, INK, PALE, SCALE, line_colour, line_dash

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.text import Text

FORMATS = ("png", "svg")
_DPI = 150

# In inches: the figures over depth are so wide, their panels so high; the paper's panels; a row of the map.
_WIDE, _DEPTH, _PANEL, _ROW = 8.5, 2.0, (3.3, 2.3), 0.2
_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
# Letters above the map.
_LONGEST = 120
# Between two stages, in rows.
_STAGE_GAP = 0.45


def write_figures(
    study: GateStudy,
    folder: Path,
    *,
    shown: Sequence[int],
    channels: int | None = 50,
    panels: Sequence[str] | None = None,
) -> list[Path]:
    """Writes each figure as PNG (150 dots an inch) and SVG, each whole or not at all.

    Args:
        study: the gates.
        folder: where they go; it exists.
        shown: the numbers of the classes that are drawn.
        channels: how many of each block, evenly spaced; None for all.
        panels: the names of the blocks that are drawn; None for the paper's choice.

    Returns:
        The paths of classes, instances, depth and specificity.

    Raises:
        OptionError: there is no such block.
        MissingExtraError: matplotlib is not installed.
    """
    panels = panels_of(study.blocks.values()) if panels is None else panels
    for name in panels:
        check_choice(f"the panel {name!r}", name, study.blocks)
    figures: dict[str, Callable[[], Figure]] = {
        "classes": lambda: classes_figure(study, shown, channels, panels),
        "instances": lambda: instances_figure(study, shown[:2], channels, panels),
        "depth": lambda: depth_figure(study),
        "specificity": lambda: specificity_figure(study),
    }
    written = []
    with _same_bytes():
        for name, draw in figures.items():
            figure = draw()
            for kind in FORMATS:
                metadata = {"Date": None} if kind == "svg" else {}
                with replacing(folder / f"{name}.{kind}") as temporary:
                    figure.savefig(temporary, format=kind, dpi=_DPI, metadata=metadata)
                written.append(folder / f"{name}.{kind}")
    return written


def classes_figure(
    study: GateStudy, shown: Sequence[int], channels: int | None, panels: Sequence[str]
) -> Figure:
    """The mean gate of some channels in each class and over all, a panel a block: the paper's Figure 6."""
    figure, axes = _panels(study, panels)
    for place, name in zip(axes, panels, strict=True):
        profile = study.blocks[name]
        at = sampled(profile.channels, channels)
        means = profile.class_mean
        for number, label in enumerate(shown):
            place.plot(
                at,
                means[label, at],
                color=line_colour(number),
                linestyle=_DASHES[line_dash(number)],
                linewidth=1.0,
            )
        place.plot(at, over_classes(profile)[at], color=INK, linewidth=1.3, linestyle=(0, (2, 1)))
    names = [*class_labels(study, shown), f"mean over all {len(study.classes):,} classes"]
    _name_lines(figure, axes[0], names)
    return figure


def instances_figure(
    study: GateStudy, shown: Sequence[int], channels: int | None, panels: Sequence[str]
) -> Figure:
    """Mean and standard deviation of some channels over the images of a class: the paper's Figure 7."""
    figure, axes = _panels(study, panels)
    for place, name in zip(axes, panels, strict=True):
        profile = study.blocks[name]
        at = sampled(profile.channels, channels)
        means, deviations = profile.class_mean, profile.class_std
        for number, label in enumerate(shown):
            mean, deviation = means[label, at].numpy(), deviations[label, at].numpy()
            place.plot(at, mean, color=line_colour(number), linewidth=1.0)
            place.fill_between(
                at, mean - deviation, mean + deviation, color=line_colour(number), alpha=0.22, linewidth=0
            )
    _name_lines(figure, axes[0], [f"{name}: mean ± deviation" for name in class_labels(study, shown)])
    return figure


def depth_figure(study: GateStudy) -> Figure:
    """What is measured in each block, with 95 % intervals, over depth."""
    from matplotlib.ticker import PercentFormatter

    figure = _new(_WIDE, len(DEPTH) * _DEPTH + 0.8)
    axes: Any = figure.subplots(len(DEPTH), sharex=True, squeeze=False)[:, 0]
    names = list(labels(study).values())
    places = range(len(names))
    for panel, place in zip(DEPTH, axes, strict=True):
        _furnish(place, panel.title)
        if panel.share:
            place.yaxis.set_major_formatter(PercentFormatter(1, 0))
        for number, (column, title) in enumerate(panel.lines.items()):
            numbers = [each.numbers[column] for each in study.measures]
            value, low, high = (
                np.array([np.nan if each is None else each for each in side])
                for side in zip(*numbers, strict=True)
            )
            colour = line_colour(number)
            place.plot(places, value, "o-", color=colour, linewidth=1.4, markersize=3.5, label=title)
            place.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
        if len(panel.lines) > 1:
            place.legend(
                frameon=False, fontsize=8, ncols=len(panel.lines), loc="lower right", bbox_to_anchor=(1, 1)
            )
        for number, stage in enumerate(stages(study)):
            if number % 2:
                place.axvspan(stage.first - 0.5, stage.last + 0.5, color="#f5f5f2", zorder=0)
    axes[-1].set_xticks(places, names, rotation=90 if len(names) > 9 else 0, fontsize=8)
    axes[-1].set_xlim(-0.5, len(names) - 0.5)
    _plain(axes[-1].get_xticklabels())
    return figure


def specificity_figure(study: GateStudy) -> Figure:
    """Blocks x channels, coloured by how much of each channel's gate the class explains."""
    names = list(labels(study).values())
    rows = np.arange(len(names), dtype=float)
    for stage in stages(study)[1:]:
        rows[stage.first :] += _STAGE_GAP
    head, foot = 0.75, 0.7
    height = head + foot + _ROW * (rows[-1] + 1)
    from matplotlib.ticker import PercentFormatter

    figure = _new(_WIDE, height)
    figure.set_layout_engine("none")
    place = figure.add_axes((0.13, foot / height, 0.79, 1 - (head + foot) / height))
    for row, profile, each in zip(rows, study.blocks.values(), study.measures, strict=True):
        shares, _ = sorted_shares(profile)
        image = place.imshow(
            shares[None],
            extent=(0, 1, row + 0.44, row - 0.44),
            aspect="auto",
            interpolation="nearest",
            cmap=_colours(),
            vmin=0,
            vmax=1,
        )
        share = each.numbers["class_share"].value
        place.text(
            1.012,
            row,
            "–" if share is None else f"{round(share, 2) + 0.0:.0%}",
            va="center",
            fontsize=8,
            color=INK,
        )
    place.set(xlim=(0, 1), ylim=(rows[-1] + 0.5, -0.5), xticks=[])
    place.set_yticks(rows, names, fontsize=8, color=INK)
    place.tick_params(length=0)
    place.spines[:].set_visible(False)
    _plain(place.get_yticklabels())

    def above(x: float, inches: float, text: str, **options: Any) -> None:
        figure.text(x, 1 - inches / height, text, va="top", **options).set_parse_math(False)

    above(
        0.13,
        0.12,
        "How much of each gate the class of the image explains",
        fontsize=12,
        fontweight="bold",
        color=INK,
    )
    above(0.13, 0.40, textwrap.shorten(summary(study), _LONGEST, placeholder=" …"), fontsize=8.5, color=GREY)
    above(0.93, 0.56, "block", fontsize=8, color=GREY)
    bar_place = figure.add_axes((0.13, 0.42 / height, 0.3, 0.11 / height))
    bar = figure.colorbar(image, cax=bar_place, orientation="horizontal", format=PercentFormatter(1, 0))
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, colors=GREY)
    text = "of its variance over images\na row is a block, a cell a channel; grey ones do not vary"
    figure.text(0.47, 0.4 / height, text, va="center", fontsize=8.5, color=GREY, linespacing=1.4)
    return figure


@contextlib.contextmanager
def _same_bytes() -> Iterator[None]:
    """SVG names its parts at random, unless it is told not to."""
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise MissingExtraError.of("matplotlib", extra="plot", need="figures") from error
    with rc_context({"svg.hashsalt": "senet"}):
        yield


def _colours() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("class share", SCALE).with_extremes(bad="#cccccc")


def _new(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    # Not by pyplot, which chooses a backend for the whole program.
    return Figure(figsize=(width, height), dpi=_DPI, facecolor="white", layout="constrained")


def _panels(study: GateStudy, names: Sequence[str]) -> tuple[Figure, list[Any]]:
    """A panel a block, as many rows as needed, all with the same axis of gates."""
    columns = 2 if len(names) in (2, 4) else min(3, len(names))
    rows = -(-len(names) // columns)
    figure = _new(_PANEL[0] * columns, _PANEL[1] * rows + 0.5)
    axes: list[Any] = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for empty in axes[len(names) :]:
        empty.remove()
    called = labels(study)
    for place, name in zip(axes, names, strict=False):
        _furnish(place, called[name])
        place.set_ylim(*gate_range(study))
        place.set_xlim(0, study.blocks[name].channels - 1)
    for place in axes[: len(names) : columns]:
        place.set_ylabel("gate", color=GREY, fontsize=9)
    for place in axes[max(0, len(names) - columns) : len(names)]:
        place.set_xlabel("channel", color=GREY, fontsize=9)
    return figure, axes[: len(names)]


def _furnish(axes: Axes, name: str) -> None:
    """A name above, a thin grid, and no frame."""
    axes.set_title(name, loc="left", fontsize=10, color=INK, parse_math=False)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, colors=GREY)


def _name_lines(figure: Figure, axes: Axes, names: Sequence[str]) -> None:
    """The names of the lines of a panel, above all panels."""
    legend = figure.legend(
        axes.get_lines(),
        names,
        loc="outside upper left",
        ncols=3,
        frameon=False,
        fontsize=9,
        alignment="left",
    )
    _plain(legend.get_texts())


def _plain(texts: Iterable[Text]) -> None:
    """Names are text: a dollar in them begins no formula."""
    for text in texts:
        text.set_parse_math(False)
